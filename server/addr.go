package server

import (
	"net/netip"
	"strings"
)

// trusted is the set of proxies whose forwarded-address headers count.
type trusted []netip.Prefix

// client is the address of who made a request that arrived from peer. Unless peer is a trusted proxy that is peer
// itself, whatever the headers say. From a trusted one it is the right-most address of X-Forwarded-For that is not
// itself trusted: everything to the left of it was written by somebody we do not know. An entry that is no address ends the
// search, at the last address that is known.
func (t trusted) client(peer netip.Addr, forwarded []string) netip.Addr {
	peer = plain(peer)
	if !t.has(peer) {
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
			if known = a; !t.has(a) {
				return a
			}
		}
	}
	return known
}

func (t trusted) has(a netip.Addr) bool {
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
		return plain(a), true
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return plain(ap.Addr()), true
	}
	return netip.Addr{}, false
}

// plain is an address as everything compares it: IPv4 unmapped, without a zone.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }
