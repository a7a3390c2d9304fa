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
)

// flights are the questions under way, one for each token, audience and address: before the answer is there, it might be
// good for one address only.
type flights struct {
	ctx     context.Context // ends with the Verifier
	slots   chan struct{}
	running sync.WaitGroup

	mu     sync.Mutex
	byKey  map[key]*flight
	closed bool
}

// flight is one question under way.
type flight struct {
	sent time.Time
	done chan struct{} // closed once the rest is written

	entry    *entry
	outdated bool // known to be from before a change
	err      error
}

func (f *flights) close() (first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	first, f.closed = !f.closed, true
	return first
}

// join answers the flight of a key, or nil.
func (f *flights) join(k key) (*flight, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, ErrClosed
	}
	return f.byKey[k], nil
}

// begin makes a flight, unless there is one.
func (f *flights) begin(k key, now time.Time) (fl *flight, mine bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, false, ErrClosed
	}
	if fl := f.byKey[k]; fl != nil {
		return fl, false, nil
	}
	fl = &flight{sent: now, done: make(chan struct{})}
	f.byKey[k] = fl
	f.running.Add(1)
	return fl, true, nil
}

// slot waits until a question may be asked, as long as a question may take.
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
		return status.Error(codes.Unavailable, "too many questions are waiting for patd")
	}
}

// land tells those who wait.
func (f *flights) land(k key, fl *flight) {
	f.mu.Lock()
	delete(f.byKey, k)
	f.mu.Unlock()
	close(fl.done)
	f.running.Done()
}

// ask asks the server, or waits for the answer to a question that somebody else has asked. An answer counts if it was
// asked for after this check began, or if memory may be used for it; otherwise the next one does. So a check never rests
// on an answer from before it, unless the watch vouches for that; and those that wait together ask together.
func (v *Verifier) ask(ctx context.Context, k keys, token string, call Call, began time.Time) (Result, error) {
	again := true
	for {
		fl, mine, err := v.board(ctx, k, token, call)
		if err != nil {
			return Result{}, fmt.Errorf("introspect: %w", err)
		}
		select {
		case <-fl.done:
		case <-ctx.Done():
			return Result{}, fmt.Errorf("introspect: %w", status.FromContextError(ctx.Err()).Err())
		}
		if fl.err != nil {
			return Result{}, fmt.Errorf("introspect: %w", fl.err)
		}
		now := v.config.Now()
		if fl.outdated && again {
			again = false // once: a replica that lags behind would make this a loop
			continue
		}
		if !mine && fl.sent.Before(began) && !v.memory.usable(fl.entry, now) {
			continue
		}
		if mine { // the server has counted the use
			return fl.entry.result(call.Scopes), nil
		}
		return v.let(fl.entry, call, now), nil
	}
}

// board answers the flight of a key, a new one if there is none. It waits for a slot.
func (v *Verifier) board(ctx context.Context, k keys, token string, call Call) (fl *flight, mine bool, err error) {
	if !utf8.ValidString(call.Audience) || slices.ContainsFunc(call.Scopes, func(s string) bool { return !utf8.ValidString(s) }) {
		return nil, false, status.Error(codes.InvalidArgument, "audience and scopes must be UTF-8")
	}
	f := &v.flights
	if fl, err = f.join(k.here); fl != nil || err != nil {
		return fl, false, err
	}
	if err := f.slot(ctx, v.config.Timeout); err != nil {
		return nil, false, err
	}
	if fl, mine, err = f.begin(k.here, v.config.Now()); !mine {
		<-f.slots
		return fl, false, err
	}
	// The required scopes go along so that the server counts the use if, and only if, the token passes.
	request := &patdv1.IntrospectRequest{
		Token: token, Audience: call.Audience, RequiredScopes: slices.Clone(call.Scopes), ClientIp: address(call.ClientIP),
	}
	go func() {
		defer func() { <-f.slots }()
		defer f.land(k.here, fl)
		fl.entry, fl.outdated, fl.err = v.fly(k, fl.sent, request)
	}()
	return fl, true, nil
}

// fly asks one question on behalf of all who wait, so that it does not end when one of them goes away.
func (v *Verifier) fly(k keys, sent time.Time, request *patdv1.IntrospectRequest) (*entry, bool, error) {
	ctx, cancel := context.WithTimeout(v.flights.ctx, v.config.Timeout)
	defer cancel()
	v.asked.Add(1)
	t := v.memory.ticket(sent)
	answer, err := v.asker.ask(ctx, request)
	if err != nil {
		if v.flights.ctx.Err() != nil {
			err = ErrClosed
		}
		return nil, false, err
	}
	e, err := v.read(k, t, answer)
	if err != nil {
		return nil, false, err
	}
	return e, v.memory.keep(e, t, answer.GetSequence()), nil
}
