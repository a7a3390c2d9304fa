package store

import (
	"sync"
	"sync/atomic"

	"patd/tokens"
)

// segment is a piece of a shard's memory. Records are appended to it until it is full; it goes as a whole, and lives on
// for as long as somebody holds a string of it.
type segment struct {
	bytes []byte
	used  []uint64 // a bit for each usedGrain bytes: the record that begins there was read
}

// usedGrain is less than a record.
const usedGrain = 64

func newSegment(size int) *segment {
	return &segment{bytes: make([]byte, 0, size), used: make([]uint64, size/usedGrain/64+1)}
}

func (g *segment) mark(at int)        { g.used[at/usedGrain/64] |= 1 << (at / usedGrain % 64) }
func (g *segment) marked(at int) bool { return g.used[at/usedGrain/64]&(1<<(at/usedGrain%64)) != 0 }

// shard is a part of the cache's tokens, by id: an index without pointers into a log of records. When there is no room
// left the oldest segment goes, and with it what was not read since it was written.
type shard struct {
	mu      sync.Mutex
	index   index      // where records are: see place
	log     []*segment // the oldest first
	first   uint64     // number of the oldest
	room    int        // bytes for log and index
	size    int        // bytes of a segment
	flights flights[tokens.Credential]

	evicted uint64
	hits    atomic.Uint64
	misses  atomic.Uint64
}

const segmentsPerShard = 16

// A place is a segment's number, as far as that tells it from the others there are, and where in it a record begins.
const (
	offsetBits  = 28
	offsetMask  = 1<<offsetBits - 1
	numberMask  = 1<<(placeBits-offsetBits) - 1
	maxSegment  = (1<<offsetBits - 4) * recordAlign
	lastSegment = numberMask - 1 // more there never are
)

func place(number uint64, at int) uint64 {
	return number&numberMask<<offsetBits | uint64(at/recordAlign)
}

func (s *shard) init(room int) {
	s.room, s.size = room, min(max(room/segmentsPerShard, 256), maxSegment)
	s.clear()
}

// clear forgets everything, and keeps what is being read from being kept.
func (s *shard) clear() {
	s.first += uint64(len(s.log))
	s.index, s.log = newIndex(), nil
	s.flights.clear()
}

// at answers what begins at a place.
func (s *shard) at(place uint64) (*segment, int) {
	return s.log[(place>>offsetBits-s.first)&numberMask], int(place&offsetMask) * recordAlign
}

// search finds the slot of a token's record, and the record; -1: there is none.
func (s *shard) search(id tokens.ID) (slot int, g *segment, at int) {
	tag := tagOf(id)
	for i := tag >> s.index.shift; ; i = s.index.next(i) {
		v := s.index.slots[i]
		if v == slotEmpty {
			return -1, nil, 0
		}
		if v>>placeBits != tag || v == slotDropped {
			continue
		}
		g, at := s.at(v&placeMask - firstPlace)
		if record(g.bytes[at:]).id() == id {
			return int(i), g, at
		}
	}
}

// find answers the record of a token; nil: there is none.
func (s *shard) find(id tokens.ID) record {
	slot, g, at := s.search(id)
	if slot < 0 {
		return nil
	}
	g.mark(at)
	n := recordSize(g.bytes[at:])
	return record(g.bytes[at : at+n : at+n])
}

// remove takes a token's record out of the index.
func (s *shard) remove(id tokens.ID) {
	if slot, _, _ := s.search(id); slot >= 0 {
		s.index.drop(slot)
	}
}

// put keeps a record. One that is larger than a segment is not kept.
func (s *shard) put(r record) {
	if len(r) > s.size {
		return
	}
	s.remove(r.id())
	if n := len(s.log); n == 0 || len(s.log[n-1].bytes)+len(r) > s.size {
		s.grow()
	}
	s.append(r)
}

// append writes a record to the newest segment, where there is room for it.
func (s *shard) append(r record) {
	last := len(s.log) - 1
	g := s.log[last]
	s.index.add(tagOf(r.id()), place(s.first+uint64(last), len(g.bytes)))
	g.bytes = append(g.bytes, r...)
}

// grow begins a segment, and gives the oldest up for it where there is no more room.
func (s *shard) grow() {
	s.log = append(s.log, newSegment(s.size))
	for len(s.log) > 2 && (s.bytes() > s.room || len(s.log) > lastSegment) {
		s.evict()
	}
}

// evict gives the oldest segment up. What was read since it was written is written anew, as far as that fills no more
// than a part of the newest segment: it must have been read again by the next time.
func (s *shard) evict() {
	g, number := s.log[0], s.first
	for at := 0; at < len(g.bytes); {
		n := recordSize(g.bytes[at:])
		r := record(g.bytes[at : at+n])
		if slot := s.index.at(tagOf(r.id()), place(number, at)); slot >= 0 {
			s.index.drop(slot)
			newest := s.log[len(s.log)-1]
			if g.marked(at) && len(newest.bytes)+n <= s.size/2 {
				s.append(r)
			} else {
				s.evicted++
			}
		}
		at += n
	}
	s.log[0] = nil
	s.log = s.log[1:]
	s.first++
}

// drop forgets a token, and keeps what is being read of it from being kept.
func (s *shard) drop(id tokens.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(id)
	s.flights.drop(id)
}

func (s *shard) bytes() int { return len(s.log)*s.size + s.index.live*indexCost }
