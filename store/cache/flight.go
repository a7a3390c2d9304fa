package cache

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"

	"patd/internal/flight"
	"patd/tokens"
)

// flights are the readings of the store under way, by id, each for all who ask meanwhile. A flight begins before the
// store is read, so that a change that comes in between finds it, and keeps its result from being kept. It begins with
// the position in the changes of what it may rest on. The lock of their owner guards them.
type flights[T any] = flight.Group[tokens.ID, uint64, T]

// reading is one of them.
type reading[T any] = flight.Flight[uint64, T]

// fetch reads what has an id by read, or waits for another who is reading it from the same position on. since returns
// the position now; both it and the flights are guarded by mu.
func fetch[T any](ctx context.Context, op string, mu *sync.Mutex, under *flights[T], id tokens.ID,
	since func() uint64, read func(*reading[T]) (T, error),
) (T, error) {
	for {
		mu.Lock()
		now := since() // before the flight can be found, and before the store is read
		f := under.Find(id)
		if f == nil || f.Begun != now { // whether that was a change of what it reads is not known yet
			f = under.Begin(id, now)
			mu.Unlock()
			return read(f)
		}
		f.Join()
		mu.Unlock()
		if err := f.Wait(ctx); err != nil {
			var none T
			return none, fmt.Errorf("%s: %w", op, err)
		}
		if value, err := f.Result(); !again(ctx, err) {
			return value, err
		}
	}
}

// again reports whether one who waited should read by itself: the store did not fail, but the one who read gave up.
func again(ctx context.Context, err error) bool {
	return err != nil && ctx.Err() == nil && (errors.Is(err, context.Canceled) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, flight.ErrAbandoned))
}

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
