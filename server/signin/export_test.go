package signin

import (
	"context"
	"net"
	"net/netip"
	"net/url"
)

// DialKeys dials as the keys at a URL would be fetched, for an issuer whose discovery document came from an address.
func DialKeys(ctx context.Context, issuer, keys, from, dial string) error {
	i, err := url.Parse(issuer)
	if err != nil {
		return err
	}
	k, err := url.Parse(keys)
	if err != nil {
		return err
	}
	bounded, err := fenced(ctx, i, k, netip.MustParseAddr(from))
	if err != nil {
		return err
	}
	conn, err := (&net.Dialer{ControlContext: control}).DialContext(bounded, "tcp", dial)
	if err != nil {
		return err
	}
	return conn.Close()
}

// Misconfigured reports whether an error is one of the settings, not of the provider.
func Misconfigured(err error) bool { return isMisconfigured(err) }
