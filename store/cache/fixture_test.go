package cache_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"patd/internal/dbtest"
	"patd/store"
	"patd/store/cache"
	"patd/store/storefill"
	"patd/store/storetest"
	"patd/tokens"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tiny is a cache that nothing stays in for long.
const tiny = 8 << 10

func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "patd.db") }

// open opens a store at a path and closes it with the test.
func open(t testing.TB, path string, o store.Options) *store.Store {
	t.Helper()
	url, err := dbtest.SQLite(path)
	must(t, err)
	o.NoSync = true
	st, err := store.Open(context.Background(), url, o)
	must(t, err)
	t.Cleanup(func() { must(t, st.Close()) })
	return st
}

// flusher is a cache whose store can be told to write last uses.
type flusher struct {
	*cache.Cache
	st *store.Store
}

// Flush implements storetest.Flusher.
func (f flusher) Flush(ctx context.Context) error { return f.st.Flush(ctx) }

func openCached(t *testing.T, o cache.Options) tokens.Store {
	t.Helper()
	st := open(t, newPath(t), store.Options{})
	return flusher{cache.New(st, o), st}
}

// rig is a cache over a store that can be made to fail or wait, with records, and another handle on the same file, as
// another process has.
type rig struct {
	*cache.Cache
	*storetest.Rig
	faulty *storetest.Faulty
	st     *store.Store
	other  *store.Store
}

func newRig(t *testing.T, o store.Options) *rig {
	t.Helper()
	path := newPath(t)
	r := &rig{st: open(t, path, o), other: open(t, path, store.Options{})}
	r.faulty = storetest.NewFaulty(r.st)
	r.Cache = cache.New(r.st, cache.Options{Behind: r.faulty})
	r.Rig = storetest.NewRig(t, r.Cache)
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// reason is the reason of a domain error, or empty.
func reason(err error) string {
	var e *tokens.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

// fill loads a small store, and returns the ids of its tokens.
func fill(t testing.TB, st tokens.Store, n int) []tokens.ID {
	t.Helper()
	ids, err := storefill.Load(context.Background(), st, storefill.Config{Tokens: n, Users: 2})
	must(t, err)
	return ids
}

func lookup(t testing.TB, st tokens.Store, id tokens.ID) tokens.Credential {
	t.Helper()
	c, err := st.Lookup(context.Background(), id)
	must(t, err)
	return c
}

// lastUse is the last use of a token that is on disk.
func lastUse(t testing.TB, st tokens.Store, id tokens.ID) (use tokens.Use) {
	t.Helper()
	must(t, st.View(context.Background(), func(tx tokens.ReadTx) error {
		tok, err := tx.Token(id)
		use = tok.LastUsed
		return err
	}))
	return use
}
