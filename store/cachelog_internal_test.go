package store

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"patd/tokens"
)

// idOfTag is an id with a tag: a multiple of the inverse of the multiplier that makes tags.
func idOfTag(tag, n uint64) uint64 {
	inverse := uint64(golden)
	for range 6 { // Newton's method doubles the bits that are right
		inverse *= 2 - golden*inverse
	}
	return (tag<<placeBits | n) * inverse
}

func aRecord(id uint64) record { return recordOf(id, recordText+8) }

// recordOf is a record of n bytes, whose user and text tell whose it is.
func recordOf(id uint64, n int) record {
	b := make([]byte, n)
	binary.LittleEndian.PutUint64(b[recordID:], id)
	binary.LittleEndian.PutUint64(b[recordUser:], id)
	if n > recordText {
		b[recordText] = byte(id)
	}
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

// TestNoUseIsLostWhateverBecomesOfItsToken has tokens come, go, be used, be evicted and be written at random: each use is in its
// record, was handed on, or was taken to be written, and the shard knows how many wait.
func TestNoUseIsLostWhateverBecomesOfItsToken(t *testing.T) {
	for seed := range uint64(1000) {
		u := newUsesModel(seed)
		for range 400 {
			u.step()
			if why := u.wrong(); why != "" {
				t.Fatalf("seed %d: %s", seed, why)
			}
		}
	}
}

type usesModel struct {
	shard
	rnd                 *rand.Rand
	now                 int64
	kept, written, want map[tokens.ID]int64
	left                []tokens.ID // to be written
}

func newUsesModel(seed uint64) *usesModel {
	m := &usesModel{
		rnd: rand.New(rand.NewPCG(seed, 1)), kept: map[tokens.ID]int64{}, written: map[tokens.ID]int64{}, want: map[tokens.ID]int64{},
	}
	m.init(4<<10, func(id tokens.ID, u usage) { m.kept[id] = max(m.kept[id], u.us) })
	return m
}

func (m *usesModel) step() {
	id := tokens.ID(m.rnd.IntN(30) + 1)
	switch op := m.rnd.IntN(100); {
	case op < 35:
		m.mu.Lock()
		defer m.mu.Unlock()
		m.put(recordOf(uint64(id), []int{96, 104, 200, 256, 264, 800}[m.rnd.IntN(6)]))
	case op < 70:
		m.now++
		if m.note(id, usage{us: m.now - int64(m.rnd.IntN(3))}) {
			_, r := m.log.search(uint64(id))
			m.want[id] = max(m.want[id], r.usage().us)
		}
	case op < 80:
		m.drop(id)
	case op < 81:
		m.clear()
	case op < 85:
		m.log.look(&m.mu, uint64(id))
	case op < 90:
		m.left = m.noted(m.left)
	case op < 97:
		if len(m.left) == 0 {
			return
		}
		id, m.left = m.left[0], m.left[1:]
		if u, ok := m.takeUse(id); ok {
			m.written[id] = max(m.written[id], u.us)
		}
	default:
		for _, id := range m.left {
			m.renote(id)
		}
		m.left = nil
	}
}

func (m *usesModel) wrong() string {
	flagged := 0
	for id := range tokens.ID(31) {
		slot, r := m.log.search(uint64(id))
		if v := m.log.view.Load().find(uint64(id)); (v == nil) != (slot < 0) || slot >= 0 && &v[0] != &r[0] {
			return "view and index differ"
		}
		have := max(m.kept[id], m.written[id])
		if slot >= 0 && r.use()&useNoted != 0 {
			flagged++
			have = max(have, r.usage().us)
			if !slices.Contains(m.used, id) && !slices.Contains(m.left, id) {
				return "a use is noted, and will not be asked for"
			}
		}
		if have < m.want[id] {
			return "a use is lost"
		}
	}
	if flagged != m.pending {
		return "it does not know how many uses wait"
	}
	return ""
}

// TestReadersWithoutTheLockSeeWholeRecords has records come, go, be moved and all be forgotten while others read.
func TestReadersWithoutTheLockSeeWholeRecords(t *testing.T) {
	var l recordLog
	l.init(16 << 10)
	var mu sync.Mutex
	var over atomic.Bool
	var readers sync.WaitGroup
	for w := range uint64(3) {
		readers.Go(func() {
			rnd := rand.New(rand.NewPCG(w, 2))
			for !over.Load() {
				id := rnd.Uint64N(400) + 1
				if r := l.look(&mu, id); r != nil && (r.id() != id || r[recordText] != byte(id) || r.userKey() != int64(id)) {
					t.Error("another's record")
				}
				prefetch([]wanted{{view: l.view.Load(), id: id}})
			}
		})
	}
	rnd := rand.New(rand.NewPCG(9, 9))
	for range 200_000 {
		id := rnd.Uint64N(400) + 1
		mu.Lock()
		switch op := rnd.IntN(1000); {
		case op < 600:
			if slot, _ := l.search(id); slot < 0 {
				l.put(recordOf(id, recordText+8*(1+rnd.IntN(30))))
			}
		case op < 999:
			l.remove(id)
		default:
			l.clear()
		}
		mu.Unlock()
	}
	over.Store(true)
	readers.Wait()
}

// TestAReaderThatRestsLongFindsNothing begins as many segments as numbers tell apart while a reader holds a view.
func TestAReaderThatRestsLongFindsNothing(t *testing.T) {
	var l recordLog
	l.init(8 << 10)
	l.put(recordOf(100, 120))
	v, made := l.view.Load(), l.index.made
	for newest := func() uint64 { return l.first + uint64(len(l.segments)) - 1 }; newest() != v.number+numberMask+1; {
		l.remove(7)
		l.put(recordOf(7, 256))
	}
	for range 5 {
		l.remove(7)
		l.put(recordOf(7, 256))
		if r := v.find(7); r != nil || l.index.made != made {
			t.Errorf("found %x in a segment that is gone; the index was made %d times", r, l.index.made-made)
		}
	}
}

// TestUsersAreForgottenByTheirIDs has users come, go, be evicted and be forgotten by ids that several had.
func TestUsersAreForgottenByTheirIDs(t *testing.T) {
	const keys, ids = 150, 40
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		var u users
		u.init(32 << 10)
		idOf := func(key int64) string { return "user" + string(rune('a'+key%ids)) }
		for range 1500 {
			key := rnd.Int64N(keys) + 1
			switch op := rnd.IntN(100); {
			case op < 60:
				f := []string{"a", "b", "c", "d"}[:rnd.IntN(5)]
				u.put(tokens.User{Key: key, ID: idOf(key), Features: f, State: tokens.UserActive}, u.seq.Load())
			case op < 99:
				u.drop(idOf(key))
				for k := key % ids; k <= keys; k += ids {
					if k > 0 && u.get(k, new(tokens.User)) {
						t.Fatal("a user that was forgotten is there")
					}
				}
			default:
				u.clear()
			}
			for k := range int64(keys) {
				var got tokens.User
				if u.get(k+1, &got) && (got.Key != k+1 || got.ID != idOf(k+1)) {
					t.Fatal("another user")
				}
			}
			for i := range u.shards {
				if a, b := u.shards[i].log.index.live, u.shards[i].byID.live; a != b {
					t.Fatalf("%d records, %d by id", a, b)
				}
			}
		}
	}
}
