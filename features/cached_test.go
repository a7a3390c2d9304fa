package features_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"patd/features"
	"patd/tokens"
)

func TestCachedForTheTTL(t *testing.T) {
	t.Parallel()
	bubble(t, features.CacheConfig{}, func(r rig) {
		r.say("a")
		r.want(false, false, "a")
		r.say("b")
		pass(30*time.Second - 1)
		r.want(false, false, "a")
		pass(1)
		r.want(false, false, "b")
		if n := r.count("alice"); n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestTTLCountsFromTheQuestion(t *testing.T) {
	t.Parallel()
	bubble(t, features.CacheConfig{}, func(r rig) {
		r.say("a")
		r.slow(4 * time.Second)
		r.want(false, false, "a")
		r.say("b")
		pass(26 * time.Second)
		r.want(false, false, "b")
	})
}

func TestHoldingNothingIsCachedToo(t *testing.T) {
	t.Parallel()
	bubble(t, features.CacheConfig{}, func(r rig) {
		r.want(false, false)
		r.want(false, false)
		if n := r.count("alice"); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestWithoutTTLEachCallAsks(t *testing.T) {
	t.Parallel()
	bubble(t, features.CacheConfig{TTL: -1, MaxStale: -1}, func(r rig) {
		r.say("a")
		r.want(false, false, "a")
		r.say("b")
		r.want(false, false, "b")
		r.fail(errDown)
		r.wantOutage(false)
	})
}

func TestOutageServesLastKnownNoLongerThanMaxStale(t *testing.T) {
	bubble(t, features.CacheConfig{}, func(r rig) {
		r.say("a")
		r.want(false, false, "a")
		r.fail(errDown)
		r.say("b")
		start := time.Now()
		pass(30 * time.Second)
		for time.Since(start) <= 5*time.Minute {
			r.want(false, true, "a")
			pass(100 * time.Millisecond)
		}
		// Some 270 s of outage at 10 calls a second: one attempt a second.
		if n := r.count("alice"); n < 200 || n > 272 {
			t.Errorf("asked %d times during the outage", n)
		}
		for range 3 {
			r.wantOutage(false)
		}
		r.fail(nil)
		r.want(false, false, "b")
	})
}

func TestOutageAtFirstIsAnError(t *testing.T) {
	t.Parallel()
	bubble(t, features.CacheConfig{}, func(r rig) {
		for _, err := range []error{errDown, context.DeadlineExceeded, tokens.FeaturesUnavailable("x", errDown), tokens.Fail(tokens.CodeNotFound, "NOT_FOUND", "x")} {
			r.fail(err)
			r.wantOutage(false)
			r.wantOutage(true)
		}
		r.fail(nil)
		r.say("a")
		r.want(false, false, "a")
	})
}

func TestFreshIsNeverFromMemory(t *testing.T) {
	t.Parallel()
	bubble(t, features.CacheConfig{}, func(r rig) {
		r.say("a")
		r.want(false, false, "a")
		r.say("b")
		r.want(true, false, "b")
		r.want(false, false, "b") // and it has filled the cache
		r.fail(errDown)
		r.wantOutage(true)
		r.want(false, false, "b") // still within the TTL
		pass(time.Minute)
		r.wantOutage(true)
		r.want(false, true, "b")
		r.wantOutage(true)
	})
}

func TestOneQuestionPerUserAtATime(t *testing.T) {
	t.Parallel()
	bubble(t, features.CacheConfig{}, func(r rig) {
		r.say("a")
		r.slow(time.Second)
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() { r.want(false, false, "a") })
		}
		wg.Wait()
		if n := r.count("alice"); n != 1 {
			t.Errorf("64 calls asked %d times", n)
		}
		for range 64 {
			wg.Go(func() { r.want(true, false, "a") })
		}
		wg.Wait()
		if n := r.count("alice"); n > 3 || r.most > 1 {
			t.Errorf("64 fresh calls asked %d times, %d at a time", n-1, r.most)
		}
	})
}

func TestWhoGivesUpDoesNotEndItForOthers(t *testing.T) {
	bubble(t, features.CacheConfig{}, func(r rig) {
		r.say("a")
		r.slow(2 * time.Second)
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := r.c.Features(ctx, tokens.User{ID: "alice"}, false); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("who gave up hears %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() { r.want(false, false, "a") })
		wg.Wait()
		if n := r.count("alice"); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestFreshDoesNotJoinAnOlderQuestion(t *testing.T) {
	bubble(t, features.CacheConfig{}, func(r rig) {
		r.say("old")
		r.slow(time.Second)
		var wg sync.WaitGroup
		wg.Go(func() { r.want(false, false, "old") })
		synctest.Wait()
		r.say("new")
		for range 8 {
			wg.Go(func() { r.want(true, false, "new") })
		}
		wg.Wait()
		if n := r.count("alice"); n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestAfterForgetNoAnswerIsFromBefore(t *testing.T) {
	t.Parallel()
	for name, forget := range map[string]func(*features.Cached){
		"Forget":    func(c *features.Cached) { c.Forget("alice") },
		"ForgetAll": (*features.Cached).ForgetAll,
	} {
		t.Run(name, func(t *testing.T) { testForget(t, forget) })
	}
}

func testForget(t *testing.T, forget func(*features.Cached)) {
	t.Helper()
	bubble(t, features.CacheConfig{}, func(r rig) {
		r.say("old")
		r.want(false, false, "old")
		r.say("new")
		forget(r.c)
		r.want(false, false, "new")

		// With questions under way: who waits for them hears what is true after, and nothing of before is kept.
		forget(r.c)
		r.say("old")
		r.slow(time.Second)
		var wg sync.WaitGroup
		for _, fresh := range []bool{false, true, false} {
			wg.Go(func() { r.want(fresh, false, "new") })
			synctest.Wait()
		}
		pass(time.Second / 2)
		r.say("new")
		forget(r.c)
		r.want(false, false, "new")
		wg.Wait()
		pass(2 * time.Second)
		r.want(false, false, "new")

		// During an outage there is nothing left to serve.
		r.fail(errDown)
		forget(r.c)
		r.wantOutage(false)
		r.c.Forget("nobody")
	})
}

func TestHangingSourceHoldsUpOnlyTheFirst(t *testing.T) {
	bubble(t, features.CacheConfig{Timeout: 2 * time.Second}, func(r rig) {
		r.say("a")
		r.want(false, false, "a")
		pass(30 * time.Second)
		r.slow(time.Hour)
		start := time.Now()
		r.want(false, true, "a")
		if d := time.Since(start); d != 2*time.Second {
			t.Errorf("the first waited %v", d)
		}
		for start = time.Now(); time.Since(start) < time.Minute; pass(time.Second / 4) {
			before := time.Now()
			r.want(false, true, "a")
			if d := time.Since(before); d > 0 {
				t.Fatalf("a later one waited %v", d)
			}
		}
	})
}

func TestMaxStaleHoldsWhenTheAnswerComesLate(t *testing.T) {
	t.Parallel()
	bubble(t, features.CacheConfig{Timeout: 2 * time.Second}, func(r rig) {
		r.say("a")
		r.want(false, false, "a")
		r.slow(time.Hour)
		pass(5*time.Minute - 3*time.Second)
		r.want(false, true, "a")
		pass(4 * time.Second)
		r.wantOutage(false)

		r.slow(0)
		r.want(false, false, "a")
		r.slow(time.Hour)
		pass(5*time.Minute - time.Second)
		r.wantOutage(false) // it was young enough when the question was put, not when it failed
	})
}

func TestNothingStaleOnceTheOutageIsLongOver(t *testing.T) {
	t.Parallel()
	bubble(t, features.CacheConfig{Timeout: 2 * time.Second}, func(r rig) {
		r.say("old")
		r.want(false, false, "old")
		pass(30 * time.Second)
		r.fail(errDown)
		r.want(false, true, "old")
		r.fail(nil)
		r.say("new")
		pass(4 * time.Second)
		r.want(false, false, "new")
	})
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]features.CacheConfig{
		"by number": {MaxUsers: 10},
		"by size":   {MaxBytes: 10 * 400},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, config, func(r rig) {
				held := func(i int) {
					t.Helper()
					if _, err := r.c.Features(
						r.t.Context(),
						tokens.User{ID: fmt.Sprint("user-", i)},
						false,
					); err != nil {
						t.Fatal(err)
					}
				}
				r.set(func() {
					for i := range 1000 {
						r.says[fmt.Sprint("user-", i)] = []string{strings.Repeat("x", 100)}
					}
				})
				for i := range 1000 {
					held(i)
					held(0) // the one that is used stays
				}
				if n := r.count("user-0"); n != 1 {
					t.Errorf("the one in use was dropped %d times", n-1)
				}
				users, size, queues := r.c.Kept()
				if users < 9 || users > 11 || size > 4000 || queues != 0 {
					t.Errorf("%d users, %d bytes, %d queues are kept", users, size, queues)
				}
				for i := range 1000 {
					r.c.Forget(fmt.Sprint("user-", i))
				}
				if users, size, _ := r.c.Kept(); users != 0 || size != 0 {
					t.Errorf("after all was forgotten %d users, %d bytes are kept", users, size)
				}
			})
		})
	}
}

func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	bubble(t, features.CacheConfig{}, func(r rig) {
		r.slow(time.Hour)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { r.wantOutage(true) })
			synctest.Wait()
		}
		start := time.Now()
		if err := r.c.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if d := time.Since(start); d > 0 {
			t.Errorf("closing took %v", d)
		}
		r.wantOutage(false)
	})
}

func TestClockSetBackMakesNothingYounger(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	s := newScript()
	c, err := features.NewCached(s, features.CacheConfig{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.says["alice"] = []string{"old"}
	asked(t, c, "alice", "old")
	s.set(func() { s.says["alice"] = []string{"new"} })
	now = now.Add(-time.Hour)
	held, err := c.Features(t.Context(), tokens.User{ID: "alice"}, false)
	if err != nil || !slices.Equal(held.Features, []string{"new"}) {
		t.Errorf("got %v, %v", held, err)
	}
}

func TestLogHearsOfAnOutageOnce(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	bubble(t, features.CacheConfig{Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(r rig) {
		r.say("marker")
		r.want(false, false, "marker")
		pass(30 * time.Second)
		r.fail(errDown)
		for range 100 {
			r.want(false, true, "marker")
			pass(time.Second)
		}
		r.fail(nil)
		pass(10 * time.Second)
		r.want(false, false, "marker")
	})
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || strings.Count(log.String(), "level=INFO") != 1 {
		t.Errorf("the log:\n%s", log.String())
	}
	if strings.Contains(log.String(), "marker") || strings.Contains(log.String(), "alice") {
		t.Errorf("the log tells who holds what:\n%s", log.String())
	}
}

func TestCacheConfigIsChecked(t *testing.T) {
	t.Parallel()
	good := features.CacheConfig{Now: time.Now}
	for name, change := range map[string]func(c *features.CacheConfig){
		"no clock":             func(c *features.CacheConfig) { c.Now = nil },
		"stale before the TTL": func(c *features.CacheConfig) { c.MaxStale = time.Second },
		"no time to answer":    func(c *features.CacheConfig) { c.Timeout = -1 },
	} {
		c := good
		change(&c)
		if _, err := features.NewCached(newScript(), c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := features.NewCached(nil, good); err == nil {
		t.Error("no source: accepted")
	}
	if _, err := features.Open(t.Context(), features.Config{Kind: "table", Cache: good}); err == nil {
		t.Error("Open of an unknown kind: accepted")
	}
}

func BenchmarkCachedHit(b *testing.B) {
	s := newScript()
	s.says["alice"] = []string{"a", "b", "c", "d"}
	c, err := features.NewCached(s, features.CacheConfig{TTL: time.Hour, MaxStale: time.Hour, Now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := c.Features(b.Context(), tokens.User{ID: "alice"}, false); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// TestAnAnswerIsAnnouncedWhenItDiffersFromTheOneBefore, and again until it is taken.
func TestAnAnswerIsAnnouncedWhenItDiffersFromTheOneBefore(t *testing.T) {
	t.Parallel()
	h := newHeld("a")
	now := &stepClock{at: time.Unix(1e9, 0)}
	c, err := features.NewCached(h, features.CacheConfig{TTL: time.Minute, Now: now.now})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var got []string
	taken := true
	c.Announce(func(user string, held []string, _ time.Time) bool {
		got = append(got, user+" "+strings.Join(held, ","))
		return taken
	})
	ask := func(want ...string) {
		t.Helper()
		got = nil
		if _, err := c.Features(t.Context(), tokens.User{ID: "u"}, true); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("announced %q, want %q", got, want)
		}
	}
	ask("u a")
	ask()
	h.set("a", "b")
	taken = false
	ask("u a,b")
	taken = true
	ask("u a,b")
	ask()
	c.Forget("u")
	ask("u a,b")
}

// stepClock is a clock that the test moves.
type stepClock struct{ at time.Time }

func (c *stepClock) now() time.Time { return c.at }

// heldSource says what it is told to.
type heldSource struct {
	mu    sync.Mutex
	names []string
}

func newHeld(names ...string) *heldSource { return &heldSource{names: names} }

func (h *heldSource) set(names ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.names = names
}

func (h *heldSource) Features(context.Context, tokens.User, bool) (tokens.Held, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return tokens.Held{Features: h.names}, nil
}

func (*heldSource) Local() bool { return false }
