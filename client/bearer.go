package client

import (
	"net"
	"net/netip"

	header "patd/internal/bearer"
)

// credential is the kind of credential that a call carries.
type credential int

const (
	noCredential    credential = iota // none, or one of another scheme
	bearerToken                       // one bearer token, possibly not a valid one
	manyCredentials                   // more than one: ambiguous
)

// bearer reads the values of the Authorization header as package bearer does. There must be one.
func bearer(values []string) (token string, found credential) {
	switch len(values) {
	case 0:
		return "", noCredential
	case 1:
	default:
		return "", manyCredentials
	}
	token, ok := header.Token(values[0])
	if !ok {
		return "", noCredential
	}
	return token, bearerToken
}

// addressOf parses the address of a connection's peer; the zero Addr if there is none.
func addressOf(peer string) netip.Addr {
	if at, err := netip.ParseAddrPort(peer); err == nil {
		return at.Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// addressOfPeer is addressOf, without formatting and parsing text where possible.
func addressOfPeer(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case nil:
		return netip.Addr{}
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap().WithZone("")
	default:
		return addressOf(a.String())
	}
}
