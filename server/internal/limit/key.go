package limit

import "net/netip"

// How much of an address counts. Whoever has one IPv6 address has its /64, and often the /48.
const (
	ownBits4, groupBits4 = 32, 24
	ownBits6, groupBits6 = 64, 48
)

// Key is whom a bucket belongs to, and the group with which it shares a coarse bucket when the table is full. Keys made
// by Name and keys made by Address are never the same.
type Key struct{ own, group identity }

// identity is a name or a network.
type identity struct {
	named bool
	name  string
	net   netip.Prefix
}

// Name is the key of a caller that has a name, which the limiter does not keep.
func Name(s string) Key { return Key{identity{named: true, name: s}, identity{named: true, name: s}} }

// Address is the key of a caller known by its address: IPv4 (IPv4-mapped IPv6 is the same) by itself, IPv6 by its /64,
// whatever the zone. All callers without a valid address have one key.
func Address(a netip.Addr) Key {
	a = a.Unmap().WithZone("")
	own, group := ownBits4, groupBits4
	if a.Is6() {
		own, group = ownBits6, groupBits6
	}
	return Key{identity{net: network(a, own)}, identity{net: network(a, group)}}
}

// network is the network of an address; the zero Prefix for the zero Addr.
func network(a netip.Addr, bits int) netip.Prefix {
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
