package server_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"patd/internal/oidctest"
	"patd/server/signin"
	"patd/tokens"
)

const (
	idpAudience = "patd"
	idpFeatures = "entitlements" // the claim
)

// idp is an OpenID provider in this process.
type idp struct {
	*oidctest.Provider
	// users is what signIn made.
	users *signin.SignIn
}

func newIDP(t testing.TB, now func() time.Time) *idp {
	t.Helper()
	return &idp{Provider: oidctest.New(t, now)}
}

// signIn is what verifies the provider's tokens.
func (p *idp) signIn(t testing.TB, now func() time.Time) *signin.SignIn {
	t.Helper()
	groups := map[string]tokens.Permission{}
	for _, name := range permissionNames {
		may, err := tokens.ParsePermissions([]string{name})
		must(t, err)
		groups["may-"+name] = may
	}
	s, err := signin.New(signin.Config{Now: now, Issuers: []signin.Issuer{
		{
			URL:              p.URL,
			Audiences:        []string{idpAudience},
			FeaturesClaim:    idpFeatures,
			PermissionsClaim: "groups",
			Permissions:      groups,
		},
	}})
	must(t, err)
	t.Cleanup(s.Close)
	p.users = s
	return s
}

type claim struct {
	name  string
	value any
}

// jwt signs a user in. Claims replace those of a good token.
func (p *idp) jwt(t testing.TB, user string, changed ...claim) string {
	t.Helper()
	return p.Sign(t, p.Claims(user, idpAudience).With(claims(changed)))
}

func claims(list []claim) oidctest.Claims {
	all := oidctest.Claims{}
	for _, c := range list {
		all[c.name] = c.value
	}
	return all
}

// unsigned is a JWT that says it needs no signature.
func unsigned(jwt string) string {
	return encoded([]byte(`{"alg":"none"}`)) + "." + strings.Split(jwt, ".")[1] + "."
}

func encoded(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
