// Package flight lets many callers share one call: a read of a store, a request to another server. The first caller
// begins a flight, those that come meanwhile join it, and each waits for as long as its own context allows.
//
// A flight knows two marks of time. Begun is what it was begun with, such as a time or a position, by which a caller
// decides whether the result is new enough for it. Stale says that something was invalidated since the flight began:
// its result must not be kept.
//
// Nothing here locks. The lock of the owner guards a Group, its flights, and what the owner keeps of their results,
// because all of these change together. Only Wait, Done and, once Done is closed, Result are called without it.
package flight

import (
	"context"
	"errors"
)

// ErrAbandoned is the result of a flight whose caller did not come back, because it panicked.
var ErrAbandoned = errors.New("the call was abandoned")

// Flight is one call under way, and later its result.
type Flight[M, T any] struct {
	Begun M // what it was begun with

	done   chan struct{} // made by the first that joins
	landed bool
	stale  bool
	value  T
	err    error
}

// New begins a flight that is in no Group.
func New[M, T any](begun M) *Flight[M, T] { return &Flight[M, T]{Begun: begun} }

// landedAlready is the channel of flights without a waiter when they landed.
var landedAlready = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// Join makes the caller one of those that wait. Without it Wait and Done must not be called.
func (f *Flight[M, T]) Join() {
	switch {
	case f.done != nil:
	case f.landed:
		f.done = landedAlready
	default:
		f.done = make(chan struct{})
	}
}

// Done returns a channel that is closed when the flight has landed.
func (f *Flight[M, T]) Done() <-chan struct{} { return f.done }

// Wait waits until the flight has landed. An error is that of ctx, which ended before.
func (f *Flight[M, T]) Wait(ctx context.Context) error {
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Landed reports whether there is a result.
func (f *Flight[M, T]) Landed() bool { return f.landed }

// Result returns what Land was given. It is called after the flight has landed.
func (f *Flight[M, T]) Result() (T, error) { return f.value, f.err }

// Invalidate marks that something on which the result rests may have changed.
func (f *Flight[M, T]) Invalidate() { f.stale = true }

// Stale reports whether something was invalidated since the flight began, so that its result must not be kept.
func (f *Flight[M, T]) Stale() bool { return f.stale }

// Land gives the result to all that wait. Only the first result of a flight counts.
func (f *Flight[M, T]) Land(value T, err error) {
	if f.landed {
		return
	}
	f.landed, f.value, f.err = true, value, err
	if f.done != nil {
		close(f.done)
	}
}

// Group holds the flights that callers may join, by key. The zero value is empty.
type Group[K comparable, M, T any] struct{ flights map[K]*Flight[M, T] }

// Find returns the flight of a key, or nil.
func (g *Group[K, M, T]) Find(key K) *Flight[M, T] { return g.flights[key] }

// Begin begins a flight in the place of an earlier one with the same key, which then is stale: an invalidation would
// not find it any more.
func (g *Group[K, M, T]) Begin(key K, begun M) *Flight[M, T] {
	g.Invalidate(key)
	if g.flights == nil {
		g.flights = map[K]*Flight[M, T]{}
	}
	f := New[M, T](begun)
	g.flights[key] = f
	return f
}

// Land gives the result to all that wait, and ends the flight's place in the group.
func (g *Group[K, M, T]) Land(key K, f *Flight[M, T], value T, err error) {
	if g.flights[key] == f {
		delete(g.flights, key)
	}
	f.Land(value, err)
}

// Abandon lands a flight with ErrAbandoned, unless it has landed. It is for a defer, which a panic does not pass over.
func (g *Group[K, M, T]) Abandon(key K, f *Flight[M, T]) {
	var none T
	g.Land(key, f, none, ErrAbandoned)
}

// Invalidate marks the flight of a key as stale, and keeps callers from joining it. Those that wait for it still get
// its result.
func (g *Group[K, M, T]) Invalidate(key K) {
	if f := g.flights[key]; f != nil {
		f.Invalidate()
		delete(g.flights, key)
	}
}

// InvalidateAll is Invalidate of every key.
func (g *Group[K, M, T]) InvalidateAll() {
	for _, f := range g.flights {
		f.Invalidate()
	}
	clear(g.flights)
}
