package client

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	patdv1 "patd/gen/patd/v1"
)

// asker sends requests to the server: over one stream, at a fraction of a call's cost, or by calls without a stream.
type asker struct {
	rpc  patdv1.IntrospectionServiceClient
	now  func() time.Time
	line atomic.Pointer[line] // nil: none is open
}

func newAsker(rpc patdv1.IntrospectionServiceClient, now func() time.Time) *asker {
	return &asker{rpc: rpc, now: now}
}

// ask sends one request. A repeat does no harm, so a request that a broken stream left open is sent by a call.
func (a *asker) ask(ctx context.Context, r *patdv1.IntrospectRequest) (*patdv1.IntrospectResponse, error) {
	if l := a.line.Load(); l != nil {
		answer, err := l.ask(ctx, r)
		if !errors.Is(err, errLineBroke) {
			return answer, err
		}
	}
	answer, err := a.rpc.Introspect(ctx, r)
	if connectionLost(err) && ctx.Err() == nil {
		return a.rpc.Introspect(ctx, r)
	}
	return answer, err
}

// connectionLost reports whether a connection ended. An error that the server returned carries details instead.
func connectionLost(err error) bool {
	s := status.Convert(err)
	return s.Code() == codes.Unavailable && len(s.Details()) == 0
}

// keepLine keeps a stream open until ctx ends.
func (a *asker) keepLine(ctx context.Context) {
	var pause pauses
	for ctx.Err() == nil {
		began := a.now()
		err := a.serveLine(ctx)
		if a.now().Sub(began) > longPause || renewal(err) {
			pause = pauses{}
		}
		pause.wait(ctx, hopeless(err))
	}
}

// serveLine opens a stream, serves it, and returns why it ended.
func (a *asker) serveLine(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := a.rpc.IntrospectStream(ctx)
	if err != nil {
		return err
	}
	l := newLine(stream, cancel, a.now)
	a.line.Store(l)
	defer a.line.Store(nil)
	return l.serve(ctx)
}
