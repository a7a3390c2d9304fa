package store

import (
	"encoding/binary"
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

func aRecord(id uint64) record {
	b := make([]byte, recordText+8)
	binary.LittleEndian.PutUint64(b[recordID:], id)
	return sized(b, 0)
}

// TestRecordsAreFoundWhateverTheirTags has ids whose tags are the least and the greatest there are, where marks of empty and
// dropped slots are no tags, and many ids of one tag.
func TestRecordsAreFoundWhateverTheirTags(t *testing.T) {
	var l recordLog
	l.init(1 << 20)
	absent := func(id uint64) {
		t.Helper()
		if slot, _ := l.search(id); slot >= 0 || l.view.Load().find(id) != nil {
			t.Errorf("%x of tag %x is found, and is not there", id, tagOf(id))
		}
	}
	present := func(id uint64) {
		t.Helper()
		_, r := l.search(id)
		seen := l.view.Load().find(id)
		if r == nil || r.id() != id || seen == nil || seen.id() != id || l.view.Load().likely(id) == nil {
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
			if _, ok := l.put(aRecord(id)); !ok {
				t.Fatal("there is no room")
			}
			present(id)
		}
		for i, id := range ids {
			if i%3 != round {
				l.remove(id)
			}
		}
		for i, id := range ids {
			if i%3 == round {
				present(id)
				l.remove(id)
			}
		}
	}
}
