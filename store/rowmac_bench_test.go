package store_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"patd/store"
	"patd/store/storefill"
	"patd/tokens"
)

// BenchmarkLookupWithChecksums compares point lookups in a store whose rows have checksums with those in the same store
// without: in turn, a short round of each. The figures are of the fastest tenth of the rounds, which other work on the
// machine has not been in the way of. See docs/security.md.
func BenchmarkLookupWithChecksums(b *testing.B) {
	load := func(checksums bool) (*store.Store, []tokens.ID) {
		d := newDesk(b, "sqlite:"+newPath(b), rowKeyA, checksums)
		st := d.st
		if !checksums {
			st = openURL(b, "sqlite:"+newPath(b), store.Options{})
		}
		c := storefill.Config{Tokens: 10_000}
		if checksums {
			c.Hash = underA
		}
		ids, err := storefill.Load(context.Background(), st, c)
		if err != nil {
			b.Fatal(err)
		}
		return st, ids
	}
	var stores [2]*store.Store
	var ids [2][]tokens.ID
	for i := range stores {
		stores[i], ids[i] = load(i == 1)
	}
	const rounds, lookups = 2000, 50
	round := func(i int) float64 {
		st, of := stores[i], ids[i]
		start := time.Now()
		for range lookups {
			if _, err := st.Lookup(context.Background(), of[rand.IntN(len(of))]); err != nil {
				b.Fatal(err)
			}
		}
		return float64(time.Since(start).Nanoseconds()) / lookups
	}
	var with, without []float64
	for n := range rounds + rounds/4 {
		first := n % 2
		took := [2]float64{}
		took[first] = round(first)
		took[1-first] = round(1 - first)
		if n >= rounds/4 { // the others warm up
			without, with = append(without, took[0]), append(with, took[1])
		}
	}
	slices.Sort(with)
	slices.Sort(without)
	const fast = rounds / 10
	for b.Loop() {
		continue
	}
	b.ReportMetric(without[fast], "ns-without")
	b.ReportMetric(with[fast], "ns-with")
	b.ReportMetric(100*(with[fast]/without[fast]-1), "percent")
}
