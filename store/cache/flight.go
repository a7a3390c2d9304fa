package cache

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"

	"patd/tokens"
)

// flight is one reading of the store, for all who ask meanwhile. It begins before the store is read, so that a change
// that comes in between finds it, and keeps its result from being kept.
type flight[T any] struct {
	done  chan struct{} // made by the first who waits
	since uint64        // position in the changes of users when it began
	stale bool          // something that it reads was changed since it began

	value T
	err   error
}

// flights are those under way, by id; their owner's lock guards them and what they hold.
type flights[T any] map[tokens.ID]*flight[T]

// drop keeps a reading under way from being kept, and from being returned to those who come from now on.
func (f *flights[T]) drop(id tokens.ID) {
	if one := (*f)[id]; one != nil {
		one.stale = true
		delete(*f, id)
	}
}

func (f *flights[T]) clear() {
	for _, one := range *f {
		one.stale = true
	}
	*f = make(flights[T])
}

// begin registers a flight, in place of one that is too old for those who come now. Later changes will not find that
// one, so its result is not kept.
func (f *flights[T]) begin(id tokens.ID, since uint64) *flight[T] {
	f.drop(id)
	one := &flight[T]{since: since, err: errUnsettled}
	(*f)[id] = one
	return one
}

// end takes a flight out, and wakes those who wait.
func (f *flights[T]) end(id tokens.ID, one *flight[T]) {
	if (*f)[id] == one {
		delete(*f, id)
	}
	if one.done != nil {
		close(one.done)
	}
}

// errUnsettled is returned to those who wait for a reading that ended by a panic.
var errUnsettled = errors.New("the reading was given up")

// again reports whether one who waited should read by itself: the store did not fail, but the one who read gave up.
func again(ctx context.Context, err error) bool {
	return err != nil && ctx.Err() == nil &&
		(errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errUnsettled))
}

func gaveUp(ctx context.Context, op string) error { return fmt.Errorf("%s: %w", op, ctx.Err()) }

// recently remembers what was changed last: whose record a reading is, is known only when it has landed, and then it
// can be checked whether that was changed meanwhile. Its owner's lock guards it.
type recently struct {
	seq    uint64
	hashes [256]uint64
}

var changeSeed = maphash.MakeSeed()

func hashText(s string) uint64 { return maphash.String(changeSeed, s) }

func (r *recently) note(hash uint64) {
	r.hashes[r.seq%uint64(len(r.hashes))] = hash
	r.seq++
}

// noteAll notes a change of everything.
func (r *recently) noteAll() { r.seq += uint64(len(r.hashes)) + 1 }

// since reports whether something was changed after a position, or may have been.
func (r *recently) since(hash, seq uint64) bool {
	if r.seq-seq > uint64(len(r.hashes)) {
		return true
	}
	for ; seq < r.seq; seq++ {
		if r.hashes[seq%uint64(len(r.hashes))] == hash {
			return true
		}
	}
	return false
}
