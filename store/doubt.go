package store

import (
	"context"
	"log/slog"
	"time"

	"patd/tokens"
)

// A feed that is read without error may still not say all: positions that went back, or changes in the audit log without an
// entry at the end of the feed, tell that a change may have been missed. Then nothing that is remembered counts, as with a
// feed that is silent, until there was no ground for doubt for a while.

const (
	// doubtFeed is how long the feed is not trusted after the last ground for doubt.
	doubtFeed = 30 * time.Second
	// comparePolls is how many looks at the feed go by from one comparison with the audit log to the next: a second.
	comparePolls = 10

	wentBack   = "its newest position went back"
	stoodStill = "it stood still while the audit log grew"
)

// doubt is why the feed is not trusted.
type doubt string

func (d doubt) Error() string { return "the change feed is not trusted: " + string(d) }

// heads are the newest positions at one moment.
type heads struct {
	event, change int64
	known         bool
}

// selectHeads also reports whether the audit log has had a change since a position: refused attempts have no entry in the feed.
const selectHeads = `
SELECT coalesce((SELECT max(seq) FROM events), 0), EXISTS (SELECT 1 FROM events WHERE seq > ? AND outcome = 1),
  coalesce((SELECT max(seq) FROM changes), 0)`

// compare looks whether the feed has grown with the audit log. Each change writes to both in one transaction.
func (f *Feed) compare(ctx context.Context) error {
	if err := f.take(ctx); err != nil {
		return err
	}
	defer func() { <-f.turn }()
	now := heads{known: true}
	var changed bool
	before := f.heads
	within := context.WithoutCancel(ctx)
	err := f.store.newsPool().use(ctx, func(c *conn) error {
		return c.one(within, selectHeads, []any{&now.event, &changed, &now.change}, before.event)
	})
	if err != nil {
		return fault("compare the change feed with the audit log", err)
	}
	f.heads = now
	switch {
	case !before.known:
	case now.change < before.change:
		f.doubt(ctx, wentBack)
	case changed && now.change == before.change:
		f.doubt(ctx, stoodStill)
	}
	return nil
}

// doubt has nothing that is remembered count from now on. Whoever calls it has the turn.
func (f *Feed) doubt(ctx context.Context, why doubt) {
	f.doubtUntil = f.now().Add(doubtFeed)
	if f.doubts.Swap(&why) == nil {
		f.distrusted.Add(1)
		f.store.options.Logger.LogAttrs(ctx, slog.LevelError, "store: the change feed is not trusted: every lookup asks the database",
			slog.String("why", string(why)), slog.String("remedy", "run `patd check`"))
	}
	f.startOver(mark(micros(f.now()), tokens.Change{}))
}

// trustAgain ends doubt when its time is over. Whoever calls it has the turn.
func (f *Feed) trustAgain(ctx context.Context) {
	if f.doubts.Load() == nil || f.now().Before(f.doubtUntil) {
		return
	}
	f.startOver(mark(micros(f.now()), tokens.Change{}))
	f.doubts.Store(nil)
	f.store.options.Logger.LogAttrs(ctx, slog.LevelInfo, "store: the change feed is trusted again")
}

// startOver has listeners drop what they know, and makes every position lost that was given before.
func (f *Feed) startOver(salt uint64) {
	at := f.position()
	f.hand(nil, true, at.Seq)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ring = ring{before: at, salt: salt}
	f.told = 0 // so that those who wait are woken, though the position is the same
}

// trouble returns why the feed is not to be relied on; nil: it is.
func (f *Feed) trouble() error {
	if why := f.doubts.Load(); why != nil {
		return *why
	}
	if f.silence() >= trustFeed {
		return errSilent
	}
	return nil
}

// live reports whether what is known of the store counts. It rests on no goroutine: one that hangs is found out, too.
func (f *Feed) live() bool { return f.doubts.Load() == nil && f.silence() < trustFeed }

func (f *Feed) err() error {
	if err := f.trouble(); err != nil {
		return tokens.StoreUnavailable("follow the change feed", err)
	}
	return nil
}
