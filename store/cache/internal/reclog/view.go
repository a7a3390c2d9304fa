package reclog

import "sync/atomic"

// view is an index and its segments as readers without the lock see them. They may miss a record that is just being
// written or moved, and see one that has just been taken out; what they see is whole.
type view struct {
	slots    []uint64
	shift    int
	segments [][]byte // to their ends, full or not
	number   uint64   // of the first
}

// show has readers see the present index and segments.
func (l *Log) show() {
	v := &view{slots: l.index.slots, shift: l.index.shift, number: l.first, segments: make([][]byte, len(l.segments))}
	for i, g := range l.segments {
		v.segments[i] = g[:cap(g)]
	}
	l.view.Store(v)
	l.viewed = l.index.made
}

// begin is the slot where a search for a record begins.
func (v *view) begin(id uint64) uint64 { return tagOf(id) >> v.shift }

// start reads that slot: memory that it may have to wait for.
func (v *view) start(id uint64) uint64 { return atomic.LoadUint64(&v.slots[v.begin(id)]) }

// find returns a record; nil: there is none in view.
func (v *view) find(id uint64) Record {
	for i := v.begin(id); ; i++ {
		b, more := v.at(i, id)
		if b != nil {
			if r := whole(b); r != nil && r.ID() == id {
				return r
			}
		}
		if !more {
			return nil
		}
	}
}

// likely returns the bytes where a record begins in all likelihood, without a look at it; nil: it is not in view.
func (v *view) likely(id uint64) []byte {
	for i := v.begin(id); ; i++ {
		if b, more := v.at(i, id); b != nil || !more {
			return b
		}
	}
}

// at returns the bytes where the record of a slot begins, if that may be the one, and whether there may be others.
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
	return v.segments[n][int(place&offsetMask)*Align:], true
}
