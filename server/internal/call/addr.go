package call

import (
	"net/netip"
	"strings"
)

// Trusted is the set of proxies whose forwarded-address headers count.
type Trusted []netip.Prefix

// Client returns the client address of a request that arrived from peer. If peer is not a trusted proxy, that is peer
// itself, whatever the headers say. Otherwise it is the right-most address of X-Forwarded-For that is not itself
// trusted: any client could have written the entries to its left. An entry that is not an address ends the search at
// the last known address.
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

// Has reports whether a is the address of a trusted proxy.
func (t Trusted) Has(a netip.Addr) bool {
	for _, p := range t {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// forwardedAddr parses an entry of X-Forwarded-For: an address, to which some proxies add a port.
func forwardedAddr(s string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return Plain(a), true
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return Plain(ap.Addr()), true
	}
	return netip.Addr{}, false
}

// Plain returns an address in the form used for comparison: IPv4 unmapped, without a zone.
func Plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }
