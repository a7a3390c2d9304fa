package store_test

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/internal/waittest"
	"patd/store"
	"patd/store/cache"
	"patd/tokens"
)

// TestPruningShortensTheAuditLogAndNothingElse deletes all events that there are, in both databases: what stays is
// sound, and positions go on above those that were given.
func TestPruningShortensTheAuditLogAndNothingElse(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			url := "sqlite:" + newPath(t)
			if engine == "postgres" {
				url = newSchema(t, dbtest.SharedPostgres(t))
			}
			st := openURL(t, url, store.Options{FlushInterval: time.Hour, NoSync: true})
			ids := fill(t, st, 30)
			everyKindOfRow(t, st, ids)
			for range 2500 - 30 {
				put(t, st, "acme")
			}
			other := openURL(t, url, store.Options{FlushInterval: time.Hour})
			cached := cache.New(other, cache.Options{})
			waittest.Until(t, "the feed is read", func() bool { return cached.Ready(t.Context()) == nil })
			lookup(t, cached, ids[3])
			newest, rows := maxEvent(t, st), count(t, st, "events")

			now := time.Now().Add(time.Hour)
			var archived []tokens.Event
			kept := false
			p := tokens.Pruning{Before: now.Add(-time.Minute), Archive: func(events []tokens.Event) error {
				archived, kept = append(archived, events...), len(events) == 0
				return nil
			}}
			n, err := tokens.PruneEvents(t.Context(), st, p, now)
			if err != nil || strconv.FormatInt(n, 10) != rows || len(archived) != int(n) || !kept {
				t.Fatalf("%d released of %s, %d archived, %v, %v", n, rows, len(archived), kept, err)
			}
			if deleted, err := st.DeleteReleased(t.Context(), 0); deleted != n || err != nil {
				t.Errorf("%d deleted, want %d, %v", deleted, n, err)
			}
			if !slices.IsSortedFunc(archived, func(a, b tokens.Event) int { return int(a.Seq) - int(b.Seq) }) ||
				archived[len(archived)-1].Seq != uint64(newest) {
				t.Error("the archive is not all events in their order")
			}
			if left := count(t, st, "events"); left != "1" {
				t.Errorf("%s events are left, want the one of the pruning", left)
			}
			if at := maxEvent(t, st); at <= newest {
				t.Errorf("the event of the pruning is at %d, not above %d", at, newest)
			}
			if found, err := st.Check(t.Context()); err != nil || len(found) != 0 {
				t.Errorf("check: %v, %v", found, err)
			}
			if again, err := tokens.PruneEvents(t.Context(), st, p, now); err != nil || again > 1 {
				t.Errorf("a second pruning: %d, %v", again, err)
			}
			before := maxEvent(t, st)
			put(t, st, "later")
			if at := maxEvent(t, st); at <= before {
				t.Errorf("the next event is at %d, not above %d", at, before)
			}
			if s := cached.Stats(); !s.Following || s.Distrusted != 0 {
				t.Errorf("another server's feed: %+v", s)
			}
			for _, statement := range []string{
				`DELETE FROM events WHERE seq > (SELECT seq FROM released)`, `UPDATE events SET actor = 'somebody else'`,
				`UPDATE released SET seq = seq - 1`, `UPDATE released SET before_us = before_us - 1`, `DELETE FROM released`,
			} {
				if err := st.Exec(t.Context(), statement); err == nil {
					t.Errorf("%s was done", statement)
				}
			}
			if found, err := st.Check(t.Context()); err != nil || len(found) != 0 {
				t.Errorf("check: %v, %v", found, err)
			}
			// What is done later must have its event, as ever.
			later := strconv.FormatInt(now.Add(time.Hour).UnixMicro(), 10)
			exec1(t, st, `INSERT INTO services (id, name, permissions, key, digest, issue_us, expire_us)
SELECT 77, 'forged', permissions, key, digest, `+later+`, expire_us FROM services WHERE id = 9`)
			if found, err := st.Check(
				t.Context(),
			); err != nil || len(found) != 1 ||
				!strings.Contains(found[0], "has no audit event") {
				t.Errorf("check of a forged service: %v, %v", found, err)
			}
		})
	}
}

var errNoRoom = errors.New("no room")

func maxEvent(t *testing.T, st *store.Store) int64 {
	t.Helper()
	at, err := st.Texts(t.Context(), 0, `SELECT max(seq) FROM events`)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(at[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestPositionsStayAboveThePrunedOnesWhereverTheStoreIsCopied prunes, and copies the store to PostgreSQL and back.
func TestPositionsStayAboveThePrunedOnesWhereverTheStoreIsCopied(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	st := open(t, newPath(t), store.Options{})
	fill(t, st, 5)
	now := time.Now().Add(time.Hour)
	if _, err := tokens.PruneEvents(t.Context(), st, tokens.Pruning{Before: now.Add(-time.Minute)}, now); err != nil {
		t.Fatal(err)
	}
	// Half of the work is left to whoever has the store next.
	newest := maxEvent(t, st)
	url := emptyDatabase(dbtest.SharedPostgres(t))
	copyInto(t, st, url, "into PostgreSQL")
	remote := openURL(t, url, store.Options{FlushInterval: 10 * time.Millisecond})
	waittest.Until(t, "the deletion of what is released", func() bool { return count(t, remote, "events") == "1" })
	put(t, remote, "acme")
	if at := maxEvent(t, remote); at <= newest {
		t.Errorf("the next event is at %d, not above %d", at, newest)
	}
	path := newPath(t)
	copyInto(t, remote, "sqlite:"+path, "back")
	back := open(t, path, store.Options{})
	newest = maxEvent(t, back)
	put(t, back, "acme")
	if at := maxEvent(t, back); at <= newest {
		t.Errorf("the next event is at %d, not above %d", at, newest)
	}
	for _, one := range []*store.Store{remote, back} {
		if found, err := one.Check(t.Context()); err != nil || len(found) != 0 {
			t.Errorf("check: %v, %v", found, err)
		}
	}
}

// TestPruningEndsAtTheFirstYoungEvent: times need not grow with positions, and nothing is passed over.
func TestPruningEndsAtTheFirstYoungEvent(t *testing.T) {
	t.Parallel()
	st := open(t, newPath(t), store.Options{})
	now := time.Now().UTC()
	event := func(at time.Time) {
		t.Helper()
		err := st.Update(t.Context(), func(tokens.Tx) ([]tokens.Event, error) {
			return []tokens.Event{{Time: at, Actor: "a", Action: "b", Outcome: tokens.OutcomeRefused}}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, days := range []int{-9, -8, -1, -7, -6} {
		event(now.AddDate(0, 0, days))
	}
	p := tokens.Pruning{Before: now.AddDate(0, 0, -3)}
	if n, err := tokens.PruneEvents(t.Context(), st, p, now); n != 2 || err != nil {
		t.Errorf("%d released, want the two before the young one; %v", n, err)
	}
	if n, err := tokens.PruneEvents(t.Context(), st, p, now); n != 0 || err != nil {
		t.Errorf("%d released by the second, %v", n, err)
	}
	if due, err := tokens.PruneDue(t.Context(), st, p.Before); due || err != nil {
		t.Errorf("due: %v, %v", due, err)
	}
	if _, err := tokens.PruneEvents(t.Context(), st, tokens.Pruning{Before: now}, now); err == nil {
		t.Error("events of this moment were released")
	}
	// An archive that cannot be kept leaves all as it is.
	full := tokens.Pruning{Before: now.Add(-time.Hour), Archive: func(events []tokens.Event) error {
		if len(events) == 0 {
			return errNoRoom
		}
		return nil
	}}
	if n, err := tokens.PruneEvents(t.Context(), st, full, now); n != 0 || err == nil {
		t.Errorf("with a full archive: %d, %v", n, err)
	}
	if got := count(t, st, "events"); got != "6" {
		t.Errorf("%s events, want 6", got)
	}
}

// TestPruningKeepsWhatAWebhookHasYetToGet holds that the audit log is not shortened past the position of an enabled
// webhook.
func TestPruningKeepsWhatAWebhookHasYetToGet(t *testing.T) {
	t.Parallel()
	st := openNew(t)
	put(t, st, "acme")
	put(t, st, "acme")
	now := time.Now().Add(time.Hour)
	w := tokens.Webhook{
		Num:        1,
		ID:         "w",
		URL:        "https://hooks.example.com",
		Enabled:    true,
		CreateTime: now,
		UpdateTime: now,
		Cursor:     1,
		Secret:     tokens.SealedSecret{Key: "k1", Box: []byte("box")},
	}
	change := func(f func(tokens.Tx) error) {
		t.Helper()
		err := st.Update(t.Context(), func(tx tokens.Tx) ([]tokens.Event, error) {
			return []tokens.Event{{Time: now, Actor: "a", Action: "b", Outcome: tokens.OutcomeRefused}}, f(tx)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	change(func(tx tokens.Tx) error {
		return errors.Join(tx.PutKey(tokens.KeyRecord{Name: "k1", CreateTime: now}), tx.InsertWebhook(w))
	})
	p := tokens.Pruning{Before: now.Add(-time.Minute)}
	if n, err := tokens.PruneEvents(t.Context(), st, p, now); n != 1 || err != nil {
		t.Errorf("%d released, want the one before the webhook's position; %v", n, err)
	}
	if due, err := tokens.PruneDue(t.Context(), st, p.Before); due || err != nil {
		t.Errorf("due: %v, %v", due, err)
	}
	w.Enabled = false
	change(func(tx tokens.Tx) error { return tx.UpdateWebhook(w) })
	if n, err := tokens.PruneEvents(t.Context(), st, p, now); n == 0 || err != nil {
		t.Errorf("%d released once the webhook was disabled; %v", n, err)
	}
}
