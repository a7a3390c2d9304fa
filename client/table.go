package client

import (
	"sync"
	"sync/atomic"
)

// shards is how many parts a table has, so that readers on different processors seldom contend.
const shards = 64

// table is a bounded map of entries. Reading takes the read lock of one shard; a writer holds memory's lock.
type table struct {
	shard         [shards]shard
	perShard      int
	bytesPerShard int
}

type shard struct {
	mu    sync.RWMutex
	byKey map[key]*entry
	ring  []*entry // all of byKey, in the order of the clock
	hand  int
	bytes int // of all entries

	hits atomic.Uint64
	_    [64]byte // the next shard's lock is another cache line
}

func newTable(entries, bytes int) *table {
	t := &table{perShard: max(1, (entries+shards-1)/shards), bytesPerShard: bytes / shards}
	for i := range t.shard {
		t.shard[i].byKey = map[key]*entry{}
	}
	return t
}

func (t *table) of(k key) *shard { return &t.shard[k[0]%shards] }

// get returns the entry of a key, or nil.
func (t *table) get(k key) *entry {
	s := t.of(k)
	s.mu.RLock()
	e := s.byKey[k]
	s.mu.RUnlock()
	return e
}

// hit counts a hit and marks the entry as recently used.
func (t *table) hit(e *entry) {
	t.of(e.key).hits.Add(1)
	if !e.recent.Load() {
		e.recent.Store(true)
	}
}

// fits reports whether an entry is small enough to be kept.
func (t *table) fits(e *entry) bool { return e.size() <= t.bytesPerShard }

// put adds an entry that fits, and returns the removed ones: the entry of the same key, and then, while there are too
// many entries or bytes, those that are void or were not used since the clock's hand last passed (second chance).
func (t *table) put(e *entry) (gone []*entry) {
	e.bytes = e.size()
	s := t.of(e.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.byKey[e.key]; old != nil {
		s.remove(old)
		gone = append(gone, old)
	}
	for len(s.ring) > 0 && (len(s.ring) >= t.perShard || s.bytes+e.bytes > t.bytesPerShard) {
		old := s.victim()
		s.remove(old)
		gone = append(gone, old)
	}
	e.slot = len(s.ring)
	s.ring, s.byKey[e.key] = append(s.ring, e), e
	s.bytes += e.bytes
	return gone
}

// drop removes the entry of a key, unless it is the one to keep, and returns it; nil: there was none.
func (t *table) drop(k key, keep *entry) *entry {
	s := t.of(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byKey[k]
	if e == nil || e == keep {
		return nil
	}
	s.remove(e)
	return e
}

// remove takes an entry out; the last of the ring takes its place.
func (s *shard) remove(e *entry) {
	end := len(s.ring) - 1
	last := s.ring[end]
	s.ring[e.slot], last.slot = last, e.slot
	s.ring[end] = nil
	s.ring = s.ring[:end]
	if s.hand >= end {
		s.hand = 0
	}
	delete(s.byKey, e.key)
	s.bytes -= e.bytes
}

// victim advances the clock's hand, at most once around and one step: readers may mark entries as fast as it passes.
func (s *shard) victim() *entry {
	for left := len(s.ring); ; left-- {
		e := s.ring[s.hand]
		s.hand = (s.hand + 1) % len(s.ring)
		if e.void() || !e.recent.Swap(false) || left == 0 {
			return e
		}
	}
}

// clear drops everything.
func (t *table) clear() {
	for i := range t.shard {
		s := &t.shard[i]
		s.mu.Lock()
		s.byKey, s.ring, s.hand = map[key]*entry{}, nil, 0
		s.bytes = 0
		s.mu.Unlock()
	}
}

// count returns the number of entries and of hits.
func (t *table) count() (entries int, hits uint64) {
	for i := range t.shard {
		s := &t.shard[i]
		s.mu.RLock()
		entries += len(s.byKey)
		s.mu.RUnlock()
		hits += s.hits.Load()
	}
	return entries, hits
}
