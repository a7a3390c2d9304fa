package limit

import "net/netip"

// How much of an address counts. A client with one IPv6 address has its /64, and often the /48.
const (
	ownBits4, groupBits4 = 32, 24
	ownBits6, groupBits6 = 64, 48
)

// Key identifies the owner of a bucket, and the group with which it shares a coarse bucket when the table is full. A
// key from Name never equals a key from Address.
type Key struct{ own, group identity }

// identity is a name or a network.
type identity struct {
	named bool
	name  string
	net   netip.Prefix
}

// Name returns the key of a named caller. The limiter does not keep the name.
func Name(s string) Key { return Key{identity{named: true, name: s}, identity{named: true, name: s}} }

// Address returns the key of a caller's address: IPv4 (also IPv4-mapped IPv6) by itself, IPv6 by its /64, whatever the
// zone. All callers without a valid address share one key.
func Address(a netip.Addr) Key {
	a = a.Unmap().WithZone("")
	own, group := ownBits4, groupBits4
	if a.Is6() {
		own, group = ownBits6, groupBits6
	}
	return Key{identity{net: network(a, own)}, identity{net: network(a, group)}}
}

// network returns the network of an address, or the zero Prefix for the zero Addr.
func network(a netip.Addr, bits int) netip.Prefix {
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
