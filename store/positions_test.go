package store_test

import (
	"errors"
	"slices"
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

// What a move by logical replication leaves: rows, and sequences that begin anew.
var sequencesLost = []string{
	`ALTER SEQUENCE events_seq_seq RESTART WITH 1`, `ALTER SEQUENCE changes_seq_seq RESTART WITH 1`,
	`ALTER SEQUENCE users_key_seq RESTART WITH 1`, `ALTER SEQUENCE keys_num_seq RESTART WITH 1`,
}

// TestARevocationIsSeenByAllServersAfterAMove takes the sequences back, as a move of the database does, and revokes on
// one server.
func TestARevocationIsSeenByAllServersAfterAMove(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	url := newSchema(t, dbtest.SharedPostgres(t))
	one := openURL(t, url, store.Options{Connections: 2})
	two := openURL(t, url, store.Options{Connections: 2})
	id := fill(t, one, 5)[0]
	for range 20 {
		put(t, one, "acme")
	}
	cached := cache.New(two, cache.Options{})
	waittest.Until(t, "the feed is read", func() bool { return cached.Ready(t.Context()) == nil })
	revoked := func() bool { return lookup(t, cached, id).Token.Revocation != nil }
	if revoked() { // and now it is in memory
		t.Fatal("revoked before")
	}
	for _, statement := range sequencesLost {
		exec1(t, one, statement)
	}
	before := count(t, one, "users")
	err := one.Update(t.Context(), func(tx tokens.Tx) ([]tokens.Event, error) {
		now := time.Now()
		tok, err := tx.Token(id)
		if err != nil {
			return nil, err
		}
		tok.Revocation = &tokens.Revocation{Time: now, By: "operator"}
		_, userErr := tx.InsertUser(tokens.User{ID: "new", CreateTime: now})
		return []tokens.Event{
				{
					Time:    now,
					Actor:   "operator",
					Action:  tokens.ActionTokenRevoke,
					Outcome: tokens.OutcomeSuccess,
					TokenID: id,
					User:    tok.User,
				},
			},
			errors.Join(
				tx.UpdateToken(tok),
				userErr,
				tx.PutKey(tokens.KeyRecord{Name: "k-new", Check: [32]byte{9}, CreateTime: now}),
			)
	})
	if err != nil {
		t.Fatalf("a change after the move: %v", err)
	}
	waittest.Until(t, "the revocation on another server", revoked)
	if got := count(t, one, "users"); got == before {
		t.Error("the new user is not there")
	}
	if stats := cached.Stats(); !stats.Following || stats.Distrusted != 0 {
		t.Errorf("%+v, want the feed to be trusted: it has missed nothing", stats)
	}
	// The version before numbers by the sequences, which were taken along.
	found, err := one.Check(t.Context())
	if err != nil || len(found) != 0 {
		t.Errorf("check: %v, %v; want nothing to be left to mend", found, err)
	}
}

// TestAPositionIsGivenWithoutRightsToTheSequence holds that a role which can only write the tables goes on as before.
func TestAPositionIsGivenWithoutRightsToTheSequence(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	server := dbtest.SharedPostgres(t)
	owner := openURL(t, newSchema(t, server), store.Options{Connections: 2})
	schema, err := owner.Texts(t.Context(), 0, `SELECT current_schema()`)
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		`CREATE ROLE writes LOGIN PASSWORD 'only-for-this-test'`, `GRANT USAGE ON SCHEMA ` + schema[0] + ` TO writes`,
		`GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ` + schema[0] + ` TO writes`,
	} {
		exec1(t, owner, statement)
	}
	url := "postgres://writes:only-for-this-test@" + server.Addr() + "/" + server.Database + "?sslmode=disable&search_path=" + schema[0]
	st := openURL(t, url, store.Options{Connections: 2})
	put(t, st, "one")
	put(t, st, "two")
	if got := count(t, owner, "changes WHERE seq <= 2"); got != "2" {
		t.Errorf("%s entries at 1 and 2, want 2", got)
	}
}

// TestAChangeWithoutAnEntryFails has the database take the change and drop its entry.
func TestAChangeWithoutAnEntryFails(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	st := openURL(t, newSchema(t, dbtest.SharedPostgres(t)), store.Options{Connections: 2})
	exec1(t, st, `CREATE FUNCTION drops() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`)
	exec1(t, st, `CREATE TRIGGER drops BEFORE INSERT ON changes FOR EACH ROW EXECUTE FUNCTION drops()`)
	if err := tryPut(t.Context(), st, "acme"); reason(err) != "STORE_UNAVAILABLE" {
		t.Errorf("a change whose entry is dropped: %v, want it to fail", err)
	}
	if got := prefixes(t, st); len(got) != 0 {
		t.Errorf("prefixes %v", got)
	}
}

// TestRepairedPositionsAreAboveAllRows has what check finds be mended by the command that it names, while a server
// runs.
func TestRepairedPositionsAreAboveAllRows(t *testing.T) {
	t.Parallel()
	t.Run("PostgreSQL", func(t *testing.T) {
		longtest.Only(t)
		st := openURL(t, newSchema(t, dbtest.SharedPostgres(t)), store.Options{Connections: 2})
		repairs(t, st, append(slices.Clone(sequencesLost), `ALTER SEQUENCE patd_schema_version_id_seq RESTART WITH 1`))
	})
	t.Run("SQLite", func(t *testing.T) {
		repairs(
			t,
			open(t, newPath(t), store.Options{}),
			[]string{`UPDATE sqlite_sequence SET seq = 1 WHERE name IN ('events', 'changes')`},
		)
	})
}

func repairs(t *testing.T, st *store.Store, breaks []string) {
	t.Helper()
	fill(t, st, 20)
	put(t, st, "acme")
	feed := st.Feed()
	if err := feed.CatchUp(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	at, err := feed.Newest()
	if err != nil {
		t.Fatal(err)
	}
	if mended, err := st.RepairPositions(t.Context()); err != nil || len(mended) != 0 {
		t.Errorf("a sound store: %q, %v; want nothing to be mended", mended, err)
	}
	for _, statement := range breaks {
		exec1(t, st, statement)
	}
	found, err := st.Check(t.Context())
	if err != nil || len(found) == 0 {
		t.Fatalf("check: %v, %v; want problems", found, err)
	}
	for _, problem := range found {
		if !strings.Contains(problem, store.RepairPositions) {
			t.Errorf("%q does not name the command that mends it", problem)
		}
	}
	mended, err := st.RepairPositions(t.Context())
	if err != nil || len(mended) != len(found)+1 {
		t.Errorf("mended %q, %v; want %d lines", mended, err, len(found)+1)
	}
	if found, err = st.Check(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("check after the repair: %v, %v", found, err)
	}
	waittest.Until(t, "watchers start over", func() bool {
		page, err := feed.After(at, 10)
		return err == nil && page.Lost
	})
}

const insertEventAlone = `INSERT INTO events (time_us, actor, action, outcome, token_id) VALUES (1, 'operator', 'token.revoke', ?, ?)`

// TestAFeedThatMissesChangesIsNotTrusted changes the store as one does that gives positions below the newest: with an
// audit event, and no entry where others look for it.
func TestAFeedThatMissesChangesIsNotTrusted(t *testing.T) {
	t.Parallel()
	c := newClock()
	r := newCachedRig(t, store.Options{Now: c.now})
	waittest.Until(t, "the feed is read", func() bool { return r.Ready(t.Context()) == nil })
	r.WantActive(t, "before", true)
	feed := r.st.Feed()
	at, err := feed.Newest()
	if err != nil {
		t.Fatal(err)
	}
	exec1(t, r.other, insertEventAlone, 2, int64(r.Token.ID)) // one that was refused has no entry
	for range 3 {
		if err := feed.Compare(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if s := r.Stats(); !s.Following {
		t.Fatalf("not followed after a refused attempt: %v", s.Trouble)
	}
	exec1(t, r.other, `UPDATE tokens SET revoke_us = 1, revoked_by = 'x'`)
	exec1(t, r.other, insertEventAlone, 1, int64(r.Token.ID))
	waittest.Until(t, "the change is missed", func() bool { return !r.Stats().Following })
	r.WantActive(t, "the store is asked", false)
	if err := r.Ready(t.Context()); reason(err) != "STORE_UNAVAILABLE" {
		t.Errorf("ready: %v", err)
	}
	if _, err := feed.After(at, 10); reason(err) != "STORE_UNAVAILABLE" {
		t.Errorf("after: %v", err)
	}
	if s := r.Stats(); s.Distrusted != 1 || s.Trouble == nil {
		t.Errorf("distrusted %d times, trouble %v", s.Distrusted, s.Trouble)
	}
	if found, err := r.st.Check(
		t.Context(),
	); err != nil ||
		!strings.Contains(strings.Join(found, "\n"), "at the end of the change feed") {
		t.Errorf("check: %v, %v", found, err)
	}
	c.move(time.Minute)
	waittest.Until(t, "the feed is trusted again", func() bool { return r.Stats().Following })
	r.WantActive(t, "after that", false)
	if page, err := feed.After(at, 10); err != nil || !page.Lost {
		t.Errorf("a position from before: %+v, %v; want it to be lost, for a change was missed", page, err)
	}
}

// TestAServerThatCanChangeNothingIsNotReady has every change fail while the store can be read.
func TestAServerThatCanChangeNothingIsNotReady(t *testing.T) {
	longtest.Only(t)
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		st := open(t, newPath(t), store.Options{})
		changesFail(t, st, func(t *testing.T, fail bool) {
			if fail {
				exec1(t, st, `CREATE TRIGGER refuses BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'no'); END`)
			} else {
				exec1(t, st, `DROP TRIGGER refuses`)
			}
		})
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		st := openURL(t, newSchema(t, dbtest.SharedPostgres(t)), store.Options{Connections: 2})
		changesFail(t, st, func(t *testing.T, fail bool) {
			times := 0
			if fail {
				times = 1_000_000
			}
			atCommit(t, st, times, `RAISE EXCEPTION 'no'`)
		})
	})
}

func changesFail(t *testing.T, st *store.Store, set func(t *testing.T, fail bool)) {
	t.Helper()
	cached := cache.New(st, cache.Options{})
	waittest.Until(t, "ready at first", func() bool { return cached.Ready(t.Context()) == nil })
	set(t, true)
	if err := tryPut(t.Context(), cached, "acme"); reason(err) != "STORE_UNAVAILABLE" {
		t.Fatalf("a change: %v, want an outage", err)
	}
	waittest.Until(
		t,
		"it is not ready",
		func() bool { return reason(cached.Ready(t.Context())) == "STORE_UNAVAILABLE" },
	)
	set(t, false)
	waittest.Until(
		t,
		"the probe finds that changes can be made",
		func() bool { return cached.Ready(t.Context()) == nil },
	)
	if got := count(t, st, "events"); got != "0" {
		t.Errorf("%s events after the probes, want none", got)
	}
	set(t, true)
	if err := tryPut(t.Context(), cached, "acme"); err == nil {
		t.Fatal("a change was made")
	}
	waittest.Until(t, "it is not ready", func() bool { return cached.Ready(t.Context()) != nil })
	set(t, false)
	put(t, cached, "acme")
	if err := cached.Ready(t.Context()); err != nil {
		t.Errorf("after a change that was made: %v", err)
	}
}

// TestChangesThatFailInARowAreNoticed has what every change writes be in order, and yet none be made.
func TestChangesThatFailInARowAreNoticed(t *testing.T) {
	t.Parallel()
	c := newClock()
	st := open(t, newPath(t), store.Options{Now: c.now})
	exec1(t, st, `CREATE TRIGGER refuses BEFORE INSERT ON prefixes BEGIN SELECT RAISE(ABORT, 'no'); END`)
	for range 5 {
		if err := st.ChangesFail(); err != nil {
			t.Fatal(err)
		}
		if err := tryPut(t.Context(), st, "acme"); err == nil {
			t.Fatal("a change was made")
		}
	}
	if err := st.ChangesFail(); err == nil {
		t.Error("five changes failed, and none was made: want it to be noticed")
	}
	c.move(time.Minute)
	if err := st.ChangesFail(); err != nil {
		t.Errorf("a minute after: %v", err)
	}
}
