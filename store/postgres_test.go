package store_test

import (
	"context"
	"fmt"
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

// copiesOf returns a function that returns the URL of an empty store in a database of its own. To copy a database takes
// a quarter of the time of making the tables anew.
func copiesOf(t *testing.T, server *dbtest.Server) func(*testing.T) string {
	t.Helper()
	of := func(name string) string {
		there := *server
		there.Database = name
		return there.PostgresURL(server.Password)
	}
	run := func(t *testing.T, statement string) {
		t.Helper()
		if _, err := server.Admin().ExecContext(context.Background(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	run(t, `CREATE DATABASE original`)
	if _, _, err := store.Migrate(t.Context(), of("original"), store.Options{}); err != nil {
		t.Fatal(err)
	}
	var copies atomic.Int64
	return func(t *testing.T) string {
		name := fmt.Sprintf("copy%d", copies.Add(1))
		run(t, `CREATE DATABASE `+name+` TEMPLATE original`)
		t.Cleanup(func() { run(t, `DROP DATABASE `+name+` WITH (FORCE)`) })
		return of(name)
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
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	t.Parallel()
	server := dbtest.SharedPostgres(t)
	empty := copiesOf(t, server)
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
