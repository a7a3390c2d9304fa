package feed

import (
	"slices"
	"testing"

	"patd/tokens"
)

func TestTheRingKeepsTheNewestEntries(t *testing.T) {
	var r ring
	const n = 3 * ringSize
	mark := func(seq uint64) uint64 { return seq*7 + 1 }
	for seq := uint64(1); seq <= n; seq += 3 {
		var list []Entry
		for s := seq; s < seq+3; s++ {
			list = append(list, Entry{Change: tokens.Change{Seq: s}, Mark: mark(s)})
		}
		r.add(list)
	}
	if len(r.entries) < ringSize || len(r.entries) > ringSize+ringSize/4+3 {
		t.Errorf("%d entries are kept", len(r.entries))
	}
	for _, back := range []uint64{0, 1, ringSize / 2, ringSize - 1} {
		at := r.place(Entry{Change: tokens.Change{Seq: n - back}, Mark: mark(n - back)})
		list, ok := r.after(at)
		if !ok || uint64(len(list)) != back || back > 0 && list[0].Seq != n-back+1 {
			t.Errorf("%d entries back: %v, %d entries", back, ok, len(list))
		}
		at.History += "0"
		if _, ok := r.after(at); ok {
			t.Errorf("%d entries back in another history: known", back)
		}
	}
	for _, seq := range []uint64{0, 1, n - 2*ringSize, n + 1} {
		at := r.place(Entry{Change: tokens.Change{Seq: seq}, Mark: mark(seq)})
		if _, ok := r.after(at); ok {
			t.Errorf("position %d is known", seq)
		}
	}
	at := r.place(r.before)
	if list, ok := r.after(at); !ok || len(list) != len(r.entries) {
		t.Errorf("from the one before the first: %v, %d", ok, len(list))
	}
}

// TestChangesThatTheDatabaseLostAreNamed compares what was read before a failover with the table afterwards.
func TestChangesThatTheDatabaseLostAreNamed(t *testing.T) {
	t.Parallel()
	entry := func(seq, mark uint64) Entry { return Entry{Change: tokens.Change{Seq: seq}, Mark: mark} }
	had := &ring{before: entry(1, 1), entries: []Entry{entry(2, 2), entry(4, 4), entry(5, 5)}}
	for name, c := range map[string]struct {
		now  ring
		want []uint64
	}{
		"nothing":                   {ring{before: entry(1, 1), entries: []Entry{entry(2, 2), entry(4, 4), entry(5, 5), entry(6, 6)}}, nil},
		"the last ones":             {ring{before: entry(1, 1), entries: []Entry{entry(2, 2)}}, []uint64{4, 5}},
		"theirs were given again":   {ring{before: entry(1, 1), entries: []Entry{entry(2, 2), entry(3, 3), entry(4, 7), entry(8, 8)}}, []uint64{4, 5}},
		"the first ones are pruned": {ring{before: entry(4, 4), entries: []Entry{entry(6, 6)}}, []uint64{5}},
		"all are pruned":            {ring{before: entry(9, 9)}, nil},
		"all":                       {ring{}, []uint64{1, 2, 4, 5}},
		"from the first":            {ring{entries: []Entry{entry(2, 2)}}, []uint64{4, 5}},
	} {
		var got []uint64
		for _, e := range lost(had, &c.now) {
			got = append(got, e.Seq)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v are lost, want %v", name, got, c.want)
		}
	}
}
