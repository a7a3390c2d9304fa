package config

import (
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// bearerSettings say how the bearers of tokens are treated at gateways, and what they are told.
type bearerSettings struct {
	Accept   accepted
	RenewURL webAddress
	// SelfRotate says whether tokens that were minted for it may rotate themselves.
	SelfRotate bool
}

// flags adds their flags.
func (s *bearerSettings) flags(f *pflag.FlagSet) {
	f.Var(
		&s.Accept,
		"accept",
		"at gateways, take tokens in these `ways` beside Authorization: Bearer, comma-separated: basic (as the password, with any user name), x-api-key",
	)
	f.Var(
		&s.RenewURL,
		"renew-url",
		"`URL` of your page where users renew tokens; clients get it in Patd-Token-Renew in a token's last 30 days",
	)
	f.BoolVar(
		&s.SelfRotate,
		"allow-self-rotate",
		true,
		"let tokens rotate themselves that their owners minted for it (self_rotate); with false nobody mints one, and none rotates itself",
	)
}

// The ways beside Authorization: Bearer in which gateways take tokens.
const (
	acceptBasic  = "basic"
	acceptAPIKey = "x-api-key"
)

// accepted is a flag's value: ways, comma-separated or one at a time.
type accepted []string

// Basic reports whether Basic credentials are taken.
func (a accepted) Basic() bool { return slices.Contains(a, acceptBasic) }

// APIKey reports whether X-API-Key is taken.
func (a accepted) APIKey() bool { return slices.Contains(a, acceptAPIKey) }

// Set adds ways.
func (a *accepted) Set(s string) error {
	for part := range strings.SplitSeq(s, ",") {
		switch part = strings.TrimSpace(part); part {
		case acceptBasic, acceptAPIKey:
			*a = append(*a, part)
		default:
			return errors.New("must be " + acceptBasic + " or " + acceptAPIKey + ", or both, comma-separated")
		}
	}
	return nil
}

// String writes ways as Set reads them.
func (a *accepted) String() string { return strings.Join(*a, ",") }

// Type names the value in a command's help, and in the configuration file a list.
func (a *accepted) Type() string { return "stringArray" }

// webAddress is a flag's value: the address of a page; empty: none.
type webAddress string

// Set reads an address.
func (a *webAddress) Set(s string) error {
	u, err := url.Parse(s)
	if s != "" && (err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http") {
		return errors.New("must be an address such as https://example.com/settings/tokens")
	}
	if s != "" {
		s = u.String() // escaped, so that it may stand in a header
	}
	*a = webAddress(s)
	return nil
}

// String writes the address.
func (a *webAddress) String() string { return string(*a) }

// Type names the value in a command's help.
func (a *webAddress) Type() string { return "string" }
