package reclog

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// idOfTag is an id with a tag: a multiple of the inverse of the multiplier that makes tags.
func idOfTag(tag, n uint64) uint64 {
	inverse := uint64(golden)
	for range 6 { // Newton's method doubles the bits that are right
		inverse *= 2 - golden*inverse
	}
	return (tag<<placeBits | n) * inverse
}

func aRecord(id uint64) Record { return recordOf(id, 104) }

// Where the records of tests have their id again, and a byte of it at the end of the least of them.
const (
	againAt = 40
	lastAt  = 96
)

// recordOf is a record of n bytes, whose content shows whose it is.
func recordOf(id uint64, n int) Record {
	b := make([]byte, n)
	binary.LittleEndian.PutUint64(b[againAt:], id)
	if n > lastAt {
		b[lastAt] = byte(id)
	}
	return Make(b, id)
}

// TestRecordsAreFoundWhateverTheirTags has ids whose tags are the least and the greatest there are, which must not be
// taken for empty or dropped slots, and many ids of one tag.
func TestRecordsAreFoundWhateverTheirTags(t *testing.T) {
	var l Log
	l.Init(Config{Room: 1 << 20})
	absent := func(id uint64) {
		t.Helper()
		if l.Find(id) != nil || l.view.Load().find(id) != nil {
			t.Errorf("%x of tag %x is found, and is not there", id, tagOf(id))
		}
	}
	present := func(id uint64) {
		t.Helper()
		r := l.Find(id)
		seen := l.view.Load().find(id)
		if r == nil || r.ID() != id || seen == nil || seen.ID() != id || l.view.Load().likely(id) == nil {
			t.Errorf("%x of tag %x is not found", id, tagOf(id))
		}
	}
	var ids []uint64
	for _, tag := range []uint64{0, 1, 1<<tagBits - 1} {
		for n := range uint64(40) {
			id := idOfTag(tag, n+1)
			if tagOf(id) != tag {
				t.Fatalf("tag %x of %x, want %x", tagOf(id), id, tag)
			}
			ids = append(ids, id)
			absent(id)
		}
	}
	for round := range 3 {
		for _, id := range ids {
			absent(id)
			if _, ok := l.Put(aRecord(id)); !ok {
				t.Fatal("there is no room")
			}
			present(id)
		}
		for i, id := range ids {
			if i%3 != round {
				l.Remove(id)
			}
		}
		for i, id := range ids {
			if i%3 == round {
				present(id)
				l.Remove(id)
			}
		}
	}
}

// TestReadersWithoutTheLockSeeWholeRecords has records come, go, be moved and all be forgotten while others read.
func TestReadersWithoutTheLockSeeWholeRecords(t *testing.T) {
	var l Log
	l.Init(Config{Room: 16 << 10})
	var mu sync.Mutex
	var over atomic.Bool
	var readers sync.WaitGroup
	for w := range uint64(3) {
		readers.Go(func() {
			rnd := rand.New(rand.NewPCG(w, 2))
			for !over.Load() {
				id := rnd.Uint64N(400) + 1
				if r := l.Look(
					&mu,
					id,
				); r != nil &&
					(r.ID() != id || r[lastAt] != byte(id) || binary.LittleEndian.Uint64(r[againAt:]) != id) {
					t.Error("another's record")
				}
				Prefetch([]Wanted{l.Want(id)})
			}
		})
	}
	rnd := rand.New(rand.NewPCG(9, 9))
	for range 200_000 {
		id := rnd.Uint64N(400) + 1
		mu.Lock()
		switch op := rnd.IntN(1000); {
		case op < 600:
			if l.Find(id) == nil {
				l.Put(recordOf(id, lastAt+8*(1+rnd.IntN(30))))
			}
		case op < 999:
			l.Remove(id)
		default:
			l.Clear()
		}
		mu.Unlock()
	}
	over.Store(true)
	readers.Wait()
}

// TestAReaderThatRestsLongFindsNothing begins as many segments as numbers tell apart while a reader holds a view.
func TestAReaderThatRestsLongFindsNothing(t *testing.T) {
	var l Log
	l.Init(Config{Room: 8 << 10})
	l.Put(recordOf(100, 120))
	v, made := l.view.Load(), l.index.made
	for newest := func() uint64 { return l.first + uint64(len(l.segments)) - 1 }; newest() != v.number+numberMask+1; {
		l.Remove(7)
		l.Put(recordOf(7, 256))
	}
	for range 5 {
		l.Remove(7)
		l.Put(recordOf(7, 256))
		if r := v.find(7); r != nil || l.index.made != made {
			t.Errorf("found %x in a segment that is gone; the index was made %d times", r, l.index.made-made)
		}
	}
}
