package cache_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"patd/internal/cputime"
	"patd/store"
	"patd/store/cache"
	"patd/store/usage"
	"patd/tokens"
	"patd/tokens/secret"
)

// plenty is a store that holds n tokens of n/10 users, made up when they are asked for.
type plenty struct {
	tokens.Store
	n   int
	now time.Time
}

var plentyScopes = []string{
	"billing.read",
	"billing.edit",
	"reports.read",
	"reports.edit",
	"queries.read",
	"queries.edit",
}

func (p *plenty) id(i int) tokens.ID {
	return tokens.ID(uint64(200_000_000_000+i*1000)<<22 | uint64(i)*7919&(1<<22-1))
}

func (p *plenty) Lookup(_ context.Context, id tokens.ID) (tokens.Credential, error) {
	i := int(id>>22-200_000_000_000) / 1000
	if i < 0 || i >= p.n || p.id(i) != id {
		return tokens.Credential{}, tokens.ErrNotFound
	}
	key := int64(i % max(p.n/10, 1))
	u := tokens.User{
		Key: key, ID: fmt.Sprintf("user-%07d", key), State: tokens.UserActive, CreateTime: p.now,
		Features: strings.Split(strings.Join(plentyScopes, " "), " "),
	}
	first := i % 3
	secret := tokens.StoredSecret{Hash: tokens.Hash{Key: "k1"}}
	rnd := rand.New(rand.NewPCG(uint64(i), 1))
	for j := range secret.Hash.Sum {
		secret.Hash.Sum[j] = byte(rnd.Uint32())
	}
	return tokens.Credential{
		Token: tokens.Token{
			ID:         id,
			UserKey:    key,
			User:       u.ID,
			Name:       fmt.Sprintf("CI deploy %06x", i),
			Scopes:     plentyScopes[first : first+4],
			IssueTime:  p.now,
			ExpireTime: p.now.Add(tokens.DefaultTTL),
		},
		User: u, Secrets: []tokens.StoredSecret{secret},
	}, nil
}

// warm returns a cache that all of p's tokens were asked of.
func warm(t testing.TB, p *plenty, size int64) *cache.Cache {
	t.Helper()
	c := cache.New(open(t, newPath(t), store.Options{}), cache.Options{Size: size, Behind: p})
	for i := range p.n {
		if _, err := c.Lookup(t.Context(), p.id(i)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// resident is the process's memory in bytes, once the collector has given back what it can.
func resident(t testing.TB) float64 {
	t.Helper()
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip("the memory of a process cannot be told here")
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	return float64(pages * os.Getpagesize())
}

func benchSize(b *testing.B) int {
	b.Helper()
	s := os.Getenv("PATD_BENCH_TOKENS")
	if s == "" {
		return 100_000
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		b.Fatalf("PATD_BENCH_TOKENS: %v", err)
	}
	return n
}

// BenchmarkCacheHit looks up tokens that are all in memory, in random order. PATD_BENCH_TOKENS says how many there are.
func BenchmarkCacheHit(b *testing.B) {
	p := &plenty{n: benchSize(b), now: time.Unix(1_700_000_000, 0).UTC()}
	before := resident(b)
	var room int64 // that of the default
	if p.n > 1_000_000 {
		room = int64(p.n) * 216
	}
	c := warm(b, p, room)
	report := func(b *testing.B) {
		b.Helper()
		st := c.Stats()
		if st.Misses != uint64(p.n) || st.Tokens != p.n {
			b.Errorf("of %d tokens %d are in memory, and %d were read", p.n, st.Tokens, st.Misses)
		}
		b.ReportMetric(float64(st.Bytes)/float64(p.n), "accounted-B/token")
		b.ReportMetric((resident(b)-before)/float64(p.n), "resident-B/token")
	}
	b.Run("1", func(b *testing.B) {
		rnd := rand.New(rand.NewPCG(1, 2))
		b.ReportAllocs()
		began := cputime.Process()
		for b.Loop() {
			if _, err := c.Lookup(b.Context(), p.id(rnd.IntN(p.n))); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(cputime.Process()-began)/float64(b.N), "cpu-ns/op")
		report(b)
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			rnd := rand.New(rand.NewPCG(rand.Uint64(), 2))
			for pb.Next() {
				if _, err := c.Lookup(b.Context(), p.id(rnd.IntN(p.n))); err != nil {
					b.Error(err)
				}
			}
		})
		report(b)
	})
}

// BenchmarkCacheFlood looks up random ids that are no tokens, each once, while a hundredth of the lookups are of a
// token that is.
func BenchmarkCacheFlood(b *testing.B) {
	p := &plenty{n: benchSize(b), now: time.Unix(1_700_000_000, 0).UTC()}
	c := warm(b, p, 0)
	before, kept := resident(b), c.Stats()
	rnd := rand.New(rand.NewPCG(1, 2))
	n := 0
	for b.Loop() {
		n++
		if n%100 == 0 {
			if _, err := c.Lookup(b.Context(), p.id(rnd.IntN(p.n))); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := c.Lookup(b.Context(), tokens.ID(rnd.Uint64()|1)); !errors.Is(err, tokens.ErrNotFound) {
			b.Fatal(err)
		}
	}
	b.ReportMetric((resident(b)-before)/(1<<20), "grown-MiB")
	if now := c.Stats(); now.Tokens != kept.Tokens || now.Bytes != kept.Bytes {
		b.Errorf("from %+v to %+v", kept, now)
	}
}

// BenchmarkUsesAreTaken is the processor time that it takes to gather the last uses of all tokens, as they are written,
// without the writing.
func BenchmarkUsesAreTaken(b *testing.B) {
	p := &plenty{n: benchSize(b), now: time.Unix(1_700_000_000, 0).UTC()}
	st := open(b, newPath(b), store.Options{FlushInterval: time.Hour})
	c := cache.New(st, cache.Options{Size: int64(p.n) * 256, Behind: p})
	order := rand.Perm(p.n)
	for _, i := range order {
		if _, err := c.Lookup(b.Context(), p.id(i)); err != nil {
			b.Fatal(err)
		}
	}
	var taken int
	var spent time.Duration
	for round := 1; b.Loop(); round++ {
		use := tokens.Use{Time: p.now.Add(time.Duration(round) * time.Hour)}
		for _, i := range order {
			c.RecordUse(tokens.Usage{ID: p.id(i), Kind: secret.KindPersonal, Use: use})
		}
		begun := cputime.Process()
		err := st.Uses().FlushUses(b.Context(), nil, func(_ context.Context, batch []usage.Used) error {
			taken += len(batch)
			return nil
		})
		if spent += cputime.Process() - begun; err != nil || taken != round*p.n {
			b.Fatalf("%d uses were taken in %d rounds of %d, %v", taken, round, p.n, err)
		}
	}
	b.ReportMetric(float64(spent)/float64(taken), "cpu-ns/use")
}
