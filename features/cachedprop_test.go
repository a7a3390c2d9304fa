package features_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"patd/features"
	"patd/tokens"
)

// step is one thing that happens to a cache and its source.
type step struct {
	what  string
	user  string
	fresh bool
	lasts time.Duration
}

func drawStep(t *rapid.T) step {
	s := step{
		what: rapid.SampledFrom([]string{"change", "change", "call", "call", "call", "call", "forget", "down", "up", "slow", "quick", "wait", "wait", "settle"}).
			Draw(t, "what"),
		user: rapid.SampledFrom([]string{"alice", "bob"}).Draw(t, "user"),
	}
	s.fresh = s.what == "call" && rapid.IntRange(0, 2).Draw(t, "fresh") == 0
	if s.what == "wait" || s.what == "slow" {
		s.lasts = time.Duration(
			rapid.SampledFrom([]int{1, 200, 999, 1000, 1900, 2500, 9000, 20000, 29000, 30000, 31000, 100000, 270000, 300000}).
				Draw(t, "ms"),
		) * time.Millisecond
	}
	return s
}

// world is what is true, against which answers are held: which version of a user's features ruled until when.
type world struct {
	mu        sync.Mutex
	script    *script
	cache     *features.Cached
	version   map[string]int
	overAt    map[string]time.Time // by user and version: when a later version took its place
	overSeq   map[string]int
	forgotSeq map[string]int // the last Forget that has returned
	forgotAt  map[string]time.Time
	seq       int
	failures  int
	wrong     []string
}

const (
	propTTL     = 30 * time.Second
	propStale   = 5 * time.Minute
	propTimeout = 2 * time.Second
)

func (w *world) change(user string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seq++
	key := user + strconv.Itoa(w.version[user])
	w.overAt[key], w.overSeq[key] = time.Now(), w.seq
	w.version[user]++
	n := w.version[user]
	w.script.set(func() { w.script.says[user] = []string{user + strconv.Itoa(n)} })
}

func (w *world) forget(user string) {
	w.cache.Forget(user)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seq++
	w.forgotSeq[user], w.forgotAt[user] = w.seq, time.Now()
}

// call asks, and holds the answer against what was true.
func (w *world) call(s step) {
	w.mu.Lock()
	w.seq++
	began, forgot, start := w.seq, w.forgotSeq[s.user], time.Now()
	w.mu.Unlock()
	held, err := w.cache.Features(context.Background(), tokens.User{ID: s.user}, s.fresh)
	w.mu.Lock()
	defer w.mu.Unlock()
	fail := func(format string, args ...any) {
		w.wrong = append(w.wrong, fmt.Sprintf("%+v answered %v, %v: ", s, held, err)+fmt.Sprintf(format, args...))
	}
	if at := w.forgotAt[s.user]; at.After(start) {
		start = at // who was waiting begins anew
	}
	if d := time.Since(start); d > 2*propTimeout {
		fail("it took %v", d)
	}
	if err != nil {
		var e *tokens.Error
		if !errors.As(err, &e) || e.Code != tokens.CodeUnavailable || len(held.Features) > 0 {
			fail("not an outage")
		}
		w.failures++
		return
	}
	if len(held.Features) != 1 || !strings.HasPrefix(held.Features[0], s.user) {
		fail("another user's answer")
		return
	}
	overAt, over := w.overAt[held.Features[0]], w.overSeq[held.Features[0]]
	if over == 0 {
		return // what is true now is never wrong
	}
	age := time.Since(overAt)
	switch {
	case s.fresh && (held.Stale || over < began):
		fail("fresh, and not true any more when the call began")
	case over < forgot:
		fail("from before the Forget that had returned")
	case held.Stale && age > propStale:
		fail("stale, and not true any more for %v", age)
	case !held.Stale && age > propTTL+propTimeout:
		fail("not marked as stale, and not true any more for %v", age)
	}
}

func (w *world) run(steps []step) {
	var calls sync.WaitGroup
	for _, s := range steps {
		switch s.what {
		case "change":
			w.change(s.user)
		case "call":
			calls.Go(func() { w.call(s) })
			synctest.Wait()
		case "forget":
			w.forget(s.user)
		case "down":
			w.script.set(func() { w.script.err = errDown })
		case "up":
			w.script.set(func() { w.script.err = nil })
		case "slow":
			w.script.set(func() { w.script.takes = s.lasts })
		case "quick":
			w.script.set(func() { w.script.takes = 0 })
		case "wait":
			pass(s.lasts)
		case "settle":
			calls.Wait()
		}
	}
	calls.Wait()
}

// TestCachedAnswersAreNeverOlderThanPromised holds the promises of Cached over any interleaving of changes, outages,
// slow answers, the clock, Forget and fresh calls.
func TestCachedAnswersAreNeverOlderThanPromised(t *testing.T) {
	answers, outages := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(drawStep), 1, 60).Draw(rt, "steps")
		var wrong []string
		synctest.Test(t, func(t *testing.T) {
			s := newScript()
			c, err := features.NewCached(
				s,
				features.CacheConfig{TTL: propTTL, MaxStale: propStale, Timeout: propTimeout, Now: time.Now},
			)
			if err != nil {
				t.Fatal(err)
			}
			w := &world{
				script: s, cache: c, version: map[string]int{}, overAt: map[string]time.Time{},
				overSeq: map[string]int{}, forgotSeq: map[string]int{}, forgotAt: map[string]time.Time{},
			}
			w.change("alice")
			w.change("bob")
			w.run(steps)
			c.Close()
			if _, _, queues := c.Kept(); queues != 0 {
				w.wrong = append(w.wrong, fmt.Sprintf("%d queues are left", queues))
			}
			wrong = w.wrong
			outages += w.failures
			answers += len(steps)
		})
		if len(wrong) > 0 {
			rt.Fatal(strings.Join(wrong, "\n"))
		}
	})
	if outages == 0 || answers == 0 {
		t.Error("nothing was tried")
	}
}
