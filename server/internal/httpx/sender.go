package httpx

import (
	"io"
	"net/http"
	"net/netip"

	"patd/server/internal/call"
	"patd/server/internal/connection"
)

// Senders identifies the sender of an HTTP request, as far as that is needed before the chain has the call.
type Senders struct {
	Chain   *call.Chain // nil: all senders are unknown
	Trusted call.Trusted
}

// Client returns the client address of a request.
func (s Senders) Client(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return s.Trusted.Client(peer.Addr(), r.Header.Values("X-Forwarded-For"))
}

// Known returns nil if the request has a good credential in its header.
func (s Senders) Known(r *http.Request) error {
	c := &call.Call{
		Context: r.Context(), Method: &call.Method{}, Credentials: r.Header["Authorization"], BehindGateway: true,
		Connection: connection.Of(r.Context()),
	}
	c.Peer.IP = s.Client(r)
	c.Late.Timeout = s.Chain.Timeout
	defer c.Late.Release()
	return s.Chain.Known(c)
}

// NewBody returns a request's body, bounded by what known returns about its sender.
func (s Senders) NewBody(r *http.Request, from io.ReadCloser, known func(*http.Request) error) *Body {
	return &Body{ReadCloser: from, held: s.Chain.Unknown.Hold(connection.Of(r.Context())), know: func() error { return known(r) }}
}
