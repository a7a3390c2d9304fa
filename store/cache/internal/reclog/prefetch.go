package reclog

import "runtime"

// Wanted is a record that will be looked for soon.
type Wanted struct {
	view *view
	id   uint64
	at   []byte // where it begins, in all likelihood; empty: it is not in view
}

// Want names a record for Prefetch.
func (l *Log) Want(id uint64) Wanted { return Wanted{view: l.view.Load(), id: id} }

// Record returns the record after Prefetch, in all likelihood; nil: it is not in view.
func (w *Wanted) Record() Record { return whole(w.at) }

// cacheLine is how much memory the processor reads at once, in bytes.
const cacheLine = 64

// Prefetch has the processor read the records of a list. It waits for one step of all at once, as long as nothing else
// comes between: no lock is taken, and the loops are short.
func Prefetch(list []Wanted) {
	var sum uint64 // of what is read, so that it is
	for i := range list {
		sum += list[i].view.start(list[i].id)
	}
	for i := range list {
		list[i].at = list[i].view.likely(list[i].id)
	}
	for i := range list {
		if b := list[i].at; len(b) > 0 {
			sum += uint64(b[0])
		}
	}
	for i := range list {
		if r := whole(list[i].at); r != nil {
			for at := cacheLine; at < len(r); at += cacheLine { // its owner may be changing some of it
				sum += r.Word(at)
			}
			sum += r.Word(len(r) - Align)
		}
	}
	runtime.KeepAlive(sum)
}
