package client

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// entry is one cached answer. All but the atomics is written before it is shared, and never again.
type entry struct {
	key      key
	decision Decision // of a refusal; an active token's is made for each call
	token    *Token   // nil: refused
	// The instants of a refusal, see Result.
	endTime, expireTime time.Time

	until  time.Duration // on the process's monotonic clock: not to be used from then on
	expire time.Time     // the same by the wall clock, for a machine that slept; zero: never

	// The owners that the answer depends on, and a position of the change feed that it is at least as new as; nil for a
	// refusal, which depends on nothing.
	ofToken, ofUser *owner
	sequence        uint64
	slot            int // in a ring of its table, whose lock guards it
	bytes           int // the result of size when it was put there

	recent atomic.Bool // used since the hand of the clock passed
	// used is when the use was last counted, in microseconds: most checks read no more than this.
	used  atomic.Int64
	usage *usage // for the report; nil for a refusal
}

// shared reports whether an answer is good for other checks than the one that asked.
func (e *entry) shared() bool { return e.token == nil || e.ofToken != nil }

// owner is a token or a user with cached answers. One number invalidates all of them from before a change.
type owner struct {
	name    string
	changed atomic.Uint64 // its last position in the change feed
	entries int
	newest  uint64 // the latest position of its answers; guarded by memory.mu
}

// The cost of an entry beside its texts: itself, its Token and its places in the maps and the ring; a string's header
// and rounding; a label's two strings and its share of the map.
const (
	entryBytes  = 768
	stringBytes = 32
	labelBytes  = 96
)

// size estimates from above how many bytes of memory an entry holds.
func (e *entry) size() int {
	n := entryBytes
	t := e.token
	if t == nil {
		return n
	}
	// The texts of the token and the user are held by their owners too.
	n += 2*len(t.ID) + 2*len(t.User) + len(t.Name) + len(t.AccessTokenID) + len(t.ClientID)
	for _, list := range [][]string{t.Scopes, t.Granted, t.Suspended, t.Paused, t.Audiences} {
		for _, text := range list {
			n += stringBytes + len(text)
		}
	}
	for name, value := range t.Labels {
		n += labelBytes + len(name) + len(value)
	}
	return n
}

// void reports whether a change was received since the answer was made.
func (e *entry) void() bool {
	return e.token != nil && (e.sequence < e.ofToken.changed.Load() || e.sequence < e.ofUser.changed.Load())
}

// sound reports whether an entry may still be used, as far as the entry itself shows.
func (e *entry) sound(mono time.Duration, wall time.Time) bool {
	if mono >= e.until || !e.expire.IsZero() && !wall.Before(e.expire) {
		return false
	}
	return !e.void()
}

// result returns the decision for one call.
func (e *entry) result(required []string) Result {
	if e.token == nil {
		return Result{Decision: e.decision, EndTime: e.endTime, ExpireTime: e.expireTime}
	}
	return e.token.decide(required)
}

// address formats an address for the wire; empty: unknown.
func address(ip netip.Addr) string {
	if !ip.IsValid() {
		return ""
	}
	return ip.String()
}
