package httpx

import (
	"io"
	"net/http"
	"net/netip"
	"time"

	"google.golang.org/grpc/status"

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
	c := s.call(r, &call.Method{})
	defer c.Late.Release()
	return s.Chain.Known(c)
}

func (s Senders) call(r *http.Request, m *call.Method) *call.Call {
	c := &call.Call{
		Context: r.Context(), Method: m, Credentials: r.Header["Authorization"], BehindGateway: true,
		Connection: connection.Of(r.Context()),
	}
	c.Peer.IP = s.Client(r)
	c.Late.Timeout = s.Chain.Timeout
	return c
}

// Identify returns nil if the caller of the method that the gateway has found is known, and otherwise the error to
// respond with. It has then written the log line of the call, and counted it.
func (s Senders) Identify(r *http.Request, x *Exchange) *status.Status {
	c, start := s.call(r, s.Chain.Of(x.RPC)), time.Now()
	c.ID, c.Route, c.Actor.Peer = x.RequestID, x.Method+" "+x.Route, c.Peer
	err := s.Chain.Known(c)
	if err == nil {
		c.Late.Release()
		return nil
	}
	x.Reached = true
	s.Chain.TraceDirect(c, r.Header)
	return status.Convert(s.Chain.End(c, start, nil, err))
}

// NewBody returns a request's body, bounded by what known returns about its sender.
func (s Senders) NewBody(r *http.Request, from io.ReadCloser, known func(*http.Request) error) *Body {
	return &Body{
		ReadCloser: from,
		held:       s.Chain.Unknown.Hold(connection.Of(r.Context())),
		know:       func() error { return known(r) },
	}
}
