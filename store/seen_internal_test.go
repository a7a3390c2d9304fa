package store

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"patd/tokens"
)

// anyToken is a store that has every token there may be.
type anyToken struct{ *Store }

func (anyToken) Lookup(_ context.Context, id tokens.ID) (tokens.Credential, error) {
	now, key := time.Unix(1_700_000_000, 0).UTC(), int64(id%64)+1
	user := "u" + string(rune('a'+key))
	return tokens.Credential{
		Token:   tokens.Token{ID: id, UserKey: key, User: user, Name: "n", Scopes: []string{"a"}, IssueTime: now},
		User:    tokens.User{Key: key, ID: user, State: tokens.UserActive, CreateTime: now},
		Secrets: []tokens.StoredSecret{{Hash: tokens.Hash{Key: "k1"}}},
	}, nil
}

func cachedOverAny(t *testing.T, size int64) (*Store, *Cached) {
	t.Helper()
	st, err := Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "patd.db"), Options{FlushInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st, NewCached(st, CacheOptions{Behind: anyToken{st}, Size: size})
}

func use(t *testing.T, c *Cached, id tokens.ID) {
	t.Helper()
	if _, err := c.Lookup(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	c.Touch(tokens.Seen{ID: id, Use: tokens.Use{Time: time.Unix(int64(id), 0)}})
}

// TestUsesThatWaitOutsideOfTheCacheAreBounded has tokens leave a small cache while no use can be written.
func TestUsesThatWaitOutsideOfTheCacheAreBounded(t *testing.T) {
	st, c := cachedOverAny(t, 1<<20)
	if err := st.Exec(t.Context(), `CREATE TRIGGER broken BEFORE INSERT ON uses BEGIN SELECT RAISE(ABORT, 'broken'); END`); err != nil {
		t.Fatal(err)
	}
	const room = 1000
	st.seen.room = room
	for i := range 20 * room {
		use(t, c, tokens.ID(i+1))
	}
	if n := st.seen.size.Load(); n > room || st.TouchesDropped() < room {
		t.Errorf("%d uses wait, of %d at most; %d were dropped", n, room, st.TouchesDropped())
	}
}

// meanwhile is a keeper that has something happen after it has told what it has, and after each use that it was asked for.
type meanwhile struct {
	useKeeper
	told, taken func()
}

func (m *meanwhile) noted(ids []tokens.ID) []tokens.ID {
	defer m.told()
	return m.useKeeper.noted(ids)
}

func (m *meanwhile) takeUse(id tokens.ID) (usage, bool) {
	defer m.taken()
	return m.useKeeper.takeUse(id)
}

// TestAFlushWritesUsesThatMoveMeanwhile has a token leave the cache between any two steps of a flush.
func TestAFlushWritesUsesThatMoveMeanwhile(t *testing.T) {
	for when := range 4 {
		st, c := cachedOverAny(t, 0)
		at := 0
		step := func() {
			if at++; at == when+1 {
				c.apply(c.clear)
			}
		}
		for i, k := range st.keepers {
			st.keepers[i] = &meanwhile{useKeeper: k, told: step, taken: step}
		}
		use(t, c, 1)
		if err := st.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		n, err := st.Texts(t.Context(), 0, `SELECT count(*) FROM uses`)
		if err != nil || n[0] != "1" || at < 3 {
			t.Errorf("cleared after step %d of %d: %s uses are on disk, %v", when+1, at, n, err)
		}
	}
}

// TestPrefetchReadsNothingThatIsWritten runs batches beside fills and uses, for the race detector.
func TestPrefetchReadsNothingThatIsWritten(t *testing.T) {
	_, c := cachedOverAny(t, 0)
	ids := make([]tokens.ID, 20_000)
	for i := range ids {
		ids[i] = tokens.ID(i + 1)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for range 10 {
			for i := 0; i+100 <= len(ids); i += 100 {
				c.Prefetch(ids[i : i+100])
			}
		}
	})
	for _, id := range ids {
		use(t, c, id)
	}
	done.Wait()
}
