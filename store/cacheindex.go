package store

import "sync/atomic"

// index finds the places of records by the hashes of their ids: a table with open addressing, of eight bytes an entry and
// without pointers. A look touches one line of memory, mostly, and then the record itself, which tells whether it is the
// one.
//
// Who changes it has its owner's lock, and so has whoever calls a method; others read slots by themselves, see view.
//
// An entry is a tag, the top bits of the hash, and a place. The entry's own place in the table follows from the tag, so
// that a table grows without a look at the records.
type index struct {
	slots []uint64
	shift int // of a tag, to where it begins to look
	made  int // counts tables
	live  int
	taken int // live, or dropped and in the way of others
}

const (
	tagBits   = 24
	placeBits = 64 - tagBits
	placeMask = 1<<placeBits - 1

	slotEmpty   = 0
	slotDropped = 1
	firstPlace  = 2 // places are kept plus this

	// indexCost is about what an entry takes, in bytes, and a place in the list of those that were used.
	indexCost = 24
	minIndex  = 64
)

const golden = 0x9e3779b97f4a7c15 // spreads ids, which begin with the time

func tagOf(id uint64) uint64 { return id * golden >> placeBits }

func newIndex() index { return index{slots: make([]uint64, minIndex), shift: tagBits - 6} }

// next is where to go on looking.
func (x *index) next(i uint64) uint64 { return (i + 1) & uint64(len(x.slots)-1) }

// at finds the slot that holds exactly that place; -1: none does.
func (x *index) at(tag, place uint64) int {
	want := tag<<placeBits | place + firstPlace
	for i := tag >> x.shift; ; i = x.next(i) {
		switch x.slots[i] {
		case want:
			return int(i)
		case slotEmpty:
			return -1
		}
	}
}

// each calls f with every place under a tag. f does not change the index.
func (x *index) each(tag uint64, f func(place uint64)) {
	for i := tag >> x.shift; x.slots[i] != slotEmpty; i = x.next(i) {
		if v := x.slots[i]; v>>placeBits == tag && v != slotDropped {
			f(v&placeMask - firstPlace)
		}
	}
}

// remove takes out a place under a tag, if it is there.
func (x *index) remove(tag, place uint64) {
	if i := x.at(tag, place); i >= 0 {
		x.drop(i)
	}
}

// add takes a place in, under a tag; there may be others under it.
func (x *index) add(tag, place uint64) {
	if x.taken*4 >= len(x.slots)*3 {
		x.rebuild()
	}
	i := tag >> x.shift
	for x.slots[i] > slotDropped {
		i = x.next(i)
	}
	if x.slots[i] == slotEmpty {
		x.taken++
	}
	x.live++
	atomic.StoreUint64(&x.slots[i], tag<<placeBits|place+firstPlace)
}

// drop empties a slot.
func (x *index) drop(i int) {
	x.live--
	if x.slots[x.next(uint64(i))] == slotEmpty { // nobody looks past it
		atomic.StoreUint64(&x.slots[i], slotEmpty)
		x.taken--
		return
	}
	atomic.StoreUint64(&x.slots[i], slotDropped)
}

// rebuild makes room: a larger table, or one without what was dropped.
func (x *index) rebuild() {
	old := x.slots
	if x.live*2 >= len(old) && x.shift > 0 {
		x.slots = make([]uint64, 2*len(old))
		x.shift--
	} else {
		x.slots = make([]uint64, len(old))
	}
	x.live, x.taken = 0, 0
	x.made++
	for _, v := range old {
		if v > slotDropped {
			x.add(v>>placeBits, v&placeMask-firstPlace)
		}
	}
}
