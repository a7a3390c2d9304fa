package store_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"patd/internal/waittest"
	"patd/store"
	"patd/tokens"
)

// gate lets looks at the change feed pass, fail or wait.
type gate struct {
	fails atomic.Bool
	hangs atomic.Pointer[chan struct{}] // until it is closed
}

var errGate = errors.New("injected: the feed cannot be read")

func (g *gate) options() store.Options {
	return store.Options{}.BeforeFeed(func(ctx context.Context) error {
		if g.fails.Load() {
			return errGate
		}
		if wait := g.hangs.Load(); wait != nil {
			<-*wait
		}
		return nil
	})
}

func TestAnotherProcessIsHeardOf(t *testing.T) {
	t.Parallel()
	r := newCachedRig(t, store.Options{})
	r.WantActive(t, "before", true)
	r.Suspend(t, r.other)
	waittest.Until(t, "a change by another process", func() bool {
		active, err := r.Active(t.Context())
		return err == nil && !active
	})
	if got, want := lookup(t, r, r.Token.ID).Sequence, r.other.Sequence(); got < want {
		t.Errorf("answers tell position %d, want that of the change, %d", got, want)
	}
}

// TestASilentFeedIsNoGroundToAnswerOn takes the feed's connection away, by failure and by a hang: after the bound no
// answer comes from memory, and after the end of it none is from before.
func TestASilentFeedIsNoGroundToAnswerOn(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"failing", "hanging"} {
		t.Run(how, func(t *testing.T) {
			var g gate
			c := newClock()
			o := g.options()
			o.Now = c.now
			r := newCachedRig(t, o)
			r.WantActive(t, "before", true)
			waittest.Until(t, "the feed is read", func() bool { return r.Ready(t.Context()) == nil })
			hang := make(chan struct{})
			if how == "failing" {
				g.fails.Store(true)
			} else {
				g.hangs.Store(&hang)
			}
			r.Revoke(t, r.other)
			c.move(6 * time.Second)
			// A look that had begun before may yet end well, once.
			waittest.Until(t, "the silence is noticed", func() bool {
				c.move(6 * time.Second)
				return !r.Stats().Following
			})
			r.WantActive(t, "nothing is received from the store", false)
			if r.ServiceMark(c.now()) != 0 {
				t.Error("the cache claims to know that no service has changed")
			}
			if err := r.Ready(t.Context()); reason(err) != "STORE_UNAVAILABLE" {
				t.Errorf("ready: %v", err)
			}
			if _, err := r.st.Feed().Newest(); reason(err) != "STORE_UNAVAILABLE" {
				t.Errorf("newest: %v", err)
			}
			if _, err := r.st.Feed().After(tokens.WatchPosition{}, 1); reason(err) != "STORE_UNAVAILABLE" {
				t.Errorf("after: %v", err)
			}
			put(t, r, "acme") // a change is answered all the same
			g.fails.Store(false)
			g.hangs.Store(nil)
			close(hang)
			waittest.Until(t, "the feed is read again", func() bool { return r.Stats().Following })
			bypassed := r.Stats().Bypassed
			r.WantActive(t, "after that", false)
			if r.Stats().Bypassed != bypassed {
				t.Error("the memory is not trusted again")
			}
		})
	}
}

// TestAnotherHistoryEmptiesTheCache changes the table behind the feed's back.
func TestAnotherHistoryEmptiesTheCache(t *testing.T) {
	t.Parallel()
	for name, statements := range map[string][]string{
		"the newest entry is another":  {`UPDATE changes SET time_us = time_us + 1`},
		"the newest entry is gone":     {`DELETE FROM changes`},
		"there are newer ones, a gap":  {`UPDATE changes SET seq = seq + 1000`},
		"the positions have gone back": {`DELETE FROM changes`, `INSERT INTO changes (seq, time_us) VALUES (1, 5)`},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClock()
			r := newCachedRig(t, store.Options{Now: c.now})
			put(t, r, "acme") // so that the first position is not the newest
			feed := r.st.Feed()
			at, err := feed.Newest()
			if err != nil {
				t.Fatal(err)
			}
			r.WantActive(t, "before", true)
			exec1(t, r.other, `UPDATE tokens SET revoke_us = 1, revoked_by = 'x'`) // without an entry
			r.WantActive(t, "nobody was told", true)
			for _, s := range statements {
				exec1(t, r.other, s)
			}
			waittest.Until(t, "the cache is emptied", func() bool {
				active, err := r.Active(t.Context())
				return err == nil && !active
			})
			// The cache is notified first, watchers a moment later. Positions that went back are not trusted for a
			// while.
			waittest.Until(t, "a position of the former history is lost", func() bool {
				page, err := feed.After(at, 10)
				if reason(err) == "STORE_UNAVAILABLE" && r.Stats().Distrusted > 0 {
					c.move(time.Minute)
					return false
				}
				if err != nil || len(page.Changes) != 0 {
					t.Fatalf("after a position of the former history: %+v, %v", page, err)
				}
				return page.Lost
			})
		})
	}
}

func TestAWatcherResumesAfterARestart(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	st, err := store.Open(t.Context(), "sqlite:"+path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, st, 3)
	at, err := st.Feed().Newest()
	if err != nil {
		t.Fatal(err)
	}
	put(t, st, "acme")
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	feed := open(t, path, store.Options{}).Feed()
	page, err := feed.After(at, 10)
	if err != nil || page.Lost || len(page.Changes) != 1 {
		t.Errorf("%+v, %v", page, err)
	}
	if again, err := feed.After(
		page.At,
		10,
	); err != nil || again.Lost || again.At != page.At ||
		len(again.Changes) != 0 {
		t.Errorf("at the end: %+v, %v", again, err)
	}
}

func TestNewsWakeWhoWaits(t *testing.T) {
	t.Parallel()
	st := open(t, newPath(t), store.Options{})
	feed := st.Feed()
	for i := range 20 {
		news := feed.News()
		at, err := feed.Newest()
		if err != nil {
			t.Fatal(err)
		}
		put(t, st, "acme")
		select {
		case <-news:
		case <-time.After(time.Minute):
			t.Fatalf("change %d: no news", i)
		}
		page, err := feed.After(at, 10)
		if err != nil || len(page.Changes) == 0 {
			t.Fatalf("change %d: %+v, %v", i, page, err)
		}
	}
}
