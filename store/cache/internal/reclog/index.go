package reclog

import "sync/atomic"

// Index finds the places of records by the hashes of their ids: a table with open addressing, of eight bytes an entry
// and without pointers. A look touches one line of memory, mostly, and then the record itself, which shows whether it
// is the one. The zero value is of no use: see NewIndex.
//
// The owner's lock guards it; readers without it use a view.
//
// An entry is a tag, the top bits of the hash, and a place. The entry's own slot follows from the tag, so that a table
// grows without a look at the records.
type Index struct {
	slots []uint64
	shift int // of a tag, to the slot where a search begins
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

	// indexCost is about what an entry takes, in bytes, and a place in the list of uses that wait.
	indexCost = 24
	minIndex  = 64
)

const golden = 0x9e3779b97f4a7c15

// Spread is a hash of an id: ids begin with the time, and its upper bits differ all the same.
func Spread(id uint64) uint64 { return id * golden }

// Tag is the tag of a hash.
func Tag(hash uint64) uint64 { return hash >> placeBits }

func tagOf(id uint64) uint64 { return Tag(Spread(id)) }

// NewIndex makes an empty index.
func NewIndex() Index { return Index{slots: make([]uint64, minIndex), shift: tagBits - 6} }

// Len is how many places there are.
func (x *Index) Len() int { return x.live }

// next is the slot after one.
func (x *Index) next(i uint64) uint64 { return (i + 1) & uint64(len(x.slots)-1) }

// at returns the slot that holds exactly a place; -1: none does.
func (x *Index) at(tag, place uint64) int {
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

// Each calls f with every place under a tag. f does not change the index.
func (x *Index) Each(tag uint64, f func(place uint64)) {
	for i := tag >> x.shift; x.slots[i] != slotEmpty; i = x.next(i) {
		if v := x.slots[i]; v>>placeBits == tag && v != slotDropped {
			f(v&placeMask - firstPlace)
		}
	}
}

// Remove takes out a place under a tag, if it is there.
func (x *Index) Remove(tag, place uint64) {
	if i := x.at(tag, place); i >= 0 {
		x.drop(i)
	}
}

// Add adds a place under a tag; there may be others under it.
func (x *Index) Add(tag, place uint64) {
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
func (x *Index) drop(i int) {
	x.live--
	if x.slots[x.next(uint64(i))] == slotEmpty { // no search goes past it
		atomic.StoreUint64(&x.slots[i], slotEmpty)
		x.taken--
		return
	}
	atomic.StoreUint64(&x.slots[i], slotDropped)
}

// rebuild makes room: a larger table, or one without dropped entries.
func (x *Index) rebuild() {
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
			x.Add(v>>placeBits, v&placeMask-firstPlace)
		}
	}
}
