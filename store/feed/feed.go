package feed

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"patd/tokens"
)

// Intervals of the feed, and its bounds.
const (
	// pollInterval is how often the table is read for what other processes wrote.
	pollInterval = 100 * time.Millisecond
	// gatherFor is how long watchers are not woken again after they were: thousands of them are not woken for each of
	// thousands of changes a second.
	gatherFor = 10 * time.Millisecond
	// trustFor is how long after the last successful reading memory counts. docs/guarantees.md section 7 allows 10 s in
	// all.
	trustFor = 5 * time.Second

	// turnTimeout is how long a reader of the table waits for another.
	turnTimeout = time.Second

	pageSize = 500     // entries read at once
	ringSize = 1 << 16 // entries kept in memory, at least, once there were so many
	backlog  = 8192    // entries from before the start that are kept, so that watchers may resume after a restart
)

var errSilent = errors.New("the change feed has not been read for too long")

// Source reads the tables that a feed follows. Its errors are returned to callers as they are.
type Source interface {
	// Entries returns at most limit entries from a position on, the oldest first.
	Entries(ctx context.Context, from uint64, limit int) ([]Entry, error)
	// NewestEntries returns at most limit entries from the end, the newest first.
	NewestEntries(ctx context.Context, limit int) ([]Entry, error)
	// Heads returns the newest positions; Changed is about the audit log after a position.
	Heads(ctx context.Context, after int64) (Heads, error)
}

// Listener keeps records of the store in memory. It must not wait for the feed.
type Listener interface {
	// Receive drops what entries name, before the feed counts them as received. They come in order. With lost there
	// were others before them, unknown which: everything is dropped. seq is the position of the last.
	Receive(entries []Entry, lost bool, seq uint64)
	// Forget drops the record with an id, which was changed without an entry in the feed.
	Forget(id tokens.ID)
}

// Config configures a Feed. All fields are needed.
type Config struct {
	Source Source
	Now    func() time.Time
	Logger *slog.Logger
}

// Feed follows the change feed of a store: what this and other processes changed. The table is the truth; a signal only
// wakes. It implements tokens.ChangeFeed and is safe for concurrent use.
type Feed struct {
	source   Source
	now      func() time.Time
	log      *slog.Logger
	start    time.Time
	sequence sequence

	wake   chan struct{} // a level: the table has entries of this process that were not read
	notify chan struct{} // a level: it may have entries of others
	turn   chan struct{} // has one place, for the reader of the table
	began  bool          // the ring has a position; guarded by turn

	// received is when, after start, the last reading began that got to the end of the table; negative: none has.
	// receivedWall is the same by the wall clock, in nanoseconds of Unix time.
	received, receivedWall atomic.Int64

	heads      Heads                 // when last compared; guarded by turn
	compared   bool                  // they were; guarded by turn
	doubtUntil time.Time             // guarded by turn
	doubts     atomic.Pointer[doubt] // why the feed is not trusted; nil: it is
	distrusted atomic.Uint64         // how many times it was not

	mu        sync.RWMutex
	ring      ring
	woken     uint64        // the position up to which watchers were woken
	news      chan struct{} // closed when there are some
	listeners []Listener
}

var _ tokens.ChangeFeed = (*Feed)(nil)

// New makes a feed. Follow follows it.
func New(c Config) *Feed {
	f := &Feed{
		source: c.Source, now: c.Now, log: c.Logger, start: c.Now(),
		wake: make(chan struct{}, 1), notify: make(chan struct{}, 1), turn: make(chan struct{}, 1),
		news: make(chan struct{}),
	}
	f.received.Store(-1)
	return f
}

// Nudge has the feed read on, after this process has committed an entry.
func (f *Feed) Nudge() { raise(f.wake) }

// NudgeFromOutside has the feed read on, because another process says that it has committed one. Anybody who can
// connect to the database can say so.
func (f *Feed) NudgeFromOutside() { raise(f.notify) }

func raise(level chan<- struct{}) {
	select {
	case level <- struct{}{}:
	default:
	}
}

// Follow reads new entries and wakes watchers, until ctx ends.
func (f *Feed) Follow(ctx context.Context) {
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	gather := time.NewTimer(0)
	defer gather.Stop()
	failing, polls := false, 0
	for {
		var err error
		outside := false
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
			err = f.CatchUp(ctx, 0)
			if polls++; err == nil && polls%comparePolls == 0 {
				err = f.Compare(ctx)
			}
		case <-f.notify:
			outside = true
			err = f.CatchUp(ctx, 0)
		case <-f.wake:
			err = f.CatchUp(ctx, f.Sequence())
		}
		if ctx.Err() != nil {
			return
		}
		if (err != nil) != failing {
			failing = err != nil
			f.report(ctx, err)
		}
		if !f.wakeWatchers() && !outside {
			continue
		}
		gather.Reset(gatherFor)
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
		f.log.LogAttrs(ctx, slog.LevelWarn, "store: cannot read the change feed; memory will not be used soon",
			slog.Any("error", err))
		return
	}
	f.log.LogAttrs(ctx, slog.LevelInfo, "store: the change feed can be read again")
}

// wakeWatchers wakes those who wait for news, if there are some.
func (f *Feed) wakeWatchers() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.woken == f.ring.last().Seq {
		return false
	}
	f.woken = f.ring.last().Seq
	close(f.news)
	f.news = make(chan struct{})
	return true
}

// CatchUp reads the table to its end, unless the entry at seq has been received already; with 0 always. It waits a
// second at most for another reader.
func (f *Feed) CatchUp(ctx context.Context, seq uint64) error {
	if err := f.take(ctx); err != nil {
		return err
	}
	defer func() { <-f.turn }()
	if seq > 0 && f.position().Seq >= seq {
		return nil
	}
	for {
		began := f.now()
		more, err := f.step(ctx)
		if err != nil {
			return err
		}
		if !more {
			f.receivedWall.Store(began.UnixNano())
			f.received.Store(int64(began.Sub(f.start)))
			f.trustAgain(ctx)
			return nil
		}
	}
}

// take waits for the turn, but not for a reader that hangs: a change that is on disk must be answered.
func (f *Feed) take(ctx context.Context) error {
	select {
	case f.turn <- struct{}{}:
		return nil
	default:
	}
	long := time.NewTimer(turnTimeout)
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

func (f *Feed) position() Entry {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.ring.last()
}

// step reads a page after the position. It begins with the entry at the position itself: if that is another, or gone,
// then so are others, and the entries in between are unknown.
func (f *Feed) step(ctx context.Context) (more bool, err error) {
	if !f.began {
		return false, f.begin(ctx)
	}
	at := f.position()
	list, err := f.source.Entries(ctx, at.Seq, pageSize)
	if err != nil {
		return false, err
	}
	if at.Seq > 0 {
		if len(list) == 0 || list[0].Seq != at.Seq || list[0].Mark != at.Mark {
			return false, f.begin(ctx)
		}
		list = list[1:]
	}
	if len(list) == 0 {
		return false, nil
	}
	seq := list[len(list)-1].Seq
	f.deliver(list, false, seq)
	f.mu.Lock()
	f.ring.add(list)
	f.mu.Unlock()
	for _, e := range list {
		if e.StartOver {
			f.startOver(e.Mark)
		}
	}
	return len(list) >= pageSize-1, nil
}

// begin takes the end of the table for the position, whatever it was before.
func (f *Feed) begin(ctx context.Context) error {
	list, err := f.source.NewestEntries(ctx, backlog)
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
		f.sequence.beginHistory(r.last().Seq)
		f.reportLost(ctx, &r)
	}
	f.deliver(nil, true, r.last().Seq)
	f.began = true
	f.mu.Lock()
	f.ring = r
	f.woken = 0 // so that watchers are woken, though the position be the same by chance
	f.mu.Unlock()
	if back {
		f.doubt(ctx, wentBack)
	}
	return nil
}

// deliver gives entries to the listeners, and then moves the sequence: lookups may say that they hold nothing older.
func (f *Feed) deliver(list []Entry, lost bool, seq uint64) {
	for _, l := range f.listening() {
		l.Receive(list, lost, seq)
	}
	f.sequence.advance(seq, f.sequence.historyNow())
}

// Forget has the listeners drop the record with an id, which was changed without an entry.
func (f *Feed) Forget(id tokens.ID) {
	for _, l := range f.listening() {
		l.Forget(id)
	}
}

func (f *Feed) listening() []Listener {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.listeners
}

// Subscribe adds a listener, for as long as the feed is followed. It returns the position up to which the listener need
// receive nothing.
func (f *Feed) Subscribe(l Listener) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listeners = append(slices.Clone(f.listeners), l)
	return f.ring.last().Seq
}

// silence is how long ago the last reading began that got to the end of the table; a year when none has. The clock that
// says more counts: the monotonic one stands still while a machine sleeps, the other may be set back.
func (f *Feed) silence(now time.Time) time.Duration {
	received := f.received.Load()
	if received < 0 {
		return 365 * 24 * time.Hour
	}
	return max(now.Sub(f.start)-time.Duration(received), time.Duration(now.UnixNano()-f.receivedWall.Load()))
}

// Age returns how long ago the last reading began that got to the end of the table: what others changed since is not
// known here. It returns false if there was none.
func (f *Feed) Age() (time.Duration, bool) { return f.silence(f.now()), f.received.Load() >= 0 }

// Live implements tokens.ChangeFeed: it reports whether records in memory count. It rests on no goroutine, so that one
// that hangs is found out, too.
func (f *Feed) Live() bool { return f.LiveAt(f.now()) }

// LiveAt is Live for a caller that has just read the feed's clock.
func (f *Feed) LiveAt(now time.Time) bool { return f.doubts.Load() == nil && f.silence(now) < trustFor }

// Trouble returns why the feed is not to be relied on; nil: it is.
func (f *Feed) Trouble() error {
	if why := f.doubts.Load(); why != nil {
		return *why
	}
	if f.silence(f.now()) >= trustFor {
		return errSilent
	}
	return nil
}

// Err is Trouble as an outage of the store.
func (f *Feed) Err() error {
	if err := f.Trouble(); err != nil {
		return tokens.StoreUnavailable("follow the change feed", err)
	}
	return nil
}

// Newest implements tokens.ChangeFeed.
func (f *Feed) Newest() (tokens.WatchPosition, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.ring.place(f.ring.last()), f.Err()
}

// Reached implements tokens.ChangeFeed.
func (f *Feed) Reached(ctx context.Context) (uint64, error) {
	if err := f.CatchUp(ctx, 0); err != nil {
		return 0, tokens.StoreUnavailable("read the change feed", err)
	}
	at, err := f.Newest()
	return at.Sequence, err
}

// News implements tokens.ChangeFeed.
func (f *Feed) News() <-chan struct{} {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.news
}

// After implements tokens.ChangeFeed.
func (f *Feed) After(at tokens.WatchPosition, limit int) (tokens.ChangePage, error) {
	if err := f.Err(); err != nil {
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
