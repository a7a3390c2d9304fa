package loopback

import (
	"net/netip"
	"slices"
)

// Public reports whether an address is one of the internet at large: none of this machine, of a network of its own, or
// of clouds' metadata. Addresses that carry an IPv4 address within are judged by that one, and a zone does not count.
func Public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if inner, ok := carried(a); ok {
		return Public(inner)
	}
	return a.IsGlobalUnicast() && !a.IsPrivate() &&
		!slices.ContainsFunc(special(), func(p netip.Prefix) bool { return p.Contains(a) })
}

// carried returns the IPv4 address that a translated or tunnelled IPv6 address stands for.
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
