package store

import (
	"sync"
	"sync/atomic"

	"patd/tokens"
)

// recordLog is memory for records, by id: an index without pointers into segments that records are appended to until they are
// full. When there is no room left the oldest segment goes, and with it what was not read since it was written; it lives on
// for as long as somebody holds a string of it. Its owner's lock guards it.
type recordLog struct {
	index    index    // where records are: see place
	segments [][]byte // the oldest first
	first    uint64   // number of the oldest
	room     int      // bytes for all of it
	size     int      // bytes of a segment
	evicted  uint64

	// gone is told of each record that leaves, from where, and moved of one that is written anew elsewhere. Either may be nil.
	gone  func(r record, from uint64)
	moved func(r record, from, to uint64)
}

const segmentsPerLog = 16

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

func (l *recordLog) init(room int) {
	l.room, l.size = room, min(max(room/segmentsPerLog, 256), maxSegment)
	l.clear()
}

// clear forgets everything, and tells nobody.
func (l *recordLog) clear() {
	l.first += uint64(len(l.segments))
	l.index, l.segments = newIndex(), nil
}

// at answers the record at a place.
func (l *recordLog) at(place uint64) record {
	g := l.segments[(place>>offsetBits-l.first)&numberMask]
	at := int(place&offsetMask) * recordAlign
	n := recordSize(g[at:])
	return record(g[at : at+n : at+n])
}

// search finds the slot of a record, and the record; -1: there is none.
func (l *recordLog) search(id uint64) (slot int, r record) {
	tag := tagOf(id)
	for i := tag >> l.index.shift; ; i = l.index.next(i) {
		v := l.index.slots[i]
		if v == slotEmpty {
			return -1, nil
		}
		if v>>placeBits != tag || v == slotDropped {
			continue
		}
		if r := l.at(v&placeMask - firstPlace); r.id() == id {
			return int(i), r
		}
	}
}

// find answers a record, and marks it as read; nil: there is none.
func (l *recordLog) find(id uint64) record {
	slot, r := l.search(id)
	if slot < 0 {
		return nil
	}
	if r.use()&useRead == 0 {
		r.setUse(r.use() | useRead)
	}
	return r
}

// remove takes a record out.
func (l *recordLog) remove(id uint64) {
	slot, r := l.search(id)
	if slot < 0 {
		return
	}
	from := l.index.slots[slot]&placeMask - firstPlace
	l.index.drop(slot)
	if l.gone != nil {
		l.gone(r, from)
	}
}

// put keeps a record of which there is none yet, and answers its place. False: it is larger than a segment, and not kept.
func (l *recordLog) put(r record) (uint64, bool) {
	if len(r) > l.size {
		return 0, false
	}
	if n := len(l.segments); n == 0 || len(l.segments[n-1])+len(r) > l.size {
		l.grow()
	}
	return l.append(r), true
}

// append writes a record to the newest segment, where there is room for it.
func (l *recordLog) append(r record) (at uint64) {
	last := len(l.segments) - 1
	at = place(l.first+uint64(last), len(l.segments[last]))
	l.index.add(tagOf(r.id()), at)
	l.segments[last] = append(l.segments[last], r...)
	return at
}

// grow begins a segment, and gives the oldest up for it where there is no more room.
func (l *recordLog) grow() {
	l.segments = append(l.segments, make([]byte, 0, l.size))
	for len(l.segments) > 2 && (l.bytes() > l.room || len(l.segments) > lastSegment) {
		l.evict()
	}
}

// evict gives the oldest segment up. What was read since it was written is written anew, as far as that fills no more
// than a part of the newest segment: it must have been read again by the next time.
func (l *recordLog) evict() {
	g, number := l.segments[0], l.first
	for at := 0; at < len(g); {
		n := recordSize(g[at:])
		r, from := record(g[at:at+n]), place(number, at)
		at += n
		slot := l.index.at(tagOf(r.id()), from)
		if slot < 0 {
			continue
		}
		l.index.drop(slot)
		if read := r.use() & useRead; read != 0 && len(l.segments[len(l.segments)-1])+n <= l.size/2 {
			to := l.append(r)
			anew := l.at(to)
			anew.setUse(anew.use() &^ useRead)
			if l.moved != nil {
				l.moved(anew, from, to)
			}
			continue
		}
		l.evicted++
		if l.gone != nil {
			l.gone(r, from)
		}
	}
	l.segments[0] = nil
	l.segments = l.segments[1:]
	l.first++
}

func (l *recordLog) bytes() int { return len(l.segments)*l.size + l.index.live*indexCost }

// shard is a part of the cache's tokens, by id.
type shard struct {
	mu      sync.Mutex
	log     recordLog
	flights flights[tokens.Credential]
	used    []tokens.ID // those whose use was noted, and is not written yet
	pending int         // how many those are, and those that noted has answered

	hits   atomic.Uint64
	misses atomic.Uint64
}

// init has uses that must leave be kept by keep.
func (s *shard) init(room int, keep func(tokens.ID, usage)) {
	s.log.gone = func(r record, _ uint64) {
		if r.use()&useNoted != 0 {
			s.pending--
			keep(tokens.ID(r.id()), r.usage())
		}
	}
	s.log.init(room)
	s.flights.clear()
}

// clear forgets everything but uses that are to be written, and keeps what is being read from being kept.
func (s *shard) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.log.segments {
		for at := 0; at < len(g) && s.pending > 0; at += recordSize(g[at:]) {
			if r := record(g[at:]); r.use()&useNoted != 0 {
				s.log.remove(r.id())
			}
		}
	}
	s.used = nil
	s.log.clear()
	s.flights.clear()
}

// put keeps the record of a token, in place of an older one, with the later use of the two.
func (s *shard) put(r record) {
	if _, old := s.log.search(r.id()); old != nil {
		if u := old.usage(); old.use()&useNoted != 0 && u.us > r.usage().us {
			r.setUsage(u, useNoted)
			old.setUse(old.use() &^ useNoted)
		}
		s.log.remove(r.id())
	}
	if _, ok := s.log.put(r); !ok {
		s.log.gone(r, 0)
	}
}

// drop forgets a token, and keeps what is being read of it from being kept.
func (s *shard) drop(id tokens.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log.remove(uint64(id))
	s.flights.drop(id)
}

// note notes a use of a token, unless a later one is known. False: the token is not here.
func (s *shard) note(id tokens.ID, u usage) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot, r := s.log.search(uint64(id))
	if slot < 0 {
		return false
	}
	known := r.use()
	if int64(known>>useBits) >= u.us {
		return true
	}
	if known&useNoted == 0 {
		s.pending++
		s.used = append(s.used, id)
	}
	r.setUsage(u, useNoted|useRead)
	return true
}

// takeUse takes the use of a token, to be written.
func (s *shard) takeUse(id tokens.ID) (usage, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot, r := s.log.search(uint64(id))
	if slot < 0 || r.use()&useNoted == 0 {
		return usage{}, false
	}
	r.setUse(r.use() &^ useNoted)
	s.pending--
	return r.usage(), true
}

func (s *shard) usesNoted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending
}

func (s *shard) noted(ids []tokens.ID) []tokens.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids = append(ids, s.used...)
	s.used = s.used[:0]
	return ids
}

func (s *shard) renote(id tokens.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slot, r := s.log.search(uint64(id)); slot >= 0 && r.use()&useNoted != 0 {
		s.used = append(s.used, id)
	}
}
