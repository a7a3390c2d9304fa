package feed

import (
	"slices"
	"strconv"

	"patd/tokens"
)

// ring keeps the newest entries of the feed.
type ring struct {
	before  Entry  // the one before the first of entries; zero: there was none
	salt    uint64 // makes positions that were sent before it lost
	entries []Entry
}

// place is the position of an entry, as it is sent.
func (r *ring) place(e Entry) tokens.WatchPosition {
	return tokens.WatchPosition{Sequence: e.Seq, History: strconv.FormatUint(e.Mark^r.salt, 36)}
}

// last is the newest entry; zero: there is none.
func (r *ring) last() Entry {
	if n := len(r.entries); n > 0 {
		return r.entries[n-1]
	}
	return r.before
}

// add adds newer entries, and drops the oldest in large pieces, so that an entry is seldom moved.
func (r *ring) add(list []Entry) {
	r.entries = append(r.entries, list...)
	over := len(r.entries) - ringSize
	if over < ringSize/4 {
		return
	}
	r.before = r.entries[over-1]
	r.entries = slices.Delete(r.entries, 0, over)
}

// after returns the entries after a position; false when they are not known. The slice is good until r is changed.
func (r *ring) after(at tokens.WatchPosition) ([]Entry, bool) {
	i := 0
	e := r.before
	if at.Sequence != e.Seq {
		found, ok := slices.BinarySearchFunc(r.entries, at.Sequence, func(e Entry, seq uint64) int {
			switch {
			case e.Seq < seq:
				return -1
			case e.Seq > seq:
				return 1
			default:
				return 0
			}
		})
		if !ok {
			return nil, false
		}
		e, i = r.entries[found], found+1
	}
	return r.entries[i:], r.place(e) == at
}
