package config

import (
	"net/netip"

	"github.com/spf13/pflag"

	"patd/cmd/patd/internal/cli"
	"patd/internal/dialguard"
)

// webhookSettings say where endpoints of webhooks may be.
type webhookSettings struct {
	allowPrivate cli.Networks
}

// Flags adds their flags.
func (s *webhookSettings) Flags(f *pflag.FlagSet) {
	f.Var(
		&s.allowPrivate,
		"webhook-allow-private",
		"`networks` that webhooks may be in although they are not public, comma-separated",
	)
}

// AllowPrivate returns the networks that may be connected to although they are not public.
func (s *webhookSettings) AllowPrivate() []netip.Prefix { return s.allowPrivate }

// CheckURL refuses URLs that nothing may be sent to.
func (s *webhookSettings) CheckURL(url string) error {
	_, err := dialguard.Check(url, s.allowPrivate)
	return err
}
