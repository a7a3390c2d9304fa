package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"patd/store"
	"patd/store/storefill"
	"patd/tokens"
)

// sizes are the stores that benchmarks look at: 10,000 tokens and, where PATD_BENCH_TOKENS names others, those.
func sizes(b *testing.B) []int {
	list := []int{10_000}
	if s := os.Getenv("PATD_BENCH_TOKENS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			b.Fatalf("PATD_BENCH_TOKENS: %v", err)
		}
		list = append(list, n)
	}
	return list
}

// underA is a digest under the key of rowKeyA, another for each token.
func underA(n int, _ tokens.ID) tokens.Hash {
	return tokens.Hash{Key: "k1", Sum: [32]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24), 1}}
}

// filled returns a store of n tokens. Large ones are kept in PATD_BENCH_DIR, if that is set, for the next run.
func filled(b *testing.B, n int) (*store.Store, []tokens.ID, string) {
	b.Helper()
	dir := os.Getenv("PATD_BENCH_DIR")
	if dir == "" {
		dir = b.TempDir()
	}
	path := filepath.Join(dir, fmt.Sprintf("bench-%d.db", n))
	_, err := os.Stat(path)
	st := open(b, path, store.Options{})
	keys := parseRowKeys(b, rowKeyA) // rows have checksums, as those of every store that is served
	if _, err := tokens.BindKeys(b.Context(), st, keys, "", time.Now()); err != nil {
		b.Fatal(err)
	}
	if os.IsNotExist(err) {
		start := time.Now()
		if _, err := storefill.Load(b.Context(), st, storefill.Config{Tokens: n, Hash: underA}); err != nil {
			b.Fatal(err)
		}
		b.Logf("filled with %d tokens in %s", n, time.Since(start).Round(time.Millisecond))
		if err := st.Exec(b.Context(), `PRAGMA wal_checkpoint(TRUNCATE)`); err != nil {
			b.Fatal(err)
		}
	}
	texts, err := st.Texts(b.Context(), 0, `SELECT id FROM tokens`)
	if err != nil {
		b.Fatal(err)
	}
	ids := make([]tokens.ID, len(texts))
	for i, s := range texts {
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		ids[i] = tokens.ID(v)
	}
	rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	return st, ids, path
}

// lookupRounds of lookupsPerRound lookups each are compared, after as many lookups to warm up as one round in four has.
const (
	lookupRounds    = 41
	lookupsPerRound = 1000
)

// BenchmarkLookupBesideDriver compares the store's point lookup, in random order over all tokens, with the same
// statement on the same rows by the driver alone, in a small store and in those that PATD_BENCH_TOKENS names: in turn,
// a round of each. The figures are medians over the rounds, with their range; files are read once before, so that they
// are in memory.
//
//   - ratio: time of a lookup by the store, over the driver's (reach: at most 1.3)
//   - growth-x: how much longer the store's takes than in the small store, over the same of the driver (reach: at most 1.1)
func BenchmarkLookupBesideDriver(b *testing.B) {
	var all []*besides
	for _, n := range sizes(b) {
		all = append(all, newBesides(b, n))
	}
	for range lookupRounds / 4 {
		for _, l := range all {
			l.round(b)
		}
	}
	for _, l := range all {
		l.ours, l.drivers, l.ratios = nil, nil, nil
	}
	growth := make([][]float64, len(all))
	for i := range lookupRounds {
		for j, l := range all {
			l.round(b)
			growth[j] = append(growth[j], l.ours[i]/all[0].ours[i]/(l.drivers[i]/all[0].drivers[i]))
		}
	}
	for b.Loop() { // nothing is timed by the framework; it would forget figures reported before
		continue
	}
	b.ReportMetric(0, "ns/op")
	for i, l := range all {
		lo, hi := slices.Min(l.ratios), slices.Max(l.ratios)
		b.Logf(
			"%8d tokens: ratio %.2f (%.2f to %.2f); store %.0f ns, driver %.0f ns",
			l.n,
			median(l.ratios),
			lo,
			hi,
			median(l.ours),
			median(l.drivers),
		)
		b.ReportMetric(median(l.ratios), fmt.Sprintf("ratio-%d", l.n))
		if i == 0 {
			continue
		}
		lo, hi = slices.Min(growth[i]), slices.Max(growth[i])
		b.Logf(
			"%8d tokens: growth from %d beside the driver's: %.2f (%.2f to %.2f)",
			l.n,
			all[0].n,
			median(growth[i]),
			lo,
			hi,
		)
		b.ReportMetric(median(growth[i]), fmt.Sprintf("growth-x-%d", l.n))
	}
}

// besides is a store, and the driver beside it.
type besides struct {
	n                     int
	st                    *store.Store
	ids                   []tokens.ID
	driver                func(tokens.ID) error
	at                    int
	ours, drivers, ratios []float64 // by round; of a lookup in ns
}

func newBesides(b *testing.B, n int) *besides {
	b.Helper()
	st, ids, path := filled(b, n)
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	_, err = io.Copy(io.Discard, f)
	if err := errors.Join(err, f.Close()); err != nil {
		b.Fatal(err)
	}
	return &besides{n: n, st: st, ids: ids, driver: driverLookup(b, path)}
}

func (l *besides) round(b *testing.B) {
	o, d := l.time(b, l.lookup), l.time(b, l.driver)
	l.ours, l.drivers, l.ratios = append(l.ours, o), append(l.drivers, d), append(l.ratios, o/d)
}

func (l *besides) time(b *testing.B, lookup func(tokens.ID) error) float64 {
	start := time.Now()
	for range lookupsPerRound {
		if err := lookup(l.ids[l.at%len(l.ids)]); err != nil {
			b.Fatal(err)
		}
		l.at++
	}
	return float64(time.Since(start).Nanoseconds()) / lookupsPerRound
}

func (l *besides) lookup(id tokens.ID) error {
	c, err := l.st.Lookup(context.Background(), id)
	if err == nil && len(c.Token.Scopes) != 4 {
		err = fmt.Errorf("%d scopes", len(c.Token.Scopes))
	}
	return err
}

// BenchmarkLookup looks tokens up in random order, and ids that are none.
func BenchmarkLookup(b *testing.B) {
	for _, n := range sizes(b) {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			st, ids, _ := filled(b, n)
			b.Run("64-in-flight", func(b *testing.B) { benchParallel(b, st, ids) })
			b.Run("absent", func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					if _, err := st.Lookup(b.Context(), ids[i%len(ids)]^1); err == nil {
						b.Fatal("found")
					}
				}
			})
		})
	}
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

func benchParallel(b *testing.B, st *store.Store, ids []tokens.ID) {
	var next atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := st.Lookup(b.Context(), ids[int(next.Add(1))%len(ids)]); err != nil {
				b.Error(err)
			}
		}
	})
}

// driverLookup runs the statement of Lookup through database/sql and the driver, and scans all of its columns.
func driverLookup(b *testing.B, path string) func(tokens.ID) error {
	b.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		b.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	for _, pragma := range store.Pragmas() {
		if _, err := db.ExecContext(b.Context(), `PRAGMA `+pragma); err != nil {
			b.Fatal(err)
		}
	}
	st, err := db.PrepareContext(b.Context(), store.CredentialQuery)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := errors.Join(st.Close(), db.Close()); err != nil {
			b.Error(err)
		}
	})
	rows, err := st.QueryContext(b.Context(), int64(0)) // no token's
	if err != nil {
		b.Fatal(err)
	}
	names, err := rows.Columns()
	if err := errors.Join(err, rows.Err(), rows.Close()); err != nil {
		b.Fatal(err)
	}
	columns := make([]any, len(names))
	dest := make([]any, len(columns))
	for i := range columns {
		dest[i] = &columns[i]
	}
	ctx := context.Background() // one that ends costs the driver a goroutine for each statement
	return func(id tokens.ID) error { return st.QueryRowContext(ctx, int64(id)).Scan(dest...) }
}

// BenchmarkSize reports bytes a token in the file: of the row with its indexes and its use, fresh and with every token
// used once, and of the whole file with users, events and the change feed.
func BenchmarkSize(b *testing.B) {
	for _, n := range sizes(b) {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			st, ids, path := filled(b, n)
			fresh := bytesEach(b, st, tokenPages, len(ids))
			for i, id := range ids {
				ip := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
				st.RecordUse(tokens.Usage{ID: id, Use: tokens.Use{Time: time.Now(), IP: ip}})
				if i%10_000 == 0 || i == len(ids)-1 {
					if err := st.Flush(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
			}
			if os.Getenv("PATD_BENCH_DIR") != "" {
				b.Logf("%s: every token is used now; remove it to measure fresh ones", path)
			}
			for b.Loop() { // nothing is timed; it would forget figures reported before
				continue
			}
			b.ReportMetric(fresh, "B/token-fresh")
			b.ReportMetric(bytesEach(b, st, tokenPages, len(ids)), "B/token-used")
			b.ReportMetric(bytesEach(b, st, allPages, len(ids)), "B/token-all")
		})
	}
}

const (
	tokenPages = `SELECT coalesce(sum(pgsize), 0) FROM dbstat WHERE name LIKE 'tokens%' OR name = 'uses'`
	allPages   = `SELECT coalesce(sum(pgsize), 0) FROM dbstat`
)

func bytesEach(b *testing.B, st *store.Store, query string, n int) float64 {
	b.Helper()
	texts, err := st.Texts(b.Context(), 0, query)
	if err != nil {
		b.Fatal(err)
	}
	size, err := strconv.ParseFloat(texts[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return size / float64(n)
}
