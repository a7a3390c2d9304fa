package usage

import (
	"slices"
	"time"

	"patd/tokens"
)

// sweep goes through the ids of what waits, in their order, a part at a time, and begins again after the last. So what
// is written in a round costs as little as if all of it were written at once, since the pages of a table are in that
// order too, and no moment of the round costs more than another.
type sweep struct {
	size int // about how many ids a part has; twice as many at most when it is taken
	// starts are the least ids of the parts, and parts what waits of each, in no order. Parts are split and joined as
	// they come: nothing is done with all ids at once.
	starts []tokens.ID
	parts  [][]tokens.ID
	next   int
	spent  time.Duration // of the round, in pauses
}

func newSweep(size int) sweep {
	return sweep{size: size, starts: []tokens.ID{0}, parts: make([][]tokens.ID, 1)}
}

// add adds ids, which may be there already.
func (w *sweep) add(ids []tokens.ID) {
	for _, id := range ids {
		i, found := slices.BinarySearch(w.starts, id)
		if !found {
			i--
		}
		w.parts[i] = append(w.parts[i], id)
	}
}

// take takes the ids of the next part, sorted.
func (w *sweep) take() []tokens.ID {
	i := w.next
	ids := sorted(w.parts[i])
	w.parts[i] = nil
	switch {
	case len(ids) > 2*w.size:
		w.split(i, ids)
		ids, w.parts[i] = w.parts[i], nil
	case len(ids) < w.size/4 && i > 0: // what comes from here on belongs to the part before
		w.starts, w.parts = slices.Delete(w.starts, i, i+1), slices.Delete(w.parts, i, i+1)
		i--
	}
	if w.next = i + 1; w.next >= len(w.parts) {
		w.next = 0
	}
	return ids
}

// split makes parts of the sorted ids of one.
func (w *sweep) split(i int, ids []tokens.ID) {
	starts, parts := []tokens.ID{w.starts[i]}, [][]tokens.ID{slices.Clone(ids[:w.size])}
	for left := ids[w.size:]; len(left) > 0; {
		n := min(len(left), w.size)
		starts, parts = append(starts, left[0]), append(parts, slices.Clone(left[:n]))
		left = left[n:]
	}
	w.starts, w.parts = slices.Replace(w.starts, i, i+1, starts...), slices.Replace(w.parts, i, i+1, parts...)
}

// takeAll takes all ids, sorted.
func (w *sweep) takeAll() []tokens.ID {
	var all []tokens.ID
	for i, ids := range w.parts {
		all = append(all, sorted(ids)...)
		w.parts[i] = nil
	}
	return all
}

// pause returns how long to wait for the next part, if a round takes so long, however many parts there will be.
func (w *sweep) pause(round time.Duration) time.Duration {
	if w.next == 0 {
		w.spent = 0
	}
	p := max(round-w.spent, 0) / time.Duration(len(w.parts)-w.next)
	w.spent += p
	return p
}

func sorted(ids []tokens.ID) []tokens.ID {
	slices.Sort(ids)
	return slices.Compact(ids)
}
