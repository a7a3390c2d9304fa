package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/store"
	"patd/tokens"
)

// TestPostgresFaults has one server for the tests of what PostgreSQL may do to a store, for to start one takes seconds.
func TestPostgresFaults(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	server := dbtest.Postgres(t)
	for name, test := range map[string]func(*testing.T, *dbtest.Server){
		"AChangeInTheWayOfAnotherIsTriedOnceMore":       conflictIsTriedOnceMore,
		"AConstraintAtTheCommitIsItsOwnChangesFailure":  commitConstraint,
		"ACommitThatIsCutOffHappensOnceOrNot":           commitCutOff,
		"ATransactionThatFailedUnseenIsNotAnswered":     failedUnseen,
		"AFaultInAGroupOfMintsIsOnlyTheFailureOfItsOwn": groupFaults,
		"AGroupThatCannotReadIsAnOutageForEach":         failedReads,
		"NoEntryOfTheFeedIsSkippedByOverlappingWriters": overlappingWriters,
		"AChangeAnnouncesItselfToOtherProcesses":        announcement,
		"WhatIsLimitedIsCountedTogether":                sharedRates,
		"CheckFindsWhatIsWrong":                         checkFinds,
		"ADatabaseWithoutASchemaIsRefused":              noSchema,
		"AWrongPasswordIsToldWithoutIt":                 wrongPassword,
		"AStoreThatCannotBeWrittenIsLeft":               readOnly,
		"AKilledServerIsFoundAgain":                     killedServer, // the server restarts
		"AFrozenServerIsAnOutageInTime":                 frozenServer,
	} {
		t.Run(name, func(t *testing.T) { test(t, server) })
	}
}

// atCommit has the server run some PL/pgSQL in the commit of whatever writes to the audit log, the first few times.
func atCommit(t *testing.T, st *store.Store, times int, what string) {
	t.Helper()
	for _, statement := range []string{
		`CREATE SEQUENCE IF NOT EXISTS attempts`, `ALTER SEQUENCE attempts RESTART`, // not undone by a rollback
		fmt.Sprintf(`CREATE OR REPLACE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN IF nextval('attempts') <= %d THEN %s; END IF; RETURN NULL; END $$`, times, what),
		`DROP TRIGGER IF EXISTS at_commit ON events`,
		`CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit()`,
	} {
		exec1(t, st, statement)
	}
}

func conflictIsTriedOnceMore(t *testing.T, server *dbtest.Server) {
	st := openURL(t, newSchema(t, server), store.Options{Connections: 2})
	for _, state := range []string{"40001", "40P01"} {
		raise := `RAISE EXCEPTION 'in the way' USING ERRCODE = '` + state + `'`
		atCommit(t, st, 1, raise)
		if err := tryPut(t.Context(), st, "once"+strings.ToLower(state)); err != nil {
			t.Errorf("%s, once: %v", state, err)
		}
		atCommit(t, st, 1_000_000, raise)
		if err := tryPut(t.Context(), st, "always"+strings.ToLower(state)); reason(err) != "STORE_UNAVAILABLE" {
			t.Errorf("%s, again and again: %v, want an outage", state, err)
		}
		if got, err := st.Texts(t.Context(), 0, `SELECT last_value FROM attempts`); err != nil || got[0] != "2" {
			t.Errorf("%s, again and again: %v attempts, %v; want 2", state, got, err)
		}
	}
	if got := prefixes(t, st); !slices.Equal(got, []string{"once40001", "once40p01"}) {
		t.Errorf("prefixes %v", got)
	}
}

func commitConstraint(t *testing.T, server *dbtest.Server) {
	st := openURL(t, newSchema(t, server), store.Options{Connections: 2})
	exec1(t, st, `ALTER TABLE requests ADD FOREIGN KEY (token_id) REFERENCES tokens (id) DEFERRABLE INITIALLY DEFERRED`)
	var g errgroup.Group
	for i := range 40 {
		g.Go(func() error {
			err := st.Update(t.Context(), func(tx tokens.Tx) ([]tokens.Event, error) {
				e := tokens.Event{
					Time:    time.Now(),
					Actor:   "operator",
					Action:  tokens.ActionPrefixAdd,
					Outcome: tokens.OutcomeSuccess,
				}
				if i%4 == 0 { // the token that it names is not there, which the commit finds out
					return []tokens.Event{
							e,
						}, tx.PutRequest(
							tokens.Request{
								Key:        tokens.RequestKey{byte(i)},
								TokenID:    77,
								ExpireTime: time.Now().Add(time.Hour),
							},
							time.Now(),
						)
				}
				return []tokens.Event{e}, tx.PutPrefix(fmt.Sprintf("p%02d", i))
			})
			if (i%4 == 0) != (reason(err) == "STORE_UNAVAILABLE") {
				return fmt.Errorf("change %d: %w", i, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if n := len(prefixes(t, st)); n != 30 {
		t.Errorf("%d changes were kept, want 30", n)
	}
}

func commitCutOff(t *testing.T, server *dbtest.Server) {
	st := openURL(t, newSchema(t, server), store.Options{Connections: 2})
	atCommit(t, st, 1, `PERFORM pg_terminate_backend(pg_backend_pid())`)
	if err := tryPut(t.Context(), st, "once"); err != nil {
		t.Errorf("cut off once: %v, want it to be done the second time", err)
	}
	atCommit(t, st, 1_000_000, `PERFORM pg_terminate_backend(pg_backend_pid())`)
	if err := tryPut(t.Context(), st, "always"); reason(err) != "STORE_UNAVAILABLE" {
		t.Errorf("cut off each time: %v, want an outage that says that nothing happened", err)
	}
	atCommit(t, st, 0, `NULL`)
	if got := prefixes(t, st); !slices.Equal(got, []string{"once"}) {
		t.Errorf("prefixes %v", got)
	}
	if got := count(t, st, "events"); got != "1" {
		t.Errorf("%s events, want 1", got)
	}
}

// failedUnseen ends a transaction behind the store's back, as a bug would: PostgreSQL answers its commit all the same.
func failedUnseen(t *testing.T, server *dbtest.Server) {
	st := openURL(t, newSchema(t, server), store.Options{Connections: 2})
	err := st.Spoiled(t.Context())
	if reason(err) != "STORE_UNAVAILABLE" {
		t.Errorf("got %v, want an outage", err)
	}
	if got := prefixes(t, st); len(got) != 0 {
		t.Errorf("prefixes %v", got)
	}
}

// overlappingWriters has 200 writers of four processes' stores commit long after they took their position, and one who
// follows.
func overlappingWriters(t *testing.T, server *dbtest.Server) {
	url := newSchema(t, server)
	follower := openURL(t, url, store.Options{Connections: 2})
	atCommit(t, follower, 1_000_000, `PERFORM pg_sleep(random() * 0.004)`)
	feed := follower.Feed()
	at, err := feed.Newest()
	if err != nil {
		t.Fatal(err)
	}
	var writers, done sync.WaitGroup
	for s := range 4 {
		st := openURL(t, url, store.Options{Connections: 2, BusyTimeout: time.Minute})
		for w := range 50 {
			writers.Go(func() {
				for i := range 3 {
					if err := tryPut(t.Context(), st, fmt.Sprintf("w%d-%d-%d", s, w, i)); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	over := make(chan struct{})
	done.Go(func() { writers.Wait(); close(over) })
	var heard []string
	for last := false; ; {
		news := feed.News()
		page, err := feed.After(at, 1000)
		if err != nil || page.Lost {
			t.Fatalf("the feed: %v, lost %t", err, page.Lost)
		}
		for _, c := range page.Changes {
			heard = append(heard, fmt.Sprint(c.Seq))
		}
		if at = page.At; len(page.Changes) > 0 {
			continue
		}
		if last {
			break
		}
		select {
		case <-news:
		case <-over:
			last = true
			if err := feed.CatchUp(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	done.Wait()
	want, err := follower.Texts(t.Context(), 0, `SELECT seq FROM changes ORDER BY seq`)
	if err != nil || len(want) != 600 {
		t.Fatalf("%d entries, %v; want 600", len(want), err)
	}
	if !slices.Equal(heard, want) {
		t.Errorf("who followed heard %d of %d entries, or in another order", len(heard), len(want))
	}
}

func announcement(t *testing.T, server *dbtest.Server) {
	st := openURL(t, newSchema(t, server), store.Options{Connections: 2})
	wait, stop := store.Listener(t.Context(), server.PostgresURL(server.Password))
	defer stop()
	put(t, st, "told")
	if err := wait(); err != nil {
		t.Error(err)
	}
}

// sharedRates has three processes' stores take of one burst at the same time.
func sharedRates(t *testing.T, server *dbtest.Server) {
	url := newSchema(t, server)
	var g errgroup.Group
	var taken, refused atomic.Int64
	for range 3 {
		st := openURL(t, url, store.Options{})
		for range 8 {
			g.Go(func() error {
				for range 10 {
					ok, after, err := st.Spend(t.Context(), "minting user:alice", 0.01, 50)
					switch {
					case err != nil:
						return err
					case ok:
						taken.Add(1)
					case after <= 0 || after > 100*time.Second:
						return fmt.Errorf("there is one again in %s, want within 100 s", after)
					default:
						refused.Add(1)
					}
				}
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if taken.Load() != 50 || refused.Load() != 190 {
		t.Errorf("%d taken and %d refused, want 50 and 190", taken.Load(), refused.Load())
	}
	st := openURL(t, url, store.Options{})
	if ok, _, err := st.Spend(t.Context(), "minting user:bob", 1000, 1); !ok || err != nil {
		t.Errorf("another's first: %t, %v", ok, err)
	}
	if err := st.Prune(t.Context()); err != nil {
		t.Error(err)
	}
	if got := count(t, st, "rates WHERE name = 'minting user:alice'"); got != "1" {
		t.Errorf("%s rows of what still counts after pruning, want 1", got)
	}
}

func checkFinds(t *testing.T, server *dbtest.Server) {
	st := openURL(t, newSchema(t, server), store.Options{Connections: 2})
	fill(t, st, 20)
	if found, err := st.Check(t.Context()); err != nil || len(found) != 0 {
		t.Fatalf("a sound store: %v, %v", found, err)
	}
	for _, c := range []struct{ breaks, mends, want string }{
		{`ALTER TABLE events DISABLE TRIGGER events_no_delete`, `ALTER TABLE events ENABLE TRIGGER events_no_delete`, "trigger events_no_delete is missing"},
		{`ALTER SEQUENCE changes_seq_seq RESTART WITH 1`, `SELECT setval('changes_seq_seq', 1000)`, "of the change feed would be given twice; `patd check --repair-positions` mends it"},
		{`ALTER SEQUENCE users_key_seq RESTART WITH 1`, `SELECT setval('users_key_seq', 1000)`, "of the users would be given twice"},
		{`ALTER SEQUENCE keys_num_seq RESTART WITH 1`, `SELECT setval('keys_num_seq', 1000)`, "of the digest keys would be given twice"},
		{`ALTER SEQUENCE patd_schema_version_id_seq RESTART WITH 1`, `SELECT setval('patd_schema_version_id_seq', 1000)`,
			"of the schema's versions would be given twice"},
		{`INSERT INTO changes (time_us, token_id) VALUES (1, 7)`, `DELETE FROM changes WHERE token_id = 7`, "is not at the end of the change feed"},
		{`UPDATE tokens SET rotations = 3 WHERE id = (SELECT min(id) FROM tokens)`, `UPDATE tokens SET rotations = 0`, "rotated secrets"},
	} {
		exec1(t, st, c.breaks)
		found, err := st.Check(t.Context())
		if err != nil || len(found) != 1 || !strings.Contains(found[0], c.want) {
			t.Errorf("%s: %v, %v; want %q", c.breaks, found, err, c.want)
		}
		exec1(t, st, c.mends)
	}
}

func noSchema(t *testing.T, server *dbtest.Server) {
	_, err := store.Open(t.Context(), server.PostgresURL(server.Password)+"&search_path=nothing", store.Options{})
	if !errors.Is(err, store.ErrSchema) || !strings.Contains(err.Error(), "patd migrate") {
		t.Errorf("no schema: %v, want the command to be named", err)
	}
	url := newSchema(t, server)
	st := openURL(t, url, store.Options{Connections: 2})
	exec1(t, st, `DELETE FROM patd_schema_version WHERE version_id >= 3`)
	if _, err = store.Open(
		t.Context(),
		url,
		store.Options{},
	); !errors.Is(err, store.ErrSchema) ||
		!strings.Contains(err.Error(), "patd migrate") {
		t.Errorf("a schema that is behind: %v, want the command to be named", err)
	}
	exec1(t, st, `INSERT INTO patd_schema_version (version_id, is_applied) VALUES (9999, true)`)
	exec1(t, st, `UPDATE compatibility SET oldest = 9999`)
	if _, err = store.Open(
		t.Context(),
		url,
		store.Options{},
	); !errors.Is(err, store.ErrSchema) ||
		!strings.Contains(err.Error(), "newer patd") {
		t.Errorf("a schema that does not suffer this program: %v, want a refusal", err)
	}
	exec1(t, st, `UPDATE compatibility SET oldest = 4`)
	openURL(t, url, store.Options{Connections: 2})
	if before, after, err := store.Migrate(
		t.Context(),
		url,
		store.Options{},
	); err != nil || before != 9999 ||
		after != 9999 {
		t.Errorf("migrating a later schema: %d, %d, %v; want it to be left alone", before, after, err)
	}
}

func wrongPassword(t *testing.T, server *dbtest.Server) {
	_, err := store.Open(t.Context(), server.PostgresURL("marker-of-a-password"), store.Options{})
	if text := fmt.Sprint(
		err,
	); err == nil || strings.Contains(text, "marker") ||
		!strings.Contains(text, "cannot be reached") {
		t.Errorf("a wrong password: %v", err)
	}
	for _, url := range []string{"postgres://u:marker%zz@127.0.0.1/x", "postgres://u:marker@127.0.0.1:port/x", "postgres://u:marker@127.0.0.1/x?sslmode=odd"} {
		if _, err := store.Open(
			t.Context(),
			url,
			store.Options{},
		); err == nil ||
			strings.Contains(err.Error(), "marker") {
			t.Errorf("a bad URL: %v", err)
		}
	}
	password := func() (string, error) { return server.Password, nil }
	schema := newSchema(t, server)
	bare := server.PostgresURL("") + schema[strings.LastIndex(schema, "&"):]
	openURL(t, bare, store.Options{Connections: 2, Password: password})
}

// readOnly is what a server is after a failover that made it the one that follows: a connection to it is of no use.
func readOnly(t *testing.T, server *dbtest.Server) {
	st := openURL(t, newSchema(t, server), store.Options{Connections: 2})
	put(t, st, "before")
	exec1(t, st, `SET default_transaction_read_only = on`)
	exec1(t, st, `SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY`)
	put(t, st, "after")
}

func killedServer(t *testing.T, server *dbtest.Server) {
	st := openURL(t, newSchema(t, server), store.Options{Connections: 4})
	id := fill(t, st, 5)[0]
	var g errgroup.Group
	for range 16 { // connections that will all be dead
		g.Go(func() error { _, err := st.Lookup(t.Context(), id); return err })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	server.Kill(t)
	if _, err := st.Lookup(t.Context(), id); reason(err) != "STORE_UNAVAILABLE" {
		t.Errorf("a lookup without a server: %v", err)
	}
	if err := tryPut(t.Context(), st, "lost"); reason(err) != "STORE_UNAVAILABLE" {
		t.Errorf("a change without a server: %v", err)
	}
	if err := st.View(t.Context(), func(tokens.ReadTx) error { return nil }); reason(err) != "STORE_UNAVAILABLE" {
		t.Errorf("a list without a server: %v", err)
	}
	server.Start(t)
	lookup(t, st, id)
	put(t, st, "kept")
	if got := prefixes(t, st); !slices.Equal(got, []string{"kept"}) {
		t.Errorf("prefixes %v", got)
	}
	// Once more, nobody having used a connection meanwhile: the first call is answered all the same.
	server.Kill(t)
	server.Start(t)
	put(t, st, "too")
	lookup(t, st, id)
}

func frozenServer(t *testing.T, server *dbtest.Server) {
	st := openURL(t, newSchema(t, server), store.Options{Connections: 2, StatementTimeout: 200 * time.Millisecond})
	id := fill(t, st, 1)[0]
	server.Freeze(t)
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	readyErr := st.Ready(soon)
	cancel()
	began := time.Now()
	_, lookupErr := st.Lookup(t.Context(), id)
	changeErr := tryPut(t.Context(), st, "lost")
	took := time.Since(began)
	server.Thaw(t)
	if reason(lookupErr) != "STORE_UNAVAILABLE" || reason(changeErr) != "STORE_UNAVAILABLE" {
		t.Errorf("a frozen server: lookup %v, change %v; want outages", lookupErr, changeErr)
	}
	if !errors.Is(readyErr, context.DeadlineExceeded) {
		t.Errorf("readiness of a frozen server: %v, want the end of who asked", readyErr)
	}
	if took > 20*time.Second {
		t.Errorf("it took %s to tell", took)
	}
	lookup(t, st, id)
	put(t, st, "kept")
}
