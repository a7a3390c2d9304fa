package store_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/store"
	"patd/store/storetest"
	"patd/tokens"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		if err := child(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	longtest.Beside(4)
	goleak.VerifyTestMain(m)
}

// open opens a store at a path and closes it with the test.
func open(t testing.TB, path string, o store.Options) *store.Store {
	t.Helper()
	st, err := store.Open(context.Background(), "sqlite:"+path, o)
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

func openNew(t *testing.T) tokens.Store {
	path := filepath.Join(t.TempDir(), "patd.db")
	if _, err := dbtest.SQLite(path); err != nil {
		t.Fatal(err)
	}
	return open(t, path, store.Options{NoSync: true})
}

func TestStore(t *testing.T) { storetest.Run(t, openNew) }

func TestStoreBehindFaulty(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	t.Parallel()
	storetest.Run(t, func(t *testing.T) tokens.Store { return storetest.NewFaulty(openNew(t)) })
}

func TestAFaultIsNeverAnAnswer(t *testing.T) { storetest.RunFaults(t, openNew) }
