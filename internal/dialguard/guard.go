// Package dialguard decides by one rule which URLs that others configured may be called, and which addresses may be
// dialled for them. So a callback or a webhook never reaches what is inside the company's own network, unless the
// operator allowed it.
package dialguard

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"syscall"

	"patd/internal/loopback"
)

// Guard decides which addresses may be dialled for one URL. It checks the address of the connection itself, after the
// name was resolved, so that a name that later resolves to another address gains nothing. The zero Guard allows public
// addresses only.
type Guard struct {
	allow    []netip.Prefix // networks that the operator allows although they are not public
	loopback bool           // the URL's host is literally this machine
	plain    bool           // without TLS, which never leaves this machine
}

// Check checks a URL and returns the guard of its addresses. The URL must be https, or http on this machine, and have
// neither a credential nor a fragment; an address in it must be one that the guard allows. allow are private networks
// that may be dialled. Its errors begin with "its URL" and do not repeat the URL, whose query may be confidential.
func Check(text string, allow []netip.Prefix) (Guard, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return Guard{}, errors.New("its URL must be https://host/path")
	case u.User != nil:
		return Guard{}, errors.New("its URL must not hold a credential; the signature is the proof")
	case u.Fragment != "":
		return Guard{}, errors.New("its URL must not hold a fragment")
	}
	if allow, err = unmapped(allow); err != nil {
		return Guard{}, err
	}
	literal, literalErr := netip.ParseAddr(u.Hostname())
	g := Guard{allow: allow, plain: u.Scheme == "http", loopback: loopback.Host(u.Hostname())}
	if g.plain && !g.loopback {
		return Guard{}, errors.New("its URL must be https: http is for this machine only")
	}
	if literalErr == nil {
		return g, g.check(literal)
	}
	return g, nil
}

// Control is a net.Dialer's ControlContext: it refuses a connection to an address that the guard does not allow.
func (g Guard) Control(_ context.Context, _, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("refuse to connect to what is no address: %w", err)
	}
	return g.check(at.Addr())
}

func (g Guard) check(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	switch {
	case g.plain && !a.IsLoopback():
		return fmt.Errorf("refuse to connect to %v without TLS: it is not this machine", a)
	case g.loopback && a.IsLoopback():
		return nil
	case contains(g.allow, a):
		return nil
	case !loopback.Public(a):
		return fmt.Errorf(
			"refuse to connect to %v: it is not a public address, and no private range was allowed that holds it",
			a,
		)
	}
	return nil
}

func contains(nets []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(a) })
}

// unmapped turns networks of IPv4-mapped addresses into IPv4 networks, since addresses are judged that way.
func unmapped(nets []netip.Prefix) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(nets))
	for _, p := range nets {
		if !p.IsValid() {
			return nil, errors.New("an allowed private range is not a network")
		}
		if a := p.Addr(); a.Is4In6() {
			if p.Bits() < 96 {
				return nil, fmt.Errorf("write the allowed private range %v as a network of IPv4", p)
			}
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}
