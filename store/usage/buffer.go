package usage

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"patd/tokens"
)

const (
	few = 1 << 12 // so many uses are written within an interval; more are gathered for longer
	// gatherFor is how many intervals uses are gathered when they are many: a minute after a use it must be on disk,
	// and the more of them are on one page, the less each costs.
	gatherFor = 8
	// usesBatch and rekeysBatch bound a transaction that writes them, so that a change waits little longer for it than
	// for the disk.
	usesBatch   = 1000
	rekeysBatch = 250
)

// Keeper keeps last uses until they are written. A cache, which has the tokens in memory anyway, keeps the uses of
// those beside them.
type Keeper interface {
	// Waiting is how many tokens have a use to be written.
	Waiting() int
	// Pending appends the ids of those that it has not returned before.
	Pending(ids []tokens.ID) []tokens.ID
	// Expect says which will be taken next.
	Expect(ids []tokens.ID)
	// Take takes a use, to be written now; false: there is none.
	Take(id tokens.ID) (Use, bool)
}

// Buffer gathers last uses and digests that move until they are written. It is safe for concurrent use.
type Buffer struct {
	uses     uses
	details  details
	rekeys   rekeys
	dropped  atomic.Uint64
	wake     chan struct{} // a level: something should be written soon
	flushing chan struct{} // has one place, for the writer of uses, who has the sweep
	sweep    sweep

	flushingDetails chan struct{}
	sweepOfDetails  sweep

	mu      sync.Mutex
	keepers []Keeper // uses is the last; never written to, only replaced

	keepDetails []DetailKeeper // likewise: details is the last
}

// NewBuffer makes an empty buffer, which has room for so many last uses; 0: for a million.
func NewBuffer(room int64) *Buffer {
	if room <= 0 {
		room = maxUses
	}
	b := &Buffer{wake: make(chan struct{}, 1), flushing: make(chan struct{}, 1),
		flushingDetails: make(chan struct{}, 1),
		sweep:           newSweep(usesBatch / 2), sweepOfDetails: newSweep(detailsPart)}
	b.uses.init(room, &b.dropped, b.wakeUp)
	b.rekeys = rekeys{dropped: &b.dropped, known: make(map[Credential][]tokens.Rekey)}
	b.keepers = []Keeper{&b.uses}
	b.details.init(&b.dropped, b.wakeUp)
	b.keepDetails = []DetailKeeper{&b.details}
	return b
}

// Keep has the uses of a keeper written. Uses that leave it go to Record: the buffer asks its own after those of
// keepers, so that no use passes between the two unseen.
func (b *Buffer) Keep(k Keeper) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keepers = slices.Insert(slices.Clone(b.keepers), 0, k)
}

// KeepDetails has the details of a keeper written. Details that leave it go to RecordDetail.
func (b *Buffer) KeepDetails(k DetailKeeper) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keepDetails = slices.Insert(slices.Clone(b.keepDetails), 0, k)
}

func (b *Buffer) keeping() []Keeper {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.keepers
}

// Record records a use, unless a later one is known or there is no room.
func (b *Buffer) Record(id tokens.ID, u Use) { b.uses.record(id, u) }

// Rekey records digests that move, unless there is no room.
func (b *Buffer) Rekey(c Credential, list ...tokens.Rekey) {
	if b.rekeys.record(c, list...) {
		b.wakeUp()
	}
}

// Wake is a level: something should be written soon.
func (b *Buffer) Wake() <-chan struct{} { return b.wake }

func (b *Buffer) wakeUp() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Crowded reports that there will soon be no room for uses.
func (b *Buffer) Crowded() bool { return b.uses.crowded() }

// Dropped counts what there was no room for.
func (b *Buffer) Dropped() uint64 { return b.dropped.Load() }

// FlushUses has write write the uses of tokens, of nil: of all, in the order of ids: so those of rows that are beside one
// another are written together. All that were recorded when it begins are written when it ends, whoever else flushes.
// write may be called many times and does not keep the slice; uses that it fails to write are kept.
func (b *Buffer) FlushUses(
	ctx context.Context, of []tokens.ID, write func(context.Context, []Used) error,
) error {
	if err := enter(ctx, b.flushing); err != nil {
		return fmt.Errorf("write last uses: %w", err)
	}
	defer func() { <-b.flushing }()
	keepers, ids := b.keeping(), sorted(slices.Clone(of))
	if of == nil {
		b.gather(keepers)
		ids = b.sweep.takeAll()
	}
	return b.writeUses(ctx, keepers, ids, write)
}

// FlushPart has write write a part of the uses, as FlushUses does, and returns when the next one is due: all of them
// are written within an interval, or within a few if there are many.
func (b *Buffer) FlushPart(
	ctx context.Context, interval time.Duration, write func(context.Context, []Used) error,
) (pause time.Duration, err error) {
	if err := enter(ctx, b.flushing); err != nil {
		return interval, fmt.Errorf("write last uses: %w", err)
	}
	defer func() { <-b.flushing }()
	keepers := b.keeping()
	b.gather(keepers)
	if err := b.writeUses(ctx, keepers, b.sweep.take(), write); err != nil {
		return interval, err
	}
	waiting := 0
	for _, k := range keepers {
		waiting += k.Waiting()
	}
	round := interval
	if waiting > few {
		round = gatherFor * interval
	}
	return b.sweep.pause(round), nil
}

// enter takes the one place of a channel.
func enter(ctx context.Context, place chan struct{}) error {
	select {
	case place <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// gather adds what is new to the sweep.
func (b *Buffer) gather(keepers []Keeper) {
	var ids []tokens.ID
	for _, k := range keepers {
		ids = k.Pending(ids)
	}
	b.sweep.add(ids)
}

// writeUses writes the uses of sorted ids, as far as they still have some.
func (b *Buffer) writeUses(
	ctx context.Context, keepers []Keeper, left []tokens.ID, write func(context.Context, []Used) error,
) error {
	batch := make([]Used, 0, min(len(left), usesBatch))
	for len(left) > 0 {
		ids := left[:min(len(left), usesBatch)]
		batch = batch[:0]
		for _, k := range keepers {
			k.Expect(ids)
		}
		for _, id := range ids {
			if u, ok := take(keepers, id); ok {
				batch = append(batch, Used{id, u})
			}
		}
		if len(batch) == 0 {
			left = left[len(ids):]
			continue
		}
		if err := write(ctx, batch); err != nil {
			for _, u := range batch {
				b.Record(u.ID, u.Use)
			}
			b.sweep.add(left[len(ids):])
			return fmt.Errorf("write %d last uses: %w", len(left), err)
		}
		left = left[len(ids):]
	}
	return nil
}

// take takes the latest use that any keeper has of a token.
func take(keepers []Keeper, id tokens.ID) (latest Use, found bool) {
	for _, k := range keepers {
		if u, ok := k.Take(id); ok && (!found || latest.Micros < u.Micros) {
			latest, found = u, true
		}
	}
	return latest, found
}

// FlushRekeys has write write all digests that move. Those that it fails to write are kept.
func (b *Buffer) FlushRekeys(ctx context.Context, write func(context.Context, []Rekeyed) error) error {
	left := b.rekeys.take()
	for len(left) > 0 {
		batch := left[:min(len(left), rekeysBatch)]
		if err := write(ctx, batch); err != nil {
			for _, r := range left {
				b.Rekey(r.Credential, r.Rekeys...)
			}
			return fmt.Errorf("write the digests of %d secrets: %w", len(left), err)
		}
		left = left[len(batch):]
	}
	return nil
}
