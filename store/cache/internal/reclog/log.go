package reclog

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
)

// Log keeps records by id. Init makes it ready. The owner's lock guards it, but for Look and Want.
type Log struct {
	index    Index    // where records are: see place
	segments [][]byte // the oldest first
	first    uint64   // number of the oldest
	room     int      // bytes for all of it
	size     int      // bytes of a segment
	evicted  uint64

	gone  func(r Record, from uint64)
	moved func(r Record, from, to uint64)

	view   atomic.Pointer[view]
	viewed int // index.made of what is in view
}

// Config configures a Log.
type Config struct {
	// Room bounds the memory, in bytes.
	Room int
	// Gone is called with each record that leaves, and its place; Moved with each that is written again elsewhere.
	// Clear calls neither. Either may be nil.
	Gone  func(r Record, from uint64)
	Moved func(r Record, from, to uint64)
}

const (
	segmentsPerLog = 32
	fewSegments    = 4        // in a small log, so that larger records have room in it
	goodSegment    = 64 << 10 // for those
	minSegment     = 512
)

// A place is a segment's number, as far as that tells it from the others there are, and where in it a record begins.
const (
	offsetBits  = 24
	offsetMask  = 1<<offsetBits - 1
	numberMask  = 1<<(placeBits-offsetBits) - 1
	maxSegment  = (1<<offsetBits - 4) * Align
	lastSegment = numberMask - 1 // there are never more
)

func place(number uint64, at int) uint64 {
	return number&numberMask<<offsetBits | uint64(at/Align)
}

// Init makes an empty log.
func (l *Log) Init(c Config) {
	l.gone, l.moved = c.Gone, c.Moved
	l.room = c.Room
	l.size = min(max(c.Room/segmentsPerLog, min(c.Room/fewSegments, goodSegment), minSegment), maxSegment)
	l.Clear()
}

// Clear drops everything.
func (l *Log) Clear() {
	l.first += uint64(len(l.segments))
	l.index, l.segments = NewIndex(), nil
	l.show()
}

// Look returns a record, and marks it as read; nil: there is none. It takes the owner's lock, mu, only if there is none
// in view.
func (l *Log) Look(mu *sync.Mutex, id uint64) Record {
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

// Find returns a record; nil: there is none.
func (l *Log) Find(id uint64) Record {
	_, r := l.search(id)
	return r
}

// At returns the record at a place, where there is one.
func (l *Log) At(place uint64) Record {
	g := l.segments[(place>>offsetBits-l.first)&numberMask]
	return whole(g[int(place&offsetMask)*Align:])
}

// search returns a record and its slot; -1: there is none.
func (l *Log) search(id uint64) (slot int, r Record) {
	tag := tagOf(id)
	for i := tag >> l.index.shift; ; i = l.index.next(i) {
		v := l.index.slots[i]
		if v == slotEmpty {
			return -1, nil
		}
		if v>>placeBits != tag || v == slotDropped {
			continue
		}
		if r := l.At(v&placeMask - firstPlace); r.ID() == id {
			return int(i), r
		}
	}
}

// Each calls f with every record that is in memory, also those that were removed and those that others have replaced,
// until it returns false. f may remove records.
func (l *Log) Each(f func(Record) bool) {
	for _, g := range l.segments {
		for at := 0; at < len(g); {
			r := whole(g[at:])
			if at += len(r); !f(r) {
				return
			}
		}
	}
}

// Remove takes a record out.
func (l *Log) Remove(id uint64) {
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

// Put keeps a record whose id has none yet, and returns its place. False: it is larger than half a segment, and not
// kept; half of a new one may be records of an old one.
func (l *Log) Put(r Record) (uint64, bool) {
	if len(r) > l.size/2 {
		return 0, false
	}
	if n := len(l.segments); n == 0 || len(l.segments[n-1])+len(r) > l.size {
		l.grow()
	}
	return l.append(r), true
}

// append writes a record to the newest segment, where there is room for it.
func (l *Log) append(r Record) (at uint64) {
	last := len(l.segments) - 1
	at = place(l.first+uint64(last), len(l.segments[last]))
	g := append(l.segments[last], r[:marksAt]...)
	g = binary.NativeEndian.AppendUint64(g, r.Marks()) // which others may be changing
	l.segments[last] = append(g, r[MarksEnd:]...)
	l.index.Add(tagOf(r.ID()), at)
	if l.index.made != l.viewed {
		l.show()
	}
	return at
}

// grow begins a segment, and gives the oldest up for it where there is no more room.
func (l *Log) grow() {
	l.segments = append(l.segments, make([]byte, 0, l.size))
	for len(l.segments) > 2 && (l.bytes() > l.room || len(l.segments) > lastSegment) {
		l.evict()
	}
	l.show()
}

// evict gives the oldest segment up. Records that were read since they were written are written again, as far as they
// fill no more than a part of the newest segment: they must have been read again by the next time.
func (l *Log) evict() {
	g, number := l.segments[0], l.first
	for at := 0; at < len(g); {
		r, from := whole(g[at:]), place(number, at)
		at += len(r)
		slot := l.index.at(tagOf(r.ID()), from)
		if slot < 0 {
			continue
		}
		l.index.drop(slot)
		if r.Marks()&Read != 0 && len(l.segments[len(l.segments)-1])+len(r) <= l.size/2 {
			to := l.append(r)
			again := l.At(to)
			again.SetMarks(again.Marks() &^ Read)
			if l.moved != nil {
				l.moved(again, from, to)
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

func (l *Log) bytes() int { return len(l.segments)*l.size + l.index.live*indexCost }

// Stats are figures of a Log.
type Stats struct {
	Records int
	Bytes   int    // about the memory that they take
	Evicted uint64 // records that went for want of room
}

// Stats returns figures about the log.
func (l *Log) Stats() Stats {
	return Stats{Records: l.index.live, Bytes: l.bytes(), Evicted: l.evicted}
}
