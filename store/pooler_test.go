package store_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/internal/waittest"
	"patd/store"
	"patd/store/cache"
)

// allSettings is what a PgBouncer is told by those who meet its refusal.
const allSettings = "ignore_startup_parameters = search_path, default_transaction_isolation, statement_timeout, lock_timeout, " +
	"idle_in_transaction_session_timeout"

// TestAStoreBehindAPoolerIsWhereItShouldBe runs a real PgBouncer in its modes: in session mode a store works as it does
// directly, and in the others it is refused with the setting to change, before anything is made.
func TestAStoreBehindAPoolerIsWhereItShouldBe(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	server := dbtest.Postgres(t)
	for i, mode := range []string{"session", "session", "transaction", "transaction", "statement"} {
		var settings []string
		if i%2 == 1 {
			settings = []string{allSettings}
		}
		t.Run(fmt.Sprint(mode, i), func(t *testing.T) {
			pooler := dbtest.PgBouncer(t, server, mode, settings...)
			schema := fmt.Sprint("pooled", i)
			url := pooler.PostgresURL(pooler.Password) + "&search_path=" + schema
			before := tables(t, server)
			_, _, err := store.Migrate(t.Context(), url, store.Options{})
			if mode != "session" {
				if err == nil || !strings.Contains(err.Error(), "pool_mode = session") {
					t.Errorf("migrate: %v, want a refusal that names the setting", err)
				}
				if after := tables(t, server); after != before {
					t.Errorf("tables in %s, and before in %s", after, before)
				}
				directly := server.PostgresURL(server.Password) + "&search_path=" + schema
				if _, _, err := store.Migrate(t.Context(), directly, store.Options{}); err != nil {
					t.Fatal(err)
				}
				if _, err := store.Open(
					t.Context(),
					url,
					store.Options{},
				); err == nil ||
					!strings.Contains(err.Error(), "pool_mode = session") {
					t.Errorf("open: %v, want a refusal that names the setting", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if want, got := strings.TrimSpace(before+" "+schema), tables(t, server); got != want {
				t.Errorf("tables in %s, want %s", got, want)
			}
			worksBehindAPooler(t, url)
		})
	}
}

// worksBehindAPooler changes a store on one handle and receives it on another.
func worksBehindAPooler(t *testing.T, url string) {
	t.Helper()
	one, two := openURL(t, url, store.Options{Connections: 2}), openURL(t, url, store.Options{Connections: 2})
	ids := fill(t, one, 10)
	cached := cache.New(two, cache.Options{})
	waittest.Until(t, "the feed is read", func() bool { return cached.Ready(t.Context()) == nil })
	lookup(t, cached, ids[0])
	put(t, one, "acme")
	waittest.Until(t, "the change on the other handle", func() bool { return two.Sequence() >= one.Sequence() })
	for name, want := range map[string]string{"statement_timeout": "5s", "idle_in_transaction_session_timeout": "3s", "lock_timeout": "4s"} {
		if got, err := one.Texts(t.Context(), 0, `SHOW `+name); err != nil || got[0] != want {
			t.Errorf("%s is %v, %v; want %s", name, got, err, want)
		}
	}
	if found, err := one.Check(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("check: %v, %v", found, err)
	}
}

// tables are the schemas with tables, but for the database's own.
func tables(t *testing.T, server *dbtest.Server) (schemas string) {
	t.Helper()
	err := server.Admin().
		QueryRowContext(context.Background(), `SELECT coalesce(string_agg(DISTINCT schemaname, ' '), '') FROM pg_tables
WHERE schemaname NOT IN ('pg_catalog', 'information_schema')`).
		Scan(&schemas)
	if err != nil {
		t.Fatal(err)
	}
	return schemas
}
