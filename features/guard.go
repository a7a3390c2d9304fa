package features

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"patd/internal/loopback"
)

// guard decides which addresses may be dialled. It checks the address of the connection itself, after the name was
// resolved, so that a name that later resolves to another address gains nothing.
type guard struct {
	allow    []netip.Prefix // networks that the operator allows although they are not public
	loopback bool           // the URL's host is literally this machine
	plain    bool           // without TLS, which never leaves this machine
}

// control is a net.Dialer's ControlContext.
func (g guard) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("refuse to connect to what is no address: %w", err)
	}
	return g.check(at.Addr())
}

func (g guard) check(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	switch {
	case g.plain && !a.IsLoopback():
		return fmt.Errorf("refuse to connect to %v without TLS: it is not this machine", a)
	case g.loopback && a.IsLoopback():
		return nil
	case contains(g.allow, a):
		return nil
	case !loopback.Public(a):
		return fmt.Errorf("refuse to connect to %v: it is not a public address, and no private range was allowed that holds it", a)
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
			return nil, fmt.Errorf("an allowed private range is not a network")
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
