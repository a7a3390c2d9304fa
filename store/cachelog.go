package store

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"patd/tokens"
)

// recordLog is memory for records, by id: an index without pointers into segments that records are appended to until they are
// full. When there is no room left the oldest segment goes, and with it what was not read since it was written; it lives on
// for as long as somebody holds a string of it.
//
// Its owner's lock guards it, but for what is in view: that is read without.
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

	view atomic.Pointer[view]
	seen int // index.made of what is in view
}

// view is an index and its segments as readers without the lock see them. They may miss a record that is just being written or
// moved, and see one that has just been taken out; what they see is whole.
type view struct {
	slots    []uint64
	shift    int
	segments [][]byte // to their ends, full or not
	number   uint64   // of the first
}

// show has readers see the index and the segments there are now.
func (l *recordLog) show() {
	v := &view{slots: l.index.slots, shift: l.index.shift, number: l.first, segments: make([][]byte, len(l.segments))}
	for i, g := range l.segments {
		v.segments[i] = g[:cap(g)]
	}
	l.view.Store(v)
	l.seen = l.index.made
}

// start is where a look for a record begins: memory that it may have to wait for.
func (v *view) start(id uint64) uint64 { return atomic.LoadUint64(&v.slots[v.begin(id)]) }

// find answers a record; nil: there is none in view.
func (v *view) find(id uint64) record {
	for i := v.begin(id); ; i++ {
		b, more := v.at(i, id)
		if b != nil {
			if r := whole(b); r != nil && r.id() == id {
				return r
			}
		}
		if !more {
			return nil
		}
	}
}

// begin is where a look for a record begins.
func (v *view) begin(id uint64) uint64 { return tagOf(id) >> v.shift }

// likely answers where a record is in all likelihood, without a look at it; nil: it is not in view.
func (v *view) likely(id uint64) []byte {
	for i := v.begin(id); ; i++ {
		if b, more := v.at(i, id); b != nil || !more {
			return b
		}
	}
}

// at answers where the record of a slot begins, if that may be the one, and whether there may be others.
func (v *view) at(i, id uint64) (b []byte, more bool) {
	slot := atomic.LoadUint64(&v.slots[i&uint64(len(v.slots)-1)])
	switch {
	case slot == slotEmpty:
		return nil, false
	case slot == slotDropped, slot>>placeBits != tagOf(id):
		return nil, true
	}
	place := slot&placeMask - firstPlace
	n := (place>>offsetBits - v.number) & numberMask
	if n >= uint64(len(v.segments)) {
		return nil, true
	}
	return v.segments[n][int(place&offsetMask)*recordAlign:], true
}

// look answers a record, and marks it as read; nil: there is none. It takes the lock, mu, only if there is none in view.
func (l *recordLog) look(mu *sync.Mutex, id uint64) record {
	r := l.view.Load().find(id)
	if r == nil {
		mu.Lock()
		_, r = l.search(id)
		mu.Unlock()
	}
	if r != nil {
		r.markRead()
	}
	return r
}

const (
	segmentsPerLog = 16
	fewSegments    = 4        // in a small log, so that larger records have room in it
	goodSegment    = 64 << 10 // for those
	minSegment     = 512
)

// A place is a segment's number, as far as that tells it from the others there are, and where in it a record begins.
const (
	offsetBits  = 24
	offsetMask  = 1<<offsetBits - 1
	numberMask  = 1<<(placeBits-offsetBits) - 1
	maxSegment  = (1<<offsetBits - 4) * recordAlign
	lastSegment = numberMask - 1 // more there never are
)

func place(number uint64, at int) uint64 {
	return number&numberMask<<offsetBits | uint64(at/recordAlign)
}

func (l *recordLog) init(room int) {
	l.room, l.size = room, min(max(room/segmentsPerLog, min(room/fewSegments, goodSegment), minSegment), maxSegment)
	l.clear()
}

// clear forgets everything, and tells nobody.
func (l *recordLog) clear() {
	l.first += uint64(len(l.segments))
	l.index, l.segments = newIndex(), nil
	l.show()
}

// at answers the record at a place.
func (l *recordLog) at(place uint64) record {
	g := l.segments[(place>>offsetBits-l.first)&numberMask]
	return whole(g[int(place&offsetMask)*recordAlign:])
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

// put keeps a record of which there is none yet, and answers its place. False: it is larger than half a segment, and not
// kept; half of a new one may be what was kept of an old one.
func (l *recordLog) put(r record) (uint64, bool) {
	if len(r) > l.size/2 {
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
	g := append(l.segments[last], r[:recordUse]...)
	g = binary.NativeEndian.AppendUint64(g, r.use()) // which others may be marking
	l.segments[last] = append(g, r[recordUse+8:]...)
	l.index.add(tagOf(r.id()), at)
	if l.index.made != l.seen {
		l.show()
	}
	return at
}

// grow begins a segment, and gives the oldest up for it where there is no more room.
func (l *recordLog) grow() {
	l.segments = append(l.segments, make([]byte, 0, l.size))
	for len(l.segments) > 2 && (l.bytes() > l.room || len(l.segments) > lastSegment) {
		l.evict()
	}
	l.show()
}

// evict gives the oldest segment up. What was read since it was written is written anew, as far as that fills no more
// than a part of the newest segment: it must have been read again by the next time.
func (l *recordLog) evict() {
	g, number := l.segments[0], l.first
	for at := 0; at < len(g); {
		r, from := whole(g[at:]), place(number, at)
		at += len(r)
		slot := l.index.at(tagOf(r.id()), from)
		if slot < 0 {
			continue
		}
		l.index.drop(slot)
		if read := r.use() & useRead; read != 0 && len(l.segments[len(l.segments)-1])+len(r) <= l.size/2 {
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
		for at := 0; at < len(g) && s.pending > 0; {
			r := whole(g[at:])
			if at += len(r); r.use()&useNoted != 0 {
				s.log.remove(r.id())
			}
		}
	}
	s.used = nil
	s.log.clear()
	s.flights.clear()
}

// put keeps the record of a token, in place of an older one, whose use it takes over if that is to be written.
func (s *shard) put(r record) {
	if _, old := s.log.search(r.id()); old != nil {
		if old.use()&useNoted != 0 {
			r.setUsage(old.usage(), useNoted)
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
