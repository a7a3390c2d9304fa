package introspect

import (
	"sync/atomic"
	"unsafe"
)

// writtenLists are lists of scopes that many tokens share, as they are in a response: each is written once. A list has
// one place, by its address; the first that comes keeps it, and the others are written anew each time. The cache bounds
// the memory of all lists that are shared.
//
// A place refers to its list. So nothing else can come to have that address, and what has it is the same list.
type writtenLists [1 << writtenBits]atomic.Pointer[writtenList]

const writtenBits = 10

// writtenList is a list of scopes that are in effect.
type writtenList struct {
	list      []string
	scopes    []byte // as fieldScopes
	granted   []byte // as fieldGranted
	effective []byte // as fieldEffective
}

var sharedLists writtenLists

// of returns a list, which nobody changes, as it is written; nil: another has its place.
func (l *writtenLists) of(list []string) *writtenList {
	place := l.place(list)
	w := place.Load()
	if w == nil {
		w = &writtenList{
			list:      list,
			scopes:    appendTexts(nil, fieldScopes, list),
			granted:   appendTexts(nil, fieldGranted, list),
			effective: appendTexts(nil, fieldEffective, list),
		}
		if !place.CompareAndSwap(nil, w) {
			return nil
		}
	}
	if !sameMemory(w.list, list) {
		return nil
	}
	return w
}

func (l *writtenLists) place(list []string) *atomic.Pointer[writtenList] {
	const golden = 0x9e3779b97f4a7c15
	address := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(list)))) //nolint:gosec // it is only compared
	return &l[address*golden>>(64-writtenBits)]
}

// sameMemory reports whether two lists are one.
func sameMemory(a, b []string) bool {
	return len(a) == len(b) && unsafe.SliceData(a) == unsafe.SliceData(b) //nolint:gosec // they are only compared
}
