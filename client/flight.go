package client

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/flight"
)

// flights are the requests under way, one for each token, audience and address: until the answer arrives, it might be
// good for one address only.
type flights struct {
	ctx     context.Context // ends with the Verifier
	slots   chan struct{}
	running sync.WaitGroup

	mu     sync.Mutex
	group  flight.Group[key, time.Time, reply]
	closed bool
}

// check is one request under way, begun with the time at which it was sent.
type check = flight.Flight[time.Time, reply]

// reply is the outcome of a request.
type reply struct {
	entry    *entry
	outdated bool // known to be from before a change
	once     bool // for the check that asked, and for no other
}

func (f *flights) close() (first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	first, f.closed = !f.closed, true
	return first
}

// join returns the request of a key, or nil.
func (f *flights) join(k key) (*check, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, ErrClosed
	}
	q := f.group.Find(k)
	if q != nil {
		q.Join()
	}
	return q, nil
}

// begin returns the request of a key, a new one if there is none.
func (f *flights) begin(k key, now time.Time) (q *check, mine bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, false, ErrClosed
	}
	if q = f.group.Find(k); q == nil {
		q, mine = f.group.Begin(k, now), true
		f.running.Add(1)
	}
	q.Join()
	return q, mine, nil
}

// slot waits until a request may be sent, for at most timeout.
func (f *flights) slot(ctx context.Context, timeout time.Duration) error {
	select {
	case f.slots <- struct{}{}:
		return nil
	default:
	}
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case f.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-f.ctx.Done():
		return ErrClosed
	case <-t.C:
		return status.Error(codes.Unavailable, "too many requests are waiting for patd")
	}
}

// land delivers the answer to all waiting checks.
func (f *flights) land(k key, q *check, r reply, err error) {
	f.mu.Lock()
	f.group.Land(k, q, r, err)
	f.mu.Unlock()
	f.running.Done()
}

// ask asks the server, or waits for the answer to another check's request. An answer counts if it was requested after
// this check began, or if the cache may use it; otherwise the next one does. So a check never rests on an answer from
// before it, unless the watch confirms it. Checks that wait together share one request.
func (v *Verifier) ask(ctx context.Context, k keys, token string, call Call, began time.Time) (Result, error) {
	again := true
	for {
		q, mine, err := v.board(ctx, k, token, call)
		if err != nil {
			return Result{}, fmt.Errorf("introspect: %w", err)
		}
		if err := q.Wait(ctx); err != nil {
			return Result{}, fmt.Errorf("introspect: %w", status.FromContextError(err).Err())
		}
		r, err := q.Result()
		if err != nil {
			return Result{}, fmt.Errorf("introspect: %w", err)
		}
		now := v.config.Now()
		if r.outdated && again {
			again = false // once: a replica that lags behind would make this a loop
			continue
		}
		if !mine && r.once {
			continue // the server is to be asked about this use: it is the first of a new secret
		}
		if !mine && q.Begun.Before(began) && !v.memory.usable(r.entry, now) {
			continue
		}
		if mine { // the server has counted the use
			return r.entry.result(call.Scopes), nil
		}
		return v.let(r.entry, call, now), nil
	}
}

// board returns the request of a key, a new one if there is none. It waits for a slot.
func (v *Verifier) board(ctx context.Context, k keys, token string, call Call) (q *check, mine bool, err error) {
	if !utf8.ValidString(call.Audience) ||
		slices.ContainsFunc(call.Scopes, func(s string) bool { return !utf8.ValidString(s) }) {
		return nil, false, status.Error(codes.InvalidArgument, "audience and scopes must be UTF-8")
	}
	f := &v.flights
	if q, err = f.join(k.here); q != nil || err != nil {
		return q, false, err
	}
	if err := f.slot(ctx, v.config.Timeout); err != nil {
		return nil, false, err
	}
	if q, mine, err = f.begin(k.here, v.config.Now()); !mine {
		<-f.slots
		return q, false, err
	}
	// The required scopes go along so that the server counts the use if, and only if, the token passes.
	request := &patdv1.IntrospectRequest{
		Token:          token,
		Audience:       call.Audience,
		RequiredScopes: slices.Clone(call.Scopes),
		ClientIp:       address(call.ClientIP),
	}
	go func() {
		defer func() { <-f.slots }()
		r, err := v.fly(k, q.Begun, request)
		f.land(k.here, q, r, err)
	}()
	return q, true, nil
}

// fly sends one request on behalf of all waiting checks, so that it does not end when one of them gives up.
func (v *Verifier) fly(k keys, sent time.Time, request *patdv1.IntrospectRequest) (reply, error) {
	ctx, cancel := context.WithTimeout(v.flights.ctx, v.config.Timeout)
	defer cancel()
	v.asked.Add(1)
	t := v.memory.ticket(sent)
	answer, err := v.asker.ask(ctx, request)
	if err != nil {
		if v.flights.ctx.Err() != nil {
			err = ErrClosed
		}
		return reply{}, err
	}
	e, err := v.read(k, t, answer)
	if err != nil {
		return reply{}, err
	}
	outdated := v.memory.keep(e, t, answer.GetSequence())
	if !outdated {
		v.memory.replaced(k, e)
	}
	return reply{entry: e, outdated: outdated, once: e.token != nil && answer.GetSequence() == 0}, nil
}
