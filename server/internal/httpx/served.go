package httpx

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"

	"patd/server/internal/call"
	"patd/server/internal/connection"
	"patd/server/internal/fault"
	"patd/tokens"
)

// Served is a call of an endpoint that answers its HTTP requests itself, from its begin to its log line.
type Served struct {
	*call.Call

	Code     codes.Code // for the metrics and the log; Internal unless the endpoint sets another
	Exchange *Exchange
	chain    *call.Chain
	start    time.Time
}

// Begin begins a call of a method. The caller defers End. route is the pattern of the path, where the mux does not know
// it; empty: it does.
func Begin(ctx context.Context, chain *call.Chain, m *call.Method, route string) Served {
	x := ExchangeOf(ctx)
	x.Reached = true
	if route != "" {
		x.Route = route
	}
	c := &call.Call{
		Context:    ctx,
		Method:     m,
		ID:         x.RequestID,
		Peer:       tokens.Peer{IP: x.Client},
		Connection: connection.Of(ctx),
	}
	c.Actor.Peer, c.Route = c.Peer, x.Method+" "+x.Route
	return Served{c, codes.Internal, x, chain, time.Now()}
}

// End ends the call: it counts it and writes its log line, whatever the result. It is deferred by itself: fail responds
// after a panic, and returns the code.
func (s *Served) End(fail func(error) codes.Code) {
	if v := recover(); v != nil {
		s.chain.LogPanic(s.Call, v)
		s.Code = fail(fault.ErrPanic)
	}
	s.Status = s.Exchange.Status
	took := time.Since(s.start)
	s.Method.Metrics.Observe(s.Code, took)
	s.chain.Log(s.Call, s.Code, took)
}
