package client

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// entry is one remembered answer. All but the atomics is written before it is shared, and never again.
type entry struct {
	key      key
	decision Decision // of a refusal; an active token's is made for each call
	token    *Token   // nil: refused
	ip       string   // where it was presented from, for the report of its use

	until  time.Duration // on the process's monotonic clock: not to be used from then on
	expire time.Time     // the same by the wall clock, for a machine that slept; zero: never

	// What the answer hangs on, and which position of the change feed it is at least as new as; nil for a refusal, which
	// hangs on nothing.
	ofToken, ofUser *owner
	sequence        uint64
	slot            int // in a ring of its table

	recent atomic.Bool  // used since the hand of the clock passed
	used   atomic.Int64 // when it last let a call pass, in microseconds
	queued atomic.Bool  // waits to be reported
}

// owner is a token or a user with answers in memory. One number voids all that are from before a change, however many.
type owner struct {
	name    string
	changed atomic.Uint64 // where the change feed last told of it
	entries int
}

// void tells whether something was told of since the answer was made.
func (e *entry) void() bool {
	return e.token != nil && (e.sequence < e.ofToken.changed.Load() || e.sequence < e.ofUser.changed.Load())
}

// sound tells whether an entry may still be used, as far as itself can tell.
func (e *entry) sound(mono time.Duration, wall time.Time) bool {
	if mono >= e.until || !e.expire.IsZero() && !wall.Before(e.expire) {
		return false
	}
	return !e.void()
}

// result decides for one call.
func (e *entry) result(required []string) Result {
	if e.token == nil {
		return Result{Decision: e.decision}
	}
	return e.token.decide(required)
}

// address writes an address for the wire; empty: unknown.
func address(ip netip.Addr) string {
	if !ip.IsValid() {
		return ""
	}
	return ip.String()
}
