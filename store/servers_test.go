package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/internal/waittest"
	"patd/store"
	"patd/tokens"
)

// joined opens a store as one of its servers, which follows the change feed.
func joined(t *testing.T, st *store.Store, name string) *store.Membership {
	t.Helper()
	m, err := st.Join(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	st.Feed()
	return m
}

func others(t *testing.T, m *store.Membership) []tokens.StoreServer {
	t.Helper()
	list, err := m.Others(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestServersKnowOneAnotherThroughTheStore has two servers ask and answer each other.
func TestServersKnowOneAnotherThroughTheStore(t *testing.T) {
	t.Parallel()
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		path := newPath(t)
		askAndAnswer(t, func(version string) *store.Store { return open(t, path, store.Options{Version: version}) })
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		longtest.Slow(t)
		t.Parallel()
		url := newSchema(t, dbtest.SharedPostgres(t))
		openAs := func(version string) *store.Store {
			return openURL(t, url, store.Options{Version: version, Connections: 2})
		}
		m := askAndAnswer(t, openAs)
		// A program that is not among them shows by its connections, if it is of another version.
		unknown := func() bool {
			return slices.ContainsFunc(others(t, m), func(s tokens.StoreServer) bool {
				return s.Unknown && s.ID == "patd 0.9-of-this-test"
			})
		}
		if unknown() {
			t.Error("a program of an earlier version is there, and was not started")
		}
		earlier := openAs("0.9-of-this-test")
		earlier.Feed()
		if !unknown() {
			t.Errorf("a program of an earlier version is not seen: %+v", others(t, m))
		}
	})
}

func askAndAnswer(t *testing.T, openAs func(version string) *store.Store) *store.Membership {
	ctx := t.Context()
	a, b := openAs("1-of-this-test"), openAs("2-of-this-test")
	first, second := joined(t, a, "first"), joined(t, b, "second")
	if !a.Feed().Live() || !b.Feed().Live() {
		t.Fatal("a server that has joined does not trust its feed")
	}
	know := func(m *store.Membership) []tokens.StoreServer { // not those of other tests on the same server
		return slices.DeleteFunc(others(t, m), func(s tokens.StoreServer) bool { return s.Unknown })
	}
	list := know(first)
	if len(list) != 1 || list[0].Name != "second" || list[0].Ended || list[0].Asks != 0 {
		t.Fatalf("the first knows %+v", list)
	}
	// The feed may not have looked since the second was there.
	changed := second.Changed()
	number, err := first.Ask(ctx)
	if err != nil {
		t.Fatal(err)
	}
	waittest.Until(t, "the second is asked", func() bool {
		<-changed
		changed = second.Changed()
		list = know(second)
		return len(list) == 1 && list[0].Asks == number
	})
	if list[0].Answered != 0 || list[0].Name != "first" {
		t.Errorf("the second knows %+v", list)
	}
	changed = first.Changed()
	if err := second.Answer(ctx, map[string]uint64{list[0].ID: number}); err != nil {
		t.Fatal(err)
	}
	waittest.Until(t, "the first is answered", func() bool {
		<-changed
		changed = first.Changed()
		list = know(first)
		return len(list) == 1 && list[0].Answers == number
	})
	if list := know(second); list[0].Answered != number {
		t.Errorf("after its answer the second knows %+v", list)
	}
	again, err := first.Ask(ctx)
	if err != nil || again <= number || know(first)[0].Answers != number {
		t.Errorf("another request is %d after %d, %v, and was answered: %+v", again, number, err, know(first))
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if list = know(first); len(list) != 1 || !list[0].Ended || !list[0].Left {
		t.Errorf("after the second has closed its store: %+v", list)
	}
	if err := first.End(ctx, nil, []string{list[0].ID}); err != nil {
		t.Fatal(err)
	}
	if list = know(first); len(list) != 0 {
		t.Errorf("what is forgotten is known: %+v", list)
	}
	return first
}

// TestAServerThatWasCountedAsGoneTrustsNothingUntilItHasJoinedAgain keeps it from joining meanwhile.
func TestAServerThatWasCountedAsGoneTrustsNothingUntilItHasJoinedAgain(t *testing.T) {
	t.Parallel()
	path, c := newPath(t), newClock()
	a := open(t, path, store.Options{Now: c.now, BusyTimeout: 20 * time.Millisecond})
	b := open(t, path, store.Options{})
	first, second := joined(t, a, "first"), joined(t, b, "second")
	if _, err := first.Ask(t.Context()); err != nil {
		t.Fatal(err)
	}
	alive := func(s tokens.StoreServer) bool { return !s.Ended }
	before := others(t, second)
	release := func() {}
	for at := 0; at >= 0; at = slices.IndexFunc(before, alive) { // it may join again before the file is locked
		release()
		if err := second.End(t.Context(), []string{before[at].ID}, nil); err != nil {
			t.Fatal(err)
		}
		release = lockFile(t, path)
		before = others(t, second)
	}
	if err := a.Feed().CatchUp(t.Context(), 0); err == nil {
		t.Error("a reading counts that did not find the server there")
	}
	if _, err := first.Others(t.Context()); err == nil {
		t.Error("a server that is not there knows which answers are to it")
	}
	if _, err := first.Ask(t.Context()); err == nil {
		t.Error("a server that is not there asks others")
	}
	c.move(5 * time.Second)
	if a.Feed().Live() {
		t.Error("memory counts after a reading that does not")
	}
	release()
	waittest.Until(t, "it joins again", a.Feed().Live)
	after := others(t, second)
	again := slices.IndexFunc(after, alive)
	if again < 0 || after[again].Asks != 2 ||
		!slices.Equal(slices.Delete(slices.Clone(after), again, again+1), before) {
		t.Errorf("the other knows %+v, before %+v", after, before)
	}
	if list := others(t, first); len(list) != 1 || list[0].Name != "second" {
		t.Errorf("it counts its own row as another server's: %+v", list)
	}
}

// TestAServerTrustsNothingBeforeItHasJoined starts it where nothing can be written.
func TestAServerTrustsNothingBeforeItHasJoined(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	st := open(t, path, store.Options{BusyTimeout: 20 * time.Millisecond})
	release := lockFile(t, path)
	joined(t, st, "late")
	if _, known := st.Feed().Age(); known || st.Feed().Live() {
		t.Error("a feed counts of a server that others do not know")
	}
	release()
	waittest.Until(t, "it joins", st.Feed().Live)
	if _, err := open(t, path, store.Options{}).Join(t.Context(), "another"); err != nil {
		t.Error(err)
	}
	followed := open(t, path, store.Options{})
	followed.Feed()
	if _, err := followed.Join(t.Context(), "too late"); err == nil {
		t.Error("a server joins after it has read the feed")
	}
}

// TestServersThatAreStartedAgainAndAgainLeaveFewRows has rows of a thousand that were killed.
func TestServersThatAreStartedAgainAndAgainLeaveFewRows(t *testing.T) {
	t.Parallel()
	st := open(t, newPath(t), store.Options{})
	for n := range 1000 {
		gone := "NULL"
		if n < 600 {
			gone = fmt.Sprint(n)
		}
		if err := st.Exec(t.Context(), fmt.Sprintf(`INSERT INTO servers
(id, name, version, begin_us, gone_us, ask, answers, tag) VALUES ('%d', '', '', %d, %s, 0, '', 1)`, n, n, gone)); err != nil {
			t.Fatal(err)
		}
	}
	list := others(t, joined(t, st, "the last"))
	serving := 0
	for _, s := range list {
		if !s.Ended {
			serving++
		}
	}
	if len(list) != 400 || serving != 255 {
		t.Errorf("%d are kept, %d of them not ended", len(list), serving)
	}
}

// TestACopyHasNoServers copies a store that is served.
func TestACopyHasNoServers(t *testing.T) {
	t.Parallel()
	st := open(t, newPath(t), store.Options{})
	joined(t, st, "first")
	path := newPath(t)
	if _, err := st.Copy(t.Context(), "sqlite:"+path, store.Options{}); err != nil {
		t.Fatal(err)
	}
	if list := others(t, joined(t, open(t, path, store.Options{}), "copied")); len(list) != 0 {
		t.Errorf("the copy has %+v", list)
	}
}

// lockFile keeps everybody from writing to a file.
func lockFile(t *testing.T, path string) (release func()) {
	t.Helper()
	db, err := sql.Open("sqlite", strings.TrimPrefix(path, "sqlite:"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	c, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ExecContext(t.Context(), `PRAGMA busy_timeout = 5000`); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ExecContext(t.Context(), `BEGIN IMMEDIATE`); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := c.ExecContext(context.Background(), `ROLLBACK`); err != nil {
			t.Error(err)
		}
		_ = c.Close()
	}
}
