package feed

import (
	"context"
	"log/slog"
	"time"

	"patd/tokens"
)

// A feed that is read without error may still be incomplete: positions that went back, or changes in the audit log
// without an entry at the end of the feed, show that a change may have been missed. Then memory does not count, as with
// a feed that is silent, until there was no ground for doubt for a while.

const (
	// doubtFor is how long the feed is not trusted after the last ground for doubt.
	doubtFor = 30 * time.Second
	// comparePolls is how many polls of the feed go by from one comparison with the audit log to the next: a second.
	comparePolls = 10

	wentBack   = "its newest position went back"
	stoodStill = "it stood still while the audit log grew"
)

// doubt is why the feed is not trusted.
type doubt string

func (d doubt) Error() string { return "the change feed is not trusted: " + string(d) }

// Compare checks that the feed has grown with the audit log: each change writes to both in one transaction.
func (f *Feed) Compare(ctx context.Context) error {
	if err := f.take(ctx); err != nil {
		return err
	}
	defer func() { <-f.turn }()
	before, known := f.heads, f.compared
	now, err := f.source.Heads(ctx, before.Event)
	if err != nil {
		return err
	}
	f.heads, f.compared = now, true
	switch {
	case !known:
	case now.Change < before.Change:
		f.doubt(ctx, wentBack)
	case now.Changed && now.Change == before.Change:
		f.doubt(ctx, stoodStill)
	}
	return nil
}

// doubt makes memory not count from now on. The caller has the turn.
func (f *Feed) doubt(ctx context.Context, why doubt) {
	f.doubtUntil = f.now().Add(doubtFor)
	if f.doubts.Swap(&why) == nil {
		f.distrusted.Add(1)
		f.log.LogAttrs(ctx, slog.LevelError, "store: the change feed is not trusted: every lookup reads the database",
			slog.String("why", string(why)), slog.String("remedy", "run `patd check`"))
	}
	f.startOver(f.salt())
}

// trustAgain ends doubt when its time is over. The caller has the turn.
func (f *Feed) trustAgain(ctx context.Context) {
	if f.doubts.Load() == nil || f.now().Before(f.doubtUntil) {
		return
	}
	f.startOver(f.salt())
	f.doubts.Store(nil)
	f.log.LogAttrs(ctx, slog.LevelInfo, "store: the change feed is trusted again")
}

// salt is a number that is not likely to come again.
func (f *Feed) salt() uint64 { return Mark(f.now().UnixMicro(), tokens.Change{}) }

// startOver has listeners drop everything, and makes every position lost that was sent before.
func (f *Feed) startOver(salt uint64) {
	at := f.position()
	f.deliver(nil, true, at.Seq)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ring = ring{before: at, salt: salt}
	f.woken = 0 // so that watchers are woken, though the position is the same
}

// Distrusted returns how many times the feed was found to be incomplete.
func (f *Feed) Distrusted() uint64 { return f.distrusted.Load() }
