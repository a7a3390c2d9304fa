package receipt

import (
	"context"
	"slices"
	"time"

	"patd/tokens"
)

const (
	// MaxWait is the longest wait that a call may ask for.
	MaxWait = 30 * time.Second
	// reserve is the part of a call's time that is left for its answer.
	reserve = 250 * time.Millisecond
	// readFeed bounds the reading of the change feed.
	readFeed = time.Second

	// maxWaits and maxWaitsOfOne bound the calls that wait, in all and of one caller. Further ones do not wait.
	maxWaits, maxWaitsOfOne = 64, 8
	// maxSilent is how many names a receipt has.
	maxSilent = 100
)

// The names of what a receipt has no watch for.
const (
	silentFeed    = "feed"    // the change feed cannot be read
	silentServers = "servers" // other servers of the store
	silentBefore  = "before"  // watches of which no more is known: from before this server started, or of many that ended
)

// Receipt says how far a change has come.
type Receipt struct {
	Everywhere bool
	Since      time.Time // zero: it is not everywhere
	Silent     []string  // sorted
}

// wait is a call that waits for a position. The board's mu guards it.
type wait struct {
	position uint64
	pending  map[*Watch]time.Time // when the watch is safe at the latest; zero: not known, it was not sent the change
	lost     map[string]time.Time // the same, for ended watches that were not kept, by the name of the service
	wake     chan struct{}        // a level: something has changed
}

// sending takes note of a message that is about to be sent. It reports whether the message should ask to be
// acknowledged.
func (o *wait) sending(w *Watch) bool {
	safe, pending := o.pending[w]
	switch {
	case w.at < o.position:
		if !pending { // it has begun since, and resumes from before the change
			o.pending[w] = time.Time{}
		}
		return false
	case !pending:
		return false
	case !safe.IsZero():
		return true
	case w.advanced.IsZero(): // the first message has the change
		o.done(w)
		return false
	}
	o.pending[w] = w.advanced.Add(w.bound())
	o.changed()
	return true
}

// done takes a watch from those that the call waits for.
func (o *wait) done(w *Watch) {
	if _, pending := o.pending[w]; pending {
		delete(o.pending, w)
		o.changed()
	}
}

// lose is done for a watch that has ended and is not kept: it is safe at a time.
func (o *wait) lose(w *Watch, safe time.Time) {
	if known, pending := o.pending[w]; pending {
		if !known.IsZero() {
			safe = known
		}
		if safe.After(o.lost[w.service()]) {
			o.lost[w.service()] = safe
		}
		o.done(w)
	}
}

func (o *wait) changed() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Wait waits until the changes that were committed before the call are in effect everywhere, for a time at most, and
// less where ctx ends sooner.
func (b *Board) Wait(ctx context.Context, a tokens.Actor, atMost time.Duration) Receipt {
	began := time.Now()
	until := began.Add(atMost)
	if end, ok := ctx.Deadline(); ok && end.Add(-reserve).Before(until) {
		until = end.Add(-reserve)
	}
	position, err := b.reached(ctx)
	if err != nil {
		return Receipt{Silent: []string{silentFeed}}
	}
	o, waits := b.enter(a, position)
	changed := time.Now() // no earlier than the change
	defer b.leave(o, a, waits)
	for {
		b.mu.Lock()
		now := time.Now()
		silent, next := b.silent(o, changed, now)
		b.mu.Unlock()
		switch {
		case len(silent) == 0:
			return Receipt{Everywhere: true, Since: now}
		case !waits || !now.Before(until) || ctx.Err() != nil || b.config.Stopping.Err() != nil:
			return Receipt{Silent: silent}
		}
		if next.IsZero() || until.Before(next) {
			next = until
		}
		b.sleep(ctx, o, next.Sub(now))
	}
}

// reached returns the position to wait for. Without a wait it may take a moment too.
func (b *Board) reached(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, readFeed)
	defer cancel()
	return b.config.Reached(ctx)
}

// sleep waits until something has changed, or for a time.
func (b *Board) sleep(ctx context.Context, o *wait, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-o.wake:
	case <-timer.C:
	case <-ctx.Done():
	case <-b.config.Stopping.Done():
	}
}

// enter finds the watches that are not safe, and has them ask for acknowledgement. False: too many calls wait already.
func (b *Board) enter(a tokens.Actor, position uint64) (o *wait, waits bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.prune(time.Now())
	o = &wait{
		position: position,
		pending:  map[*Watch]time.Time{},
		lost:     map[string]time.Time{},
		wake:     make(chan struct{}, 1),
	}
	if waits = len(b.waits) < maxWaits && b.byOwner[a.String()] < maxWaitsOfOne; waits {
		b.waits[o] = struct{}{}
		b.byOwner[a.String()]++
	}
	for _, w := range b.watches {
		switch {
		case w.acked >= position && w.at >= position:
			continue
		case w.at >= position && w.sent && w.advanced.IsZero():
			continue // its first message had the change
		case w.at >= position && w.sent:
			o.pending[w] = w.advanced.Add(w.bound())
		case !w.end.IsZero():
			o.pending[w] = w.made.Add(w.bound())
			continue
		default:
			o.pending[w] = time.Time{}
		}
		if waits && w.end.IsZero() {
			select {
			case w.ask <- struct{}{}:
			default:
			}
		}
	}
	return o, waits
}

func (b *Board) leave(o *wait, a tokens.Actor, waits bool) {
	if !waits {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.waits, o)
	if b.byOwner[a.String()]--; b.byOwner[a.String()] == 0 {
		delete(b.byOwner, a.String())
	}
}

// silent returns what is not safe, and when the next of it is. The caller has the lock.
func (b *Board) silent(o *wait, changed, now time.Time) (names []string, next time.Time) {
	unsafe := func(name string, until time.Time) bool {
		switch {
		case until.IsZero():
		case !now.Before(until):
			return false
		case next.IsZero() || until.Before(next):
			next = until
		}
		names = append(names, name)
		return true
	}
	for w, safe := range o.pending {
		if safe.IsZero() && !w.end.IsZero() { // it broke off before it was sent the change
			safe = w.made.Add(w.bound())
		}
		if !unsafe(w.service(), safe) {
			delete(o.pending, w)
		}
	}
	for name, safe := range o.lost {
		unsafe(name, safe)
	}
	before := b.began.Add(b.bound(MaxAge))
	if b.crowded.After(before) {
		before = b.crowded
	}
	unsafe(silentBefore, before)
	if !b.config.Alone {
		unsafe(silentServers, changed.Add(feedTrust+b.bound(MaxAge)))
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return names[:min(len(names), maxSilent)], next
}
