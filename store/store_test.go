package store_test

import (
	"context"
	"fmt"
	"os"
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
// open opens the store in a file. Where there is none, it is a copy of an empty store, which is made once: tests of the
// making of stores call create. Only benchmarks wait for the disk.
func open(t testing.TB, path string, o store.Options) *store.Store {
	t.Helper()
	if _, err := dbtest.SQLite(path); err != nil {
		t.Fatal(err)
	}
	if _, measures := t.(*testing.B); !measures {
		o.NoSync = true
	}
	return create(t, path, o)
}

// create opens the store in a file, and has Open make it where there is none.
func create(t testing.TB, path string, o store.Options) *store.Store {
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
	return open(t, newPath(t), store.Options{})
}

func TestStore(t *testing.T) { storetest.Run(t, openNew) }

func TestStoreBehindFaulty(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	storetest.Run(t, func(t *testing.T) tokens.Store { return storetest.NewFaulty(openNew(t)) })
}

func TestAFaultIsNeverAnAnswer(t *testing.T) { storetest.RunFaults(t, openNew) }
