package store_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"patd/store"
	"patd/store/storefill"
	"patd/tokens"
)

// fill loads a little store, and returns the ids of its tokens.
func fill(t testing.TB, st tokens.Store, n int) []tokens.ID {
	t.Helper()
	ids, err := storefill.Load(context.Background(), st, storefill.Config{Tokens: n, Users: 2})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func lookup(t testing.TB, st tokens.Store, id tokens.ID) tokens.Credential {
	t.Helper()
	c, err := st.Lookup(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// lastUse is the last use of a token that is on disk.
func lastUse(t testing.TB, st tokens.Store, id tokens.ID) (use tokens.Use) {
	t.Helper()
	err := st.View(context.Background(), func(tx tokens.ReadTx) error {
		tok, err := tx.Token(id)
		use = tok.LastUsed
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return use
}

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Now().UTC().Truncate(time.Microsecond)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func exec1(t testing.TB, st *store.Store, query string, args ...any) {
	t.Helper()
	if err := st.Exec(context.Background(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func count(t testing.TB, st *store.Store, what string) string {
	t.Helper()
	n, err := st.Texts(context.Background(), 0, `SELECT count(*) FROM `+what)
	if err != nil {
		t.Fatal(err)
	}
	return n[0]
}

const childEnv = "PATD_STORE_TEST_CHILD" // the path of a store: be another process that writes to it

// child is what the test program does as another process: it changes the store 50 times.
func child(path string) error {
	st, err := store.Open(context.Background(), "sqlite:"+path, store.Options{BusyTimeout: time.Minute})
	if err != nil {
		return err
	}
	for i := range 50 {
		if err := tryPut(context.Background(), st, fmt.Sprintf("child%d", i)); err != nil {
			return err
		}
	}
	return st.Close()
}

// startChild runs child in another process; wait answers how it ended.
func startChild(t testing.TB, path string) (wait func() error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+path)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() error {
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("the other process: %w: %s", err, out.String())
		}
		return nil
	}
}
