package tokens

import (
	"context"
	"sync"
	"time"
)

// RefreshUser drops the cached features of a user: once it has returned, no result rests on older data of the source.
func (s *Service) RefreshUser(ctx context.Context, a Actor, user string) error {
	if err := s.manager(a); err != nil {
		return s.refused(ctx, a, Refusal{Action: ActionUserRefresh, User: user}, err)
	}
	var c checker
	if c.user(user); c.err() != nil {
		return c.err()
	}
	if f, ok := s.features.(Forgetter); ok {
		f.Forget(user)
	}
	// The event's entry in the change feed invalidates the caches of other servers and clients. This server's cache
	// entries are already newer than the refresh, so they stay when it receives the entry.
	withdraw := s.refreshes.expectOwn(user, s.features)
	err := s.ledger.do(ctx, a, func(_ Tx, now time.Time) ([]Event, error) {
		e := a.event(now, ActionUserRefresh)
		e.User = user
		return []Event{e}, nil
	})
	if err != nil {
		withdraw()
	}
	return err
}

// refreshes counts, by user, the change feed entries that this server expects of its own. Its cache of features has
// what they tell of.
type refreshes struct {
	mu       sync.Mutex
	follows  bool
	expected map[string]int
}

// follow records that the feed is followed from now on: entries written later will be received.
func (r *refreshes) follow() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.follows, r.expected = true, map[string]int{}
}

// expect counts an entry that is about to be written. It reports whether it will be received.
func (r *refreshes) expect(user string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.follows {
		r.expected[user]++
	}
	return r.follows
}

// expectOwn is expect, where features come from a cache. Call withdraw if no entry was written, or if that is unknown.
// If another server's was taken for it, the user's features are dropped.
func (r *refreshes) expectOwn(user string, features FeatureSource) (withdraw func()) {
	f, ok := features.(Forgetter)
	if !ok || !r.expect(user) {
		return func() {}
	}
	return func() {
		if !r.meets(user) {
			f.Forget(user)
		}
	}
}

// meets reports whether an entry about a user is an expected one. If another server writes about the same user at that
// time, its entry may be taken for ours; ours, which follows, is then taken for the other's.
func (r *refreshes) meets(user string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.expected[user]
	switch {
	case n == 0:
		return false
	case n == 1:
		delete(r.expected, user)
	default:
		r.expected[user] = n - 1
	}
	return true
}

// lost drops all expectations after entries were skipped.
func (r *refreshes) lost() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.expected)
}
