package tokens_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"patd/store/storetest"
	"patd/tokens"
)

// telling is a source that announces what it answers, to each service that asks.
type telling struct {
	source

	mu     sync.Mutex
	notify []func(string, []string, time.Time) bool
}

func (s *telling) Announce(notify func(string, []string, time.Time) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notify = append(s.notify, notify)
}

// says announces what the user holds to all services.
func (s *telling) says(at time.Time, user string, features ...string) {
	slices.Sort(features)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.features[user] = features
	for _, n := range s.notify {
		n(user, features, at)
	}
}

// recorded runs RecordFeatureChanges of services until the events are as many, and returns their details, oldest first.
func (h *house) recorded(n int, services ...*tokens.Service) (details []string) {
	h.t.Helper()
	within, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	for _, s := range append(services, h.Service) {
		running.Go(func() { s.RecordFeatureChanges(within, func(err error) { h.t.Errorf("%v", err) }) })
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		details = h.featureEvents()
		if len(details) >= n && h.allCompared() || time.Now().After(deadline) {
			break
		}
		<-time.After(time.Millisecond)
	}
	stop()
	running.Wait()
	return h.featureEvents()
}

func (h *house) allCompared() bool { return h.Service.FeatureAnswersWaiting() == 0 }

func (h *house) featureEvents() (details []string) {
	h.t.Helper()
	events, _, err := h.Events(
		ctx,
		admin,
		tokens.EventFilter{Action: "user.features", Actor: "source"},
		tokens.Page{Size: 200},
	)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range slices.Backward(events) {
		details = append(details, e.User+": "+e.Detail)
	}
	return details
}

// TestAChangeAtAnotherSystemIsAnEventOnce has two services on one store hear of each answer, older ones among them.
func TestAChangeAtAnotherSystemIsAnEventOnce(t *testing.T) {
	t.Parallel()
	src := &telling{source: source{features: map[string][]string{"u1": {"a", "b", "c"}}}}
	var config tokens.Config
	h := newHouse(t, func(c *tokens.Config) { c.Features = src; config = *c })
	other, err := tokens.NewService(config)
	if err != nil {
		t.Fatal(err)
	}
	h.mint("u1", "one", "a", "b")
	h.mint("u1", "two", "b")
	gone := h.mint("u1", "gone", "a")
	if _, err := h.Revoke(ctx, admin, "u1", gone.Token.ID.String(), ""); err != nil {
		t.Fatal(err)
	}
	at := h.now()
	src.says(at, "u1", "a", "b", "c") // as it was
	src.says(at, "nobody", "a")
	if got := h.recorded(0, other); got != nil {
		t.Fatalf("without a change: %q", got)
	}
	step := func(after time.Duration, want string, features ...string) {
		t.Helper()
		h.wait(10 * time.Second)
		n := len(h.featureEvents())
		src.says(at.Add(after), "u1", features...)
		if want == "" {
			if got := h.recorded(n, other); len(got) != n {
				t.Errorf("%v: %q", features, got[n:])
			}
			return
		}
		if got := h.recorded(n+1, other); len(got) != n+1 || got[n] != "u1: "+want {
			t.Errorf("%v: %q, want %s once", features, got[n:], want)
		}
	}
	step(10*time.Second, "-b (2 tokens)", "a", "c")
	step(20*time.Second, "", "a", "c")
	step(30*time.Second, "", "a") // no token has c
	step(40*time.Second, "+b -a (2 tokens)", "b")
	step(25*time.Second, "", "a", "c") // an older answer
	step(50*time.Second, "+a (1 tokens)", "a", "b", "x")
	step(60*time.Second, "-a -b (2 tokens)")
	h.reopen(func(c *tokens.Config) { c.Features = src })
	other = h.Service
	step(70*time.Second, "", nil...)
	step(80*time.Second, "+a +b (2 tokens)", "a", "b")
	if _, err := h.RevokeAll(ctx, admin, "u1", ""); err != nil {
		t.Fatal(err)
	}
	step(90*time.Second, "")
}

// TestEventsOfASourceThatChangesAllTheTimeAreBounded has one say another thing each time.
func TestEventsOfASourceThatChangesAllTheTimeAreBounded(t *testing.T) {
	t.Parallel()
	src := &telling{source: source{features: map[string][]string{"u1": {"a"}}}}
	h := newHouse(t, func(c *tokens.Config) { c.Features = src })
	h.mint("u1", "one", "a")
	at := h.now()
	src.says(at, "u1")
	if got := h.recorded(1); len(got) != 1 {
		t.Fatalf("%q", got)
	}
	within, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { h.RecordFeatureChanges(within, nil) })
	for i := range 200 {
		src.says(at.Add(time.Duration(i)*time.Millisecond), "u1", []string{"a"}[:1-i%2]...)
	}
	stop()
	running.Wait()
	if got := h.featureEvents(); len(got) != 1 {
		t.Errorf("within a moment: %q", got)
	}
	src.says(at.Add(time.Second), "u1", "a")
	h.wait(10 * time.Second)
	if got := h.recorded(2); len(got) != 2 || got[1] != "u1: +a (1 tokens)" {
		t.Errorf("what it said last: %q", got)
	}
	full := 0
	for i := range 10_000 {
		if !src.notify[0](fmt.Sprint("x", i), nil, at) {
			full++
		}
	}
	if full < 5000 {
		t.Errorf("%d of 10000 answers found no room", full)
	}
}

// TestAChangeThatCannotBeRecordedIsTriedAgain has the store fail for a while.
func TestAChangeThatCannotBeRecordedIsTriedAgain(t *testing.T) {
	t.Parallel()
	src := &telling{source: source{features: map[string][]string{"u1": {"a"}}}}
	var faulty *storetest.Faulty
	h := newHouse(t, func(c *tokens.Config) {
		c.Features = src
		faulty = storetest.NewFaulty(c.Store)
		c.Store = faulty
	})
	h.mint("u1", "one", "a")
	within, stop := context.WithCancel(ctx)
	defer stop()
	failed := make(chan error, 100)
	for _, op := range []storetest.Op{storetest.OpView, storetest.OpCommit} {
		faulty.FailOp(op, storetest.Outage())
		run, end := context.WithCancel(within)
		var running sync.WaitGroup
		running.Go(func() { h.RecordFeatureChanges(run, func(err error) { failed <- err }) })
		h.wait(time.Minute)
		src.says(h.now(), "u1")
		if err := <-failed; reason(err) != "STORE_UNAVAILABLE" {
			t.Errorf("%s: %v", op, err)
		}
		end()
		running.Wait()
	}
	faulty.Fail(nil)
	h.wait(time.Minute)
	if got := h.recorded(1); len(got) != 1 || got[0] != "u1: -a (1 tokens)" {
		t.Errorf("%q", got)
	}
}

// TestEventsOfASourceAddUpToWhatIsInEffect replays them: after each answer, the scopes that were lost and not restored
// are those that are suspended.
func TestEventsOfASourceAddUpToWhatIsInEffect(t *testing.T) {
	t.Parallel()
	all := []string{"a", "b", "c"}
	rapid.Check(t, func(rt *rapid.T) {
		src := &telling{source: source{features: map[string][]string{"u1": all}}}
		h := newHouseIn(rt, tempDir(rt), func(c *tokens.Config) { c.Features = src })
		m := h.mint("u1", "one", all...)
		lost := map[string]bool{}
		seen := 0
		for range rapid.IntRange(1, 4).Draw(rt, "answers") {
			h.wait(10 * time.Second)
			held := rapid.SliceOfNDistinct(rapid.SampledFrom(all), 0, 3, rapid.ID).Draw(rt, "held")
			src.says(h.now(), "u1", held...)
			in := h.ask(m.Secret)
			var want []string
			want = append(want, in.Suspended...)
			for _, detail := range h.recorded(seen)[seen:] {
				seen++
				for part := range strings.FieldsSeq(strings.TrimPrefix(detail, "u1: ")) {
					switch part[0] {
					case '+':
						delete(lost, part[1:])
					case '-':
						lost[part[1:]] = true
					}
				}
			}
			var got []string
			for _, name := range all {
				if lost[name] {
					got = append(got, name)
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				rt.Fatalf("held %v:\n%s", held, d)
			}
		}
	})
}
