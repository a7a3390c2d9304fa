package cache_test

import (
	"sync"
	"testing"
	"time"

	"patd/store"
	"patd/store/cache"
	"patd/tokens"
)

// TestPrefetchReadsNothingThatIsWritten runs batches beside fills and uses, for the race detector.
func TestPrefetchReadsNothingThatIsWritten(t *testing.T) {
	t.Parallel()
	p := &plenty{n: 20_000, now: time.Unix(1_700_000_000, 0).UTC()}
	c := cache.New(open(t, newPath(t), store.Options{FlushInterval: time.Hour}), cache.Options{Behind: p})
	ids := make([]tokens.ID, p.n)
	for i := range ids {
		ids[i] = p.id(i)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for range 10 {
			for i := 0; i+100 <= len(ids); i += 100 {
				c.Prefetch(ids[i : i+100])
			}
		}
	})
	for i, id := range ids {
		lookup(t, c, id)
		c.RecordUse(tokens.Usage{ID: id, Use: tokens.Use{Time: time.Unix(int64(i+1), 0)}})
	}
	done.Wait()
	if s := c.Stats(); s.Tokens != p.n {
		t.Errorf("%d tokens are in memory, want %d", s.Tokens, p.n)
	}
}
