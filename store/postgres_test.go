package store_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/store"
	"patd/store/cache"
	"patd/store/storetest"
	"patd/tokens"
)

var schemas atomic.Int64

// newSchema returns the URL of an empty store of its own on a server.
func newSchema(t testing.TB, server *dbtest.Server) string {
	t.Helper()
	url := fmt.Sprintf("%s&search_path=store%d", server.PostgresURL(server.Password), schemas.Add(1))
	if _, _, err := store.Migrate(context.Background(), url, store.Options{}); err != nil {
		t.Fatal(err)
	}
	return url
}

// analyze has the statistics of a store's own tables made, and not those of all stores on a shared server.
func analyze(t *testing.T, st *store.Store) {
	t.Helper()
	exec1(t, st, `DO $$ DECLARE t name; BEGIN
FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() LOOP EXECUTE format('ANALYZE %I', t); END LOOP;
END $$`)
}

// emptied returns a function that returns the URL of an empty store, the same each time: the one before must be closed.
// To make its tables anew takes longer than most tests that use them.
func emptied(t *testing.T, server *dbtest.Server) func(*testing.T) string {
	t.Helper()
	url := newSchema(t, server)
	_, schema, _ := strings.Cut(url, "search_path=")
	run := func(t *testing.T, body string) {
		t.Helper()
		body = strings.NewReplacer("KEPT", schema+"_kept", "STORE", schema).Replace(body)
		if _, err := server.Admin().
			ExecContext(t.Context(), `DO $$ DECLARE t name; filled boolean; BEGIN `+body+` END $$`); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
	}
	// What the migrations wrote.
	run(t, `CREATE SCHEMA KEPT;
FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'STORE' LOOP
  EXECUTE format('SELECT EXISTS (SELECT FROM STORE.%I)', t) INTO filled;
  IF filled THEN EXECUTE format('CREATE TABLE KEPT.%1$I AS TABLE STORE.%1$I', t); END IF;
END LOOP;`)
	return func(t *testing.T) string {
		run(t, `PERFORM set_config('session_replication_role', 'replica', true); -- no trigger
FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'STORE' LOOP
  EXECUTE format('DELETE FROM STORE.%I', t);
END LOOP;
FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'KEPT' LOOP
  EXECUTE format('INSERT INTO STORE.%1$I OVERRIDING SYSTEM VALUE TABLE KEPT.%1$I', t);
END LOOP;
PERFORM setval(format('%I.%I', schemaname, sequencename)::regclass, 1, false)
FROM pg_sequences WHERE schemaname = 'STORE' AND sequencename NOT LIKE 'goose%';`)
		return url
	}
}

// openURL opens a store and closes it with the test.
func openURL(t testing.TB, url string, o store.Options) *store.Store {
	t.Helper()
	st, err := store.Open(context.Background(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	return st
}

// TestStoreOnPostgres is what TestStore, TestCached and their kin are, on PostgreSQL.
func TestStoreOnPostgres(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	server := dbtest.SharedPostgres(t)
	empty := emptied(t, server)
	bare := func(t *testing.T) *store.Store {
		return openURL(t, empty(t), store.Options{Connections: 2})
	}
	for name, open := range map[string]func(*testing.T) tokens.Store{
		"bare":   func(t *testing.T) tokens.Store { return bare(t) },
		"faulty": func(t *testing.T) tokens.Store { return storetest.NewFaulty(bare(t)) },
		"cached": func(t *testing.T) tokens.Store { return cache.New(bare(t), cache.Options{}) },
		"cached, with little room": func(t *testing.T) tokens.Store {
			return cache.New(bare(t), cache.Options{Size: tiny})
		},
		"cached, over faulty": func(t *testing.T) tokens.Store {
			st := bare(t)
			return cache.New(st, cache.Options{Behind: storetest.NewFaulty(st)})
		},
	} {
		if name != "bare" && !longtest.Enabled() {
			continue // TestStoreBehindFaulty and TestCached have them over SQLite
		}
		t.Run(name, func(t *testing.T) { storetest.Run(t, open) })
	}
	t.Run("a fault is never an answer", func(t *testing.T) {
		storetest.RunFaults(t, func(t *testing.T) tokens.Store { return bare(t) })
	})
}
