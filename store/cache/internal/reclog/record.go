package reclog

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"
)

// The layout of a record:
//
//	 0  size of the whole, 4 bytes, a multiple of Align
//	 4  the owner's, 4 bytes
//	 8  id
//	16  marks, an integer that is changed under the owner's lock, but for Read
//	24  the owner's, who may change 16 bytes here, under its lock
//	40  the owner's, never written again, but for words that the owner changes under its lock by SetWord
const (
	idAt    = 8
	marksAt = 16
	// MarksEnd is where the marks end: from here on a record is its owner's.
	MarksEnd = 24

	// MinSize is the least size of a record, in bytes.
	MinSize = 48
	// Align is what sizes and places of records are multiples of.
	Align = 8
)

// Read is the mark of a record that was read since it was written. The other marks are the owner's.
const Read = 1 << 6

// Record is a record: see the layout. Its capacity is its size.
type Record []byte

// Make makes a record of b, which has room for the layout: it fills it up to a multiple of Align, and writes size and
// id.
func Make(b []byte, id uint64) Record {
	for len(b)%Align != 0 {
		b = append(b, 0)
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	binary.LittleEndian.PutUint64(b[idAt:], id)
	return b
}

// ID is the record's id.
func (r Record) ID() uint64 { return binary.LittleEndian.Uint64(r[idAt:]) }

// marks is where the marks are: records begin at multiples of eight bytes.
func (r Record) marks() *uint64 { return (*uint64)(unsafe.Pointer(&r[marksAt])) } //nolint:gosec // see above

// Marks returns the marks.
func (r Record) Marks() uint64 { return atomic.LoadUint64(r.marks()) }

// SetMarks replaces the marks. The caller has the owner's lock.
func (r Record) SetMarks(to uint64) { atomic.StoreUint64(r.marks(), to) }

// word is where 8 bytes of the record are.
func (r Record) word(at int) *uint64 { return (*uint64)(unsafe.Pointer(&r[at&^(Align-1)])) } //nolint:gosec // see marks

// Word returns the 8 bytes at a place that is a multiple of Align.
func (r Record) Word(at int) uint64 { return atomic.LoadUint64(r.word(at)) }

// SetWord replaces the 8 bytes at a place that is a multiple of Align. The caller has the owner's lock.
func (r Record) SetWord(at int, to uint64) { atomic.StoreUint64(r.word(at), to) }

// markRead notes that the record was read. It needs no lock: to lose the mark to a change by another does no harm.
func (r Record) markRead() {
	if marks := r.Marks(); marks&Read == 0 {
		atomic.CompareAndSwapUint64(r.marks(), marks, marks|Read)
	}
}

// whole is the record that begins b; nil: none does. A reader without the lock that rests for so long that numbers of
// segments are given again reads where none begins.
func whole(b []byte) Record {
	if len(b) < MinSize {
		return nil
	}
	n := int(binary.LittleEndian.Uint32(b))
	if n < MinSize || n > len(b) {
		return nil
	}
	return Record(b[:n:n])
}
