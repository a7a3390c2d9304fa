package config

import (
	"time"

	"github.com/spf13/pflag"

	"patd/cmd/patd/internal/cli"
	"patd/tokens"
)

// noticeSettings say what the audit log has before it happens.
type noticeSettings struct {
	Expiry       cli.Durations
	Unused, Idle cli.Duration
}

// Flags adds their flags.
func (s *noticeSettings) Flags(f *pflag.FlagSet) {
	s.Expiry.List = []time.Duration{30 * tokens.Day, 7 * tokens.Day, tokens.Day}
	s.Unused = cli.Duration(90 * tokens.Day)
	f.Var(
		&s.Expiry,
		"expiry-notices",
		"write token.expiring and service.expiring to the audit log so long before the end of a token or service, comma-separated, and token.expired at it; off: none",
	)
	f.Var(
		&s.Unused,
		"unused-notice",
		"write token.unused to the audit log when a token was not used for so long; 0s: never",
	)
	f.Var(
		&s.Idle,
		"idle-ttl",
		"pause tokens that were not used for so long (TOKEN_IDLE), which token.idle announces 14 days before, until their owners resume them; 0s: never. Look first which they are: patd token preview-idle",
	)
}

// Notices returns them for the service.
func (s *noticeSettings) Notices() tokens.Notices {
	return tokens.Notices{Expiry: s.Expiry.List, Unused: time.Duration(s.Unused), Idle: time.Duration(s.Idle)}
}
