package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"patd/internal/cputime"
	"patd/internal/longtest"
	"patd/store"
	"patd/store/cache"
	"patd/store/usage"
	"patd/tokens"
)

func TestTheLatestUseSurvivesAFloodOfUsesAndFlushes(t *testing.T) {
	t.Parallel()
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
				st.RecordUse(tokens.Usage{ID: ids[rnd.IntN(len(ids))], Use: use(n)})
			}
			for _, id := range ids {
				st.RecordUse(tokens.Usage{ID: id, Use: use(each + w)})
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
	if n := st.UsesDropped(); n != 0 {
		t.Errorf("%d uses were dropped, of %d tokens", n, len(ids))
	}
	st = open(t, path, store.Options{})
	for _, id := range ids {
		if got := lastUse(t, st, id); got != use(each+workers-1) {
			t.Fatalf("last use of %s: %v, want the latest", id, got.Time)
		}
	}
}

func TestAUseOfAKnownTokenAllocatesNothing(t *testing.T) {
	st := open(t, newPath(t), store.Options{FlushInterval: time.Hour})
	seen := tokens.Usage{ID: 7, Use: tokens.Use{Time: time.Now(), IP: netip.MustParseAddr("192.0.2.1")}}
	st.RecordUse(seen)
	allocs := testing.AllocsPerRun(1000, func() {
		seen.Use.Time = seen.Use.Time.Add(time.Microsecond)
		st.RecordUse(seen)
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// TestUsesAreKeptUntilTheyCanBeWritten fails the write, and takes a later use meanwhile.
func TestUsesAreKeptUntilTheyCanBeWritten(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	for _, cached := range []bool{false, true} {
		t.Run(fmt.Sprintf("cached %v", cached), func(t *testing.T) {
			st := open(t, newPath(t), store.Options{FlushInterval: time.Hour})
			var over tokens.Store = st
			if cached {
				over = cache.New(st, cache.Options{})
			}
			ids := fill(t, st, 2500)
			exec1(
				t,
				st,
				`CREATE TRIGGER broken BEFORE INSERT ON uses WHEN NEW.token_id = (SELECT max(id) FROM tokens) BEGIN SELECT RAISE(ABORT, 'broken'); END`,
			)
			use := tokens.Use{Time: time.Now().UTC().Truncate(time.Microsecond)}
			for _, id := range ids {
				lookup(t, over, id)
				over.RecordUse(tokens.Usage{ID: id, Use: use})
			}
			for range 2 {
				if err := st.Flush(t.Context()); reason(err) != "STORE_UNAVAILABLE" {
					t.Errorf("flush: %v", err)
				}
			}
			later := tokens.Use{Time: use.Time.Add(time.Minute)}
			over.RecordUse(tokens.Usage{ID: ids[0], Use: later})
			exec1(t, st, `DROP TRIGGER broken`)
			must(t, st.Flush(t.Context()))
			wantUses(t, st, ids, use, later)
			if n := count(t, st, "uses"); n != "2500" {
				t.Errorf("%s rows of uses", n)
			}
		})
	}
}

// wantUses wants a later use of the first token, and one of each other.
func wantUses(t *testing.T, st *store.Store, ids []tokens.ID, use, later tokens.Use) {
	t.Helper()
	want := later
	for i, id := range ids {
		if got := lastUse(t, st, id); got != want {
			t.Fatalf("token %d: last used %+v, want %+v", i, got, want)
		}
		want = use
	}
}

// TestTheLaterOfAnOldAndANewUseCounts reads a store that a program from before the table of uses goes on writing.
func TestTheLaterOfAnOldAndANewUseCounts(t *testing.T) {
	t.Parallel()
	st := open(t, newPath(t), store.Options{FlushInterval: time.Hour})
	ids := fill(t, st, 4)
	at := func(us int64) tokens.Use { return tokens.Use{Time: time.UnixMicro(us).UTC()} }
	exec1(t, st, `UPDATE tokens SET last_used_us = 20, last_used_ip = x'c0000201'`)
	for i, us := range []int64{10, 20, 30} {
		st.RecordUse(tokens.Usage{ID: ids[i], Use: at(us)})
	}
	must(t, st.Flush(t.Context()))
	old := tokens.Use{Time: time.UnixMicro(20).UTC(), IP: netip.MustParseAddr("192.0.2.1")}
	for i, want := range []tokens.Use{old, at(20), at(30), old} {
		if got := lastUse(t, st, ids[i]); got != want {
			t.Errorf("token %d: last used %+v, want %+v", i, got, want)
		}
	}
}

// BenchmarkRecordUse records uses of 10,000 tokens at random, on every processor; flushed: while they are written
// behind.
func BenchmarkRecordUse(b *testing.B) {
	for name, interval := range map[string]time.Duration{"known": time.Hour, "flushed": 100 * time.Millisecond} {
		b.Run(name, func(b *testing.B) {
			st := open(b, newPath(b), store.Options{FlushInterval: interval})
			ids := fill(b, st, 10_000)
			now := time.Now()
			for _, id := range ids {
				st.RecordUse(tokens.Usage{ID: id, Use: tokens.Use{Time: now}})
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				rnd := rand.New(rand.NewPCG(rand.Uint64(), 1))
				for n := 1; pb.Next(); n++ {
					use := tokens.Use{Time: now.Add(time.Duration(n) * time.Microsecond)}
					st.RecordUse(tokens.Usage{ID: ids[rnd.IntN(len(ids))], Use: use})
				}
			})
		})
	}
}

// BenchmarkDetailsAreWritten writes the details of uses of 10,000 tokens, which have some already, to a file.
func BenchmarkDetailsAreWritten(b *testing.B) {
	st := open(b, newPath(b), store.Options{FlushInterval: time.Hour})
	ids, now := fill(b, st, 10_000), time.Now()
	record := func() {
		now = now.Add(time.Second)
		use := tokens.Use{Time: now, IP: netip.MustParseAddr("192.0.2.1")}
		for _, id := range ids {
			st.RecordUse(tokens.Usage{ID: id, Use: use, Service: "gateway", Scopes: []string{"reports.read"}})
		}
	}
	record()
	must(b, st.Flush(b.Context()))
	var took time.Duration
	for b.Loop() {
		record()
		must(b, st.Uses().FlushUses(b.Context(), nil, func(context.Context, []usage.Used) error { return nil }))
		begun := cputime.Process()
		must(b, st.Flush(b.Context()))
		took += cputime.Process() - begun
	}
	b.ReportMetric(float64(took)/float64(b.N*len(ids)), "cpu-ns/token")
}
