package features

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// guard decides which addresses may be dialled. It looks at the address that is about to be connected to, after the name
// was resolved, so that a name that resolves to something else the next time gains nothing.
type guard struct {
	allow    []netip.Prefix // what the operator allows although it is not public
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
	case !public(a):
		return fmt.Errorf("refuse to connect to %v: it is not a public address, and no private range was allowed that holds it", a)
	}
	return nil
}

// public tells whether an address is one of the internet at large. Addresses that carry an IPv4 address within are
// judged by that one.
func public(a netip.Addr) bool {
	if inner, ok := carried(a); ok {
		return public(inner)
	}
	return a.IsGlobalUnicast() && !a.IsPrivate() && !contains(special(), a)
}

// carried answers the IPv4 address that a translated or tunnelled IPv6 address stands for.
func carried(a netip.Addr) (netip.Addr, bool) {
	b := a.As16()
	switch {
	case a.Is4():
		return netip.Addr{}, false
	case netip.MustParsePrefix("64:ff9b::/96").Contains(a), netip.MustParsePrefix("::/96").Contains(a):
		return netip.AddrFrom4([4]byte(b[12:16])), true
	case netip.MustParsePrefix("2002::/16").Contains(a): // 6to4
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return netip.Addr{}, false
}

// special lists the ranges of the IANA special-purpose registries that are global unicast by form only.
func special() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),
		netip.MustParsePrefix("100.64.0.0/10"),    // carrier-grade NAT, and metadata of a cloud within
		netip.MustParsePrefix("168.63.129.16/32"), // metadata of a cloud
		netip.MustParsePrefix("192.0.0.0/24"),
		netip.MustParsePrefix("192.0.2.0/24"),
		netip.MustParsePrefix("192.88.99.0/24"),
		netip.MustParsePrefix("198.18.0.0/15"),
		netip.MustParsePrefix("198.51.100.0/24"),
		netip.MustParsePrefix("203.0.113.0/24"),
		netip.MustParsePrefix("240.0.0.0/4"),
		netip.MustParsePrefix("64:ff9b:1::/48"), // NAT64 within a network
		netip.MustParsePrefix("100::/64"),
		netip.MustParsePrefix("2001::/23"), // protocol assignments, Teredo
		netip.MustParsePrefix("2001:db8::/32"),
		netip.MustParsePrefix("3fff::/20"),
		netip.MustParsePrefix("5f00::/16"),
		netip.MustParsePrefix("fec0::/10"), // site-local, deprecated
	}
}

func contains(nets []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(a) })
}

// unmapped makes networks of IPv4-mapped addresses those of IPv4, since addresses are judged that way.
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
