package usage

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"patd/tokens"
)

// TestARoundOfASweepTakesAllInParts has ids come by chance, in clusters as those of tokens that are made together. A
// whole round takes what was there when it began, each part has ids of its own range, sorted, and is no larger than it
// should be.
func TestARoundOfASweepTakesAllInParts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const size = 8
		w := newSweep(size)
		waiting := map[tokens.ID]bool{}
		ids := rapid.SliceOfN(
			rapid.OneOf(rapid.Uint64Range(1, 50), rapid.Uint64Range(1000, 1400), rapid.Uint64()),
			0,
			300,
		)
		for range rapid.IntRange(1, 12).Draw(t, "rounds") {
			late := map[tokens.ID]bool{}
			add := func() {
				for _, id := range ids.Draw(t, "ids") {
					waiting[tokens.ID(id)], late[tokens.ID(id)] = true, true
					w.add([]tokens.ID{tokens.ID(id)})
				}
			}
			add()
			clear(late)
			w.next = 0
			last := tokens.ID(0)
			for begun := false; !begun || w.next != 0; begun = true {
				part := w.take()
				if len(part) > 2*size || !slices.IsSorted(part) || len(part) > 0 && begun && part[0] <= last {
					t.Fatalf("a part of %d after %d: %v", size, last, part)
				}
				for _, id := range part {
					if !waiting[id] {
						t.Fatalf("%d is taken twice, or was never added", id)
					}
					delete(waiting, id)
					last = id
				}
				if rapid.IntRange(0, 9).Draw(t, "more") == 0 {
					add()
				}
			}
			if len(w.starts) != len(w.parts) || w.starts[0] != 0 || !slices.IsSorted(w.starts) {
				t.Fatalf("parts begin at %v", w.starts)
			}
			for id := range waiting {
				if !late[id] {
					t.Fatalf("%d waits, and was there when the round began", id)
				}
			}
		}
		left := w.takeAll()
		if len(left) != len(waiting) || slices.ContainsFunc(left, func(id tokens.ID) bool { return !waiting[id] }) {
			t.Fatalf("%d are left, want %d", len(left), len(waiting))
		}
	})
}

// TestPartsFollowHowManyThereAre, so that a round has as many parts as it needs, and few again when there are few.
func TestPartsFollowHowManyThereAre(t *testing.T) {
	t.Parallel()
	w := newSweep(10)
	for _, c := range []struct{ ids, least, most int }{{100_000, 5000, 10_000}, {100, 1, 40}, {0, 1, 2}} {
		for range 20 {
			for id := range c.ids {
				w.add([]tokens.ID{tokens.ID(id * 1_000_003)})
			}
			for begun := false; !begun || w.next != 0; begun = true {
				w.take()
			}
		}
		if n := len(w.parts); n < c.least || n > c.most || w.pause(time.Hour) != time.Hour/time.Duration(n) {
			t.Errorf("%d parts for %d, and another pause than %s between them", n, c.ids, time.Hour/time.Duration(n))
		}
	}
}

// TestNoMomentWritesMuchMoreThanAnother has uses of random tokens come for some rounds, of a clock that is not awaited,
// and counts what is written in each tenth of a second.
func TestNoMomentWritesMuchMoreThanAnother(t *testing.T) {
	t.Parallel()
	const (
		known, each    = 200_000, 1500 // tokens, and uses in a window
		window         = 100 * time.Millisecond
		interval       = 5 * time.Second
		rounds, settle = 4, 2
	)
	b := NewBuffer(0)
	rnd := rand.New(rand.NewPCG(5, 6))
	var written []int
	var since [known + 1]time.Duration // of the use that waits, and a window; 0: none
	oldest := time.Duration(0)
	due := interval
	for now := time.Duration(0); now < rounds*gatherFor*interval; now += window {
		for range each {
			id := rnd.Uint64N(known) + 1
			if since[id] == 0 {
				since[id] = now + window
			}
			b.Record(tokens.ID(id<<40), Use{Micros: now.Microseconds() + 1})
		}
		n := 0
		for due <= now {
			pause, err := b.FlushPart(t.Context(), interval, func(_ context.Context, batch []Used) error {
				for _, u := range batch {
					oldest = max(oldest, now+window-since[u.ID>>40])
					since[u.ID>>40] = 0
				}
				n += len(batch)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			due += pause
		}
		written = append(written, n)
	}
	written = written[settle*int(gatherFor*interval/window):]
	mean := 0
	for _, n := range written {
		mean += n
	}
	mean /= len(written)
	if most := slices.Max(written); mean < 400 || most > 2*mean {
		t.Errorf("%d uses are written in a window, and %d at most", mean, most)
	}
	if oldest > 55*time.Second {
		t.Errorf("a use was on no disk for %s", oldest)
	}
	t.Logf("%d uses in a window, at most %d; the oldest was %s old", mean, slices.Max(written), oldest)
}
