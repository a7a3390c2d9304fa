package tokens

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// minEventAge is the least age of a deleted event: a store may look up its own newest ones.
const minEventAge = time.Minute

// prunePage is the number of events read at a time.
const prunePage = 1000

var errPruneTooRecent = errors.New("events can be deleted when they are a minute old; name an earlier time")

// Pruning says which events to delete.
type Pruning struct {
	// Before is the time before which events are deleted: a minute ago or earlier.
	Before time.Time
	// Archive receives each event that will be deleted, in the order of positions. A last call without events means
	// that all were sent, and must make them durable. If Archive fails, nothing is deleted. Nil: they are not archived.
	Archive func([]Event) error
	// Note is added to the audit event of the pruning; empty: nothing.
	Note string
}

// PruneEvents releases the oldest events of the audit log for deletion, up to the first one that is not before
// p.Before, or that an enabled webhook has yet to get, and returns how many. It records an audit event of its own.
// ErrTaken: another call did so at the same time, and nothing was released. The store deletes them afterwards.
// Positions are never reused.
func PruneEvents(ctx context.Context, st Store, p Pruning, now time.Time) (released int64, err error) {
	p.Before = p.Before.UTC().Truncate(time.Microsecond)
	if p.Before.After(now.Add(-minEventAge)) {
		return 0, errPruneTooRecent
	}
	var from uint64
	err = st.View(ctx, func(tx ReadTx) error {
		from, _, err = tx.Released()
		return err
	})
	if err != nil {
		return 0, err
	}
	upTo, released, err := walkOldest(ctx, st, from, p)
	if err != nil || released == 0 {
		return 0, err
	}
	if p.Archive != nil {
		if err := p.Archive(nil); err != nil {
			return 0, err
		}
	}
	err = st.Update(ctx, func(tx Tx) ([]Event, error) {
		if err := tx.ReleaseEvents(from, upTo, p.Before); err != nil {
			return nil, err
		}
		e := Operator().event(now, ActionAuditPrune)
		e.Detail = fmt.Sprintf(
			"%d events before %s, up to position %d",
			released,
			p.Before.Format(time.RFC3339Nano),
			upTo,
		)
		if p.Archive != nil {
			e.Detail += ", archived"
		}
		if p.Note != "" {
			e.Detail += ", " + p.Note
		}
		return []Event{e}, nil
	})
	if err != nil {
		return 0, err
	}
	return released, nil
}

// walkOldest archives the events that can be released, and returns the position of the last one and their number. Times
// need not grow with positions: the clock may have been set back. The first event that is too young ends the walk.
func walkOldest(ctx context.Context, st Store, from uint64, p Pruning) (upTo uint64, n int64, err error) {
	upTo = from
	for {
		var page []Event
		var sent uint64
		err := st.View(ctx, func(tx ReadTx) error {
			if sent, err = sentToWebhooks(tx); err != nil {
				return err
			}
			page, err = tx.OldestEvents(upTo, prunePage)
			return err
		})
		if err != nil {
			return 0, 0, err
		}
		full := len(page) == prunePage
		for i, e := range page {
			if !e.Time.Before(p.Before) || e.Seq > sent {
				page, full = page[:i], false
				break
			}
		}
		if len(page) == 0 {
			return upTo, n, nil
		}
		if p.Archive != nil {
			if err := p.Archive(page); err != nil {
				return 0, 0, err
			}
		}
		upTo, n = page[len(page)-1].Seq, n+int64(len(page))
		if !full {
			return upTo, n, nil
		}
	}
}

// sentToWebhooks returns the position in the audit log up to which each enabled webhook has what it is to be sent. What
// is above it is not released: it would be lost to that webhook. One that fails is disabled after some days.
func sentToWebhooks(tx ReadTx) (uint64, error) {
	sent := uint64(math.MaxUint64)
	for after := ""; ; {
		page, err := tx.Webhooks(after, MaxPageSize)
		if err != nil {
			return 0, fmt.Errorf("read webhooks: %w", err)
		}
		for _, w := range page {
			if after = w.ID; w.Enabled {
				sent = min(sent, w.Cursor)
			}
		}
		if len(page) < MaxPageSize {
			return sent, nil
		}
	}
}

// PruneDue reports whether an event that can be released is older than before.
func PruneDue(ctx context.Context, st Store, before time.Time) (due bool, err error) {
	err = st.View(ctx, func(tx ReadTx) error {
		from, _, err := tx.Released()
		if err != nil {
			return err
		}
		oldest, err := tx.OldestEvents(from, 1)
		if err != nil || len(oldest) == 0 || !oldest[0].Time.Before(before) {
			return err
		}
		sent, err := sentToWebhooks(tx)
		due = oldest[0].Seq <= sent
		return err
	})
	return due, err
}
