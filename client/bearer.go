package client

import (
	"net"
	"net/netip"

	header "patd/internal/bearer"
)

// credential says what a call brought along to show who it is.
type credential int

const (
	noCredential    credential = iota // none, or one of another scheme
	bearerToken                       // one bearer token, which may still be no token
	manyCredentials                   // more than one: nobody can say which counts
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

// addressOf reads the address out of what a connection says of its peer; the zero Addr if there is none.
func addressOf(peer string) netip.Addr {
	if at, err := netip.ParseAddrPort(peer); err == nil {
		return at.Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// addressOfPeer is addressOf without the way over text, where that can be avoided.
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
