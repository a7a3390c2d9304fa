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
	silentServers = "servers" // other servers of the store, of which no more is known
	silentBefore  = "before"  // watches of which no more is known: from before this server started, or of many that ended
)

// Receipt says how far a change has come.
type Receipt struct {
	Everywhere bool
	Since      time.Time // zero: it is not everywhere
	Silent     []string  // sorted
}

// wait waits for a position: a call, or the answer to another server. The board's mu guards it.
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

func (o *wait) changed() { raise(o.wake) }

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
	o, waits := b.enterCall(a, position)
	changed := time.Now() // no earlier than the change
	defer b.leave(o, a, waits)
	servers := b.askServers(ctx, waits && atMost > 0)
	for {
		b.mu.Lock()
		silent := silence{now: time.Now()}
		b.silentWatches(o, &silent)
		b.silentServers(servers, changed, &silent)
		b.mu.Unlock()
		now, next := silent.now, silent.next
		switch names := silent.sorted(); {
		case len(names) == 0:
			return Receipt{Everywhere: true, Since: now}
		case !waits || !now.Before(until) || ctx.Err() != nil || b.config.Stopping.Err() != nil:
			return Receipt{Silent: names}
		}
		if next.IsZero() || until.Before(next) {
			next = until
		}
		b.sleep(ctx, o, next.Sub(now))
	}
}

// askServers joins the next look at the other servers, which is after the change. Without a wait it takes a moment too.
func (b *Board) askServers(ctx context.Context, ask bool) *round {
	if b.config.Servers == nil {
		return nil
	}
	r := b.join(ask)
	moment := time.NewTimer(readFeed)
	defer moment.Stop()
	select {
	case <-r.done:
	case <-moment.C: // the bound for servers that are not known applies, unless it is done later
	case <-ctx.Done():
	case <-b.config.Stopping.Done():
	}
	return r
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

// enterCall is enter for a call. False: too many calls wait already.
func (b *Board) enterCall(a tokens.Actor, position uint64) (o *wait, waits bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if waits = b.calls < maxWaits && b.byOwner[a.String()] < maxWaitsOfOne; waits {
		b.calls++
		b.byOwner[a.String()]++
	}
	return b.enter(position, waits), waits
}

// enter finds the watches that are not safe, and, if it waits, has them ask for acknowledgement. The caller has the
// lock.
func (b *Board) enter(position uint64, waits bool) (o *wait) {
	b.prune(time.Now())
	o = &wait{
		position: position,
		pending:  map[*Watch]time.Time{},
		lost:     map[string]time.Time{},
		wake:     make(chan struct{}, 1),
	}
	if waits {
		b.waits[o] = struct{}{}
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
			raise(w.ask)
		}
	}
	return o
}

func (b *Board) leave(o *wait, a tokens.Actor, waits bool) {
	if !waits {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.waits, o)
	b.calls--
	if b.byOwner[a.String()]--; b.byOwner[a.String()] == 0 {
		delete(b.byOwner, a.String())
	}
}

// silence gathers what is not safe at a moment.
type silence struct {
	now   time.Time
	names []string
	next  time.Time // when the next of it is safe; zero: not known
}

// unsafe adds a name unless it is safe by now; until is when it is at the latest, zero: not known.
func (s *silence) unsafe(name string, until time.Time) bool {
	if !until.IsZero() && !s.now.Before(until) {
		return false
	}
	s.next = sooner(s.next, until)
	s.names = append(s.names, name)
	return true
}

// sorted returns the names once each, and not too many.
func (s *silence) sorted() []string {
	slices.Sort(s.names)
	names := slices.Compact(s.names)
	return names[:min(len(names), maxSilent)]
}

// silentWatches adds the watches of this server that are not safe. The caller has the lock.
func (b *Board) silentWatches(o *wait, s *silence) {
	for w, safe := range o.pending {
		if safe.IsZero() && !w.end.IsZero() { // it broke off before it was sent the change
			safe = w.made.Add(w.bound())
		}
		if !s.unsafe(w.service(), safe) {
			delete(o.pending, w)
		}
	}
	for name, safe := range o.lost {
		s.unsafe(name, safe)
	}
	before := b.began.Add(b.bound(MaxAge))
	if b.crowded.After(before) {
		before = b.crowded
	}
	s.unsafe(silentBefore, before)
}

// silentServers adds the other servers that are not safe, for a change that was made by then. The caller has the lock.
func (b *Board) silentServers(r *round, changed time.Time, s *silence) {
	if b.config.Alone {
		return
	}
	known := false
	if r != nil {
		select {
		case <-r.done:
			known = !r.failed
		default:
		}
	}
	if !known {
		s.unsafe(silentServers, changed.Add(b.serverTrust()))
		return
	}
	for _, id := range r.serving {
		o := b.others[id]
		switch {
		case o == nil: // the database has lost it
			s.unsafe(silentServers, changed.Add(b.serverTrust()))
		case o.Unknown, r.number == 0 || o.Answers < r.number:
			s.unsafe(o.silentName(), b.safeAt(o, changed))
		}
	}
	for _, id := range r.ended {
		if o := b.others[id]; o != nil { // otherwise it ended so long ago that it was forgotten
			s.unsafe(o.silentName(), b.safeAt(o, changed))
		}
	}
}
