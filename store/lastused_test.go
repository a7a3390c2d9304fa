package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"patd/store"
	"patd/tokens"
)

func TestTheLatestUseSurvivesAFloodOfTouchesAndFlushes(t *testing.T) {
	path := newPath(t)
	st, err := store.Open(t.Context(), "sqlite:"+path, store.Options{FlushInterval: time.Millisecond})
	must(t, err)
	ids := fill(t, st, 700) // more than one transaction of uses
	start := time.Now().UTC().Truncate(time.Microsecond)
	const workers, each = 4, 5000
	use := func(n int) tokens.Use { return tokens.Use{Time: start.Add(time.Duration(n) * time.Microsecond)} }
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 1))
			for n := range each {
				st.Touch(tokens.Seen{ID: ids[rnd.IntN(len(ids))], Use: use(n)})
			}
			for _, id := range ids {
				st.Touch(tokens.Seen{ID: id, Use: use(each + w)})
			}
		})
		wg.Go(func() {
			if err := tryPut(context.Background(), st, fmt.Sprint("p", w)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	must(t, st.Close())
	if n := st.TouchesDropped(); n != 0 {
		t.Errorf("%d touches were dropped, of %d tokens", n, len(ids))
	}
	st = open(t, path, store.Options{})
	for _, id := range ids {
		if got := lastUse(t, st, id); got != use(each+workers-1) {
			t.Fatalf("last use of %s: %v, want the latest", id, got.Time)
		}
	}
}

func TestTouchOfAKnownTokenAllocatesNothing(t *testing.T) {
	st := open(t, newPath(t), store.Options{FlushInterval: time.Hour})
	seen := tokens.Seen{ID: 7, Use: tokens.Use{Time: time.Now(), IP: netip.MustParseAddr("192.0.2.1")}}
	st.Touch(seen)
	allocs := testing.AllocsPerRun(1000, func() {
		seen.Use.Time = seen.Use.Time.Add(time.Microsecond)
		st.Touch(seen)
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// BenchmarkTouch notes uses of 10,000 tokens at random, on every processor; flushed: while they are written behind.
func BenchmarkTouch(b *testing.B) {
	for name, interval := range map[string]time.Duration{"known": time.Hour, "flushed": 100 * time.Millisecond} {
		b.Run(name, func(b *testing.B) {
			st := open(b, newPath(b), store.Options{FlushInterval: interval})
			ids := fill(b, st, 10_000)
			now := time.Now()
			for _, id := range ids {
				st.Touch(tokens.Seen{ID: id, Use: tokens.Use{Time: now}})
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				rnd := rand.New(rand.NewPCG(rand.Uint64(), 1))
				for n := 1; pb.Next(); n++ {
					use := tokens.Use{Time: now.Add(time.Duration(n) * time.Microsecond)}
					st.Touch(tokens.Seen{ID: ids[rnd.IntN(len(ids))], Use: use})
				}
			})
		})
	}
}
