package features_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"patd/features"
	"patd/tokens"
)

// script is a source that a test tells what to say.
type script struct {
	mu      sync.Mutex
	says    map[string][]string
	err     error
	takes   time.Duration // an answer is as of its question, and comes so much later
	asked   map[string]int
	running int
	most    int // questions under way at a time
}

func newScript() *script { return &script{says: map[string][]string{}, asked: map[string]int{}} }

func (s *script) Features(ctx context.Context, u tokens.User, _ bool) (tokens.Held, error) {
	s.mu.Lock()
	says, err, takes := s.says[u.ID], s.err, s.takes
	s.asked[u.ID]++
	s.running++
	s.most = max(s.most, s.running)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.running--
	}()
	if takes > 0 {
		wait := time.NewTimer(takes)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-ctx.Done():
			return tokens.Held{}, ctx.Err()
		}
	}
	return tokens.Held{Features: says}, err
}

func (*script) Local() bool { return false }

func (s *script) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *script) count(user string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[user]
}

// rig is a cache over a script, on the clock of a synctest bubble.
type rig struct {
	*script
	c *features.Cached
	t *testing.T
}

// bubble runs a test on a clock of its own.
func bubble(t *testing.T, config features.CacheConfig, f func(r rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newScript()
		config.Now = time.Now
		c, err := features.NewCached(s, config)
		if err != nil {
			t.Fatal(err)
		}
		f(rig{s, c, t})
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

func (r rig) ask(fresh bool) (tokens.Held, error) {
	return r.c.Features(r.t.Context(), tokens.User{ID: "alice"}, fresh)
}

func (r rig) want(fresh, stale bool, names ...string) {
	r.t.Helper()
	held, err := r.ask(fresh)
	if err != nil || held.Stale != stale || !slices.Equal(held.Features, names) {
		r.t.Fatalf("got %v, %v; want %v, stale %v", held, err, names, stale)
	}
}

func (r rig) wantOutage(fresh bool) {
	r.t.Helper()
	held, err := r.ask(fresh)
	isOutage(r.t, held, err)
}

func (r rig) say(names ...string)  { r.set(func() { r.says["alice"] = names }) }
func (r rig) fail(err error)       { r.set(func() { r.err = err }) }
func (r rig) slow(d time.Duration) { r.set(func() { r.takes = d }) }

// pass lets the bubble's clock go on.
func pass(d time.Duration) { <-time.After(d) }

var errDown = errors.New("down")
