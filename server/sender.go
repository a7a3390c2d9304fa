package server

import (
	"io"
	"net/http"
	"net/netip"
)

// senders finds out who sends an HTTP request, as far as the chain needs to know before it has the call.
type senders struct {
	chain   *chain // nil: nobody is known
	trusted trusted
}

// client returns the address of whoever made the request.
func (s senders) client(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return s.trusted.client(peer.Addr(), r.Header.Values("X-Forwarded-For"))
}

// known returns nil if the request shows a good credential in its header.
func (s senders) known(r *http.Request) error {
	c := &call{Context: r.Context(), method: &method{}, credentials: r.Header["Authorization"], behindGateway: true}
	c.peer.IP = s.client(r)
	c.late.timeout = s.chain.timeout
	defer c.late.release()
	return s.chain.known(c)
}

// newBody bounds a request's body by what known returns of its sender.
func (s senders) newBody(r *http.Request, from io.ReadCloser, known func(*http.Request) error) *body {
	return &body{ReadCloser: from, unknown: s.chain.unknown, know: func() error { return known(r) }}
}
