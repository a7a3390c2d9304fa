package feed

import (
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
