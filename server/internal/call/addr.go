package call

import (
	"net/netip"
	"strings"
)

// Trusted is the set of proxies whose forwarded-address headers count.
type Trusted []netip.Prefix

// Client is the address of who made a request that arrived from peer. Unless peer is a trusted proxy that is peer
// itself, whatever the headers say. From a trusted one it is the right-most address of X-Forwarded-For that is not
// itself trusted: everything to the left of it was written by somebody we do not know. An entry that is no address ends the
// search, at the last address that is known.
func (t Trusted) Client(peer netip.Addr, forwarded []string) netip.Addr {
	peer = Plain(peer)
	if !t.Has(peer) {
		return peer
	}
	known := peer
	for i := len(forwarded) - 1; i >= 0; i-- {
		entries := strings.Split(forwarded[i], ",")
		for j := len(entries) - 1; j >= 0; j-- {
			a, ok := forwardedAddr(strings.TrimSpace(entries[j]))
			if !ok {
				return known
			}
			if known = a; !t.Has(a) {
				return a
			}
		}
	}
	return known
}

// Has reports whether an address is that of a trusted proxy.
func (t Trusted) Has(a netip.Addr) bool {
	for _, p := range t {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// forwardedAddr reads an entry of X-Forwarded-For: an address, which some proxies write with a port.
func forwardedAddr(s string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return Plain(a), true
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return Plain(ap.Addr()), true
	}
	return netip.Addr{}, false
}

// Plain is an address as everything compares it: IPv4 unmapped, without a zone.
func Plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }
