package store

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"patd/tokens"
)

// The times of the feed, and its bounds.
const (
	// pollFeed is how often the table is looked at for what other processes wrote.
	pollFeed = 100 * time.Millisecond
	// gatherFeed is how long those who wait for news are left alone after some: thousands of watchers are not woken for
	// each of thousands of changes a second.
	gatherFeed = 10 * time.Millisecond
	// trustFeed is how long after the last look that succeeded what is known of the store counts. docs/guarantees.md section 7
	// allows 10 s in all.
	trustFeed = 5 * time.Second

	// waitFeed is how long who wants to read the table waits for another who is reading it.
	waitFeed = time.Second

	feedPage    = 500     // entries read in one go
	feedRing    = 1 << 16 // entries kept in memory, at least, once there were so many
	feedBacklog = 8192    // entries of before the start that are kept, so that watchers may resume after a restart
)

var errSilent = errors.New("the change feed has not been read for too long")

// listener keeps what it read of the store, and must hear what is no longer as it was.
type listener interface {
	// hear takes in changes, in their order, before they count as heard of. Lost says that there were others before them,
	// unknown which. seq is how far this goes.
	hear(changes []entry, lost bool, seq uint64)
	// forget drops what is known under an id, which was changed without an entry in the feed.
	forget(id tokens.ID)
}

// Feed follows the change feed of a Store: what this and other processes changed. The table is the truth, a signal is
// only a wake-up. It implements tokens.ChangeFeed.
type Feed struct {
	store *Store
	now   func() time.Time
	start time.Time

	wake  chan struct{} // a level: the table has entries of this process that were not read
	call  chan struct{} // a level: so it has of others
	turn  chan struct{} // holds one; whoever reads the table has it
	began bool          // the ring has a position; of whoever has the turn

	// heard is when, after start, the last look began that got to the end of the table; negative: none has. heardWall is
	// the same by the wall clock, in nanoseconds of Unix time.
	heard, heardWall atomic.Int64

	heads      heads                 // when last compared; of whoever has the turn
	doubtUntil time.Time             // the same
	doubts     atomic.Pointer[doubt] // why the feed is not trusted; nil: it is
	distrusted atomic.Uint64         // how many times it was not

	read func(ctx context.Context) error // nil, or what tests put before each look

	mu        sync.RWMutex
	ring      ring
	told      uint64        // how far those who wait for news were woken
	news      chan struct{} // closed when there are some
	listeners []listener
}

var _ tokens.ChangeFeed = (*Feed)(nil)

func newFeed(s *Store) *Feed {
	f := &Feed{
		store: s, now: s.options.Now, start: s.options.Now(), read: s.options.beforeFeed,
		wake: make(chan struct{}, 1), call: make(chan struct{}, 1), turn: make(chan struct{}, 1), news: make(chan struct{}),
	}
	f.heard.Store(-1)
	return f
}

// Feed answers the store's change feed. It is followed from the first call on, until the store is closed.
func (s *Store) Feed() *Feed {
	s.followOnce.Do(func() {
		// The first look is made here, so that there is a position when this returns; if it fails, the next is in a moment.
		_ = s.feed.catchUp(s.loopCtx, 0)
		s.loop.Go(func() { s.feed.follow(s.loopCtx) })
		if s.dialect.remote {
			s.loop.Go(func() { s.listen(s.loopCtx) })
		}
	})
	return s.feed
}

// nudge says that this process has made the table grow.
func (f *Feed) nudge() { raise(f.wake) }

// nudgeFromOutside says that others may have.
func (f *Feed) nudgeFromOutside() { raise(f.call) }

func raise(level chan<- struct{}) {
	select {
	case level <- struct{}{}:
	default:
	}
}

// follow reads what is new, and tells, until ctx ends.
func (f *Feed) follow(ctx context.Context) {
	poll := time.NewTicker(pollFeed)
	defer poll.Stop()
	gather := time.NewTimer(0)
	defer gather.Stop()
	failing, polls := false, 0
	for {
		var err error
		called := false
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
			err = f.catchUp(ctx, 0)
			if polls++; err == nil && polls%comparePolls == 0 {
				err = f.compare(ctx)
			}
		case <-f.call:
			called = true // whoever may connect can call
			err = f.catchUp(ctx, 0)
		case <-f.wake:
			err = f.catchUp(ctx, f.store.Sequence())
		}
		if ctx.Err() != nil {
			return
		}
		if (err != nil) != failing {
			failing = err != nil
			f.report(ctx, err)
		}
		if !f.tell() && !called {
			continue
		}
		gather.Reset(gatherFeed)
		select {
		case <-ctx.Done():
			return
		case <-gather.C:
		}
	}
}

// report logs once when following begins to fail, and once when it works again.
func (f *Feed) report(ctx context.Context, err error) {
	if err != nil {
		f.store.options.Logger.LogAttrs(ctx, slog.LevelWarn, "store: the change feed cannot be read; soon nothing is answered from memory", slog.Any("error", err))
		return
	}
	f.store.options.Logger.LogAttrs(ctx, slog.LevelInfo, "store: the change feed can be read again")
}

// tell wakes those who wait for news, if there are some.
func (f *Feed) tell() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.told == f.ring.last().Seq {
		return false
	}
	f.told = f.ring.last().Seq
	close(f.news)
	f.news = make(chan struct{})
	return true
}

// catchUp reads the table to its end, unless what is at seq has been heard of already; 0: in any case.
func (f *Feed) catchUp(ctx context.Context, seq uint64) error {
	if err := f.take(ctx); err != nil {
		return err
	}
	defer func() { <-f.turn }()
	if seq > 0 && f.position().Seq >= seq {
		return nil
	}
	for {
		began := f.now()
		if f.read != nil {
			if err := f.read(ctx); err != nil {
				return err
			}
		}
		more, err := f.step(ctx)
		if err != nil {
			return err
		}
		if !more {
			f.heardWall.Store(began.UnixNano())
			f.heard.Store(int64(began.Sub(f.start)))
			f.trustAgain(ctx)
			return nil
		}
	}
}

// take waits for the turn, though not for one who hangs: a change that is on disk must be answered.
func (f *Feed) take(ctx context.Context) error {
	select {
	case f.turn <- struct{}{}:
		return nil
	default:
	}
	long := time.NewTimer(waitFeed)
	defer long.Stop()
	select {
	case f.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-long.C:
		return errSilent
	}
}

func (f *Feed) position() entry {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.ring.last()
}

// step reads a page after the position, beginning with the entry at the position itself: if that is another, or gone, then
// so are others, and nothing is known of what came between.
func (f *Feed) step(ctx context.Context) (more bool, err error) {
	if !f.began {
		return false, f.begin(ctx)
	}
	at := f.position()
	list, err := f.store.entries(ctx, at.Seq, feedPage)
	if err != nil {
		return false, err
	}
	if at.Seq > 0 {
		if len(list) == 0 || list[0].Seq != at.Seq || list[0].mark != at.mark {
			return false, f.begin(ctx)
		}
		list = list[1:]
	}
	if len(list) == 0 {
		return false, nil
	}
	seq := list[len(list)-1].Seq
	f.hand(list, false, seq)
	f.mu.Lock()
	f.ring.add(list)
	f.mu.Unlock()
	for _, e := range list {
		if e.startOver {
			f.startOver(e.mark)
		}
	}
	return len(list) >= feedPage-1, nil
}

// begin takes the end of the table for the position, whatever was before.
func (f *Feed) begin(ctx context.Context) error {
	list, err := f.store.newestEntries(ctx, feedBacklog)
	if err != nil {
		return err
	}
	slices.Reverse(list)
	var r ring
	if len(list) > 0 {
		r.before = list[0]
		r.add(list[1:])
	}
	back := f.began && r.last().Seq < f.position().Seq
	if f.began {
		f.store.beginHistory(r.last().Seq)
	}
	f.hand(nil, true, r.last().Seq)
	f.began = true
	f.mu.Lock()
	f.ring = r
	f.told = 0 // so that those who wait are told, though the position be the same by chance
	f.mu.Unlock()
	if back {
		f.doubt(ctx, wentBack)
	}
	return nil
}

// hand gives changes to the listeners, and then lets lookups know that there is nothing older.
func (f *Feed) hand(list []entry, lost bool, seq uint64) {
	for _, l := range f.listening() {
		l.hear(list, lost, seq)
	}
	f.store.noteSequence(seq, f.store.historyNow())
}

// forget has the listeners drop what was changed without an entry.
func (f *Feed) forget(id tokens.ID) {
	for _, l := range f.listening() {
		l.forget(id)
	}
}

func (f *Feed) listening() []listener {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.listeners
}

// subscribe adds a listener, for as long as the store is open. It answers how far it need not hear any more.
func (f *Feed) subscribe(l listener) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listeners = append(slices.Clone(f.listeners), l)
	return f.ring.last().Seq
}

// silence is how long ago the last look began that got to the end of the table; a year when none has. The clock that says more
// counts: the monotonic one stands still while a machine sleeps, the other may be set back.
func (f *Feed) silence() time.Duration {
	heard := f.heard.Load()
	if heard < 0 {
		return 365 * 24 * time.Hour
	}
	now := f.now()
	return max(now.Sub(f.start)-time.Duration(heard), time.Duration(now.UnixNano()-f.heardWall.Load()))
}

// Live implements tokens.ChangeFeed.
func (f *Feed) Live() bool { return f.live() }

// Newest implements tokens.ChangeFeed.
func (f *Feed) Newest() (tokens.WatchPosition, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.ring.place(f.ring.last()), f.err()
}

// News implements tokens.ChangeFeed.
func (f *Feed) News() <-chan struct{} {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.news
}

// After implements tokens.ChangeFeed.
func (f *Feed) After(at tokens.WatchPosition, limit int) (tokens.ChangePage, error) {
	if err := f.err(); err != nil {
		return tokens.ChangePage{}, err
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	list, ok := f.ring.after(at)
	if !ok {
		return tokens.ChangePage{At: f.ring.place(f.ring.last()), Lost: true}, nil
	}
	list = list[:min(len(list), limit)]
	if len(list) == 0 {
		return tokens.ChangePage{At: at}, nil
	}
	page := tokens.ChangePage{At: f.ring.place(list[len(list)-1]), Changes: make([]tokens.Change, len(list))}
	for i, e := range list {
		page.Changes[i] = e.Change
	}
	return page, nil
}

// place is the position of an entry, as it is sent.
func (r *ring) place(e entry) tokens.WatchPosition {
	return tokens.WatchPosition{Sequence: e.Seq, History: strconv.FormatUint(e.mark^r.salt, 36)}
}

// ring keeps the newest entries of the feed.
type ring struct {
	before  entry  // the one before the first of entries; zero: there was none
	salt    uint64 // makes positions that were sent before it lost
	entries []entry
}

// last is the newest entry; zero: there is none.
func (r *ring) last() entry {
	if n := len(r.entries); n > 0 {
		return r.entries[n-1]
	}
	return r.before
}

// add adds newer entries, and drops the oldest in large pieces, so that an entry is seldom moved.
func (r *ring) add(list []entry) {
	r.entries = append(r.entries, list...)
	over := len(r.entries) - feedRing
	if over < feedRing/4 {
		return
	}
	r.before = r.entries[over-1]
	r.entries = slices.Delete(r.entries, 0, over)
}

// after answers the entries after a position; false when they are not known. The slice is for as long as r is not
// changed.
func (r *ring) after(at tokens.WatchPosition) ([]entry, bool) {
	i := 0
	e := r.before
	if at.Sequence != e.Seq {
		found, ok := slices.BinarySearchFunc(r.entries, at.Sequence, func(e entry, seq uint64) int {
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
