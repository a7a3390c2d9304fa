package webhook

import (
	"context"
	"fmt"
	"slices"
	"time"

	"patd/tokens"
)

const (
	// eventsPage is how many events are read at once, and eventsRound how many before attempts are begun again.
	eventsPage, eventsRound = 250, 2500
	// maxPage bounds the bodies, in bytes, that are made at once.
	maxPage = 1 << 20
	// maxPending is how many deliveries may wait for one endpoint. The audit log keeps the rest, where they cost
	// nothing.
	maxPending = 20_000
	// countEvery is how often the pending deliveries are counted.
	countEvery = 10 * time.Second
	// fillPause is the least time between two looks into the audit log, for each webhook that this server sends to:
	// many changes share one look, and many webhooks share the store.
	fillPause = 20 * time.Millisecond
	// keepAhead is how many events, and for how long, the cursor in the store may be behind what was found to be of no
	// interest. Another server would look at them again.
	keepAhead    = 5000
	keepAheadFor = 30 * time.Second
)

// outbox makes deliveries of the events of the audit log.
type outbox struct {
	stale   bool      // there may be events that were not looked at
	filled  time.Time // the last look
	saved   uint64    // the cursor as the store has it
	ahead   uint64    // the position up to which events were looked at
	since   time.Time // when ahead was saved last
	began   bool
	pending int       // about how many deliveries wait
	counted time.Time // when they were counted
}

// changed notes that there may be new events.
func (o *outbox) changed() { o.stale = true }

// fill makes deliveries of the events that have happened since, in the order of the audit log, unless too many wait
// already: then the log keeps them.
func (o *outbox) fill(w *worker) error {
	if err := o.count(w); err != nil {
		return err
	}
	if o.began && !o.stale {
		return nil
	}
	if due := o.filled.Add(fillPause * time.Duration(len(w.workers()))); time.Now().Before(due) {
		w.wakeAt(due)
		return nil
	}
	o.filled = time.Now()
	for range eventsRound / eventsPage {
		if o.pending >= maxPending {
			return nil // it is still stale
		}
		more, err := o.page(w)
		if err != nil {
			return err
		}
		if !more {
			o.stale = false
			return nil
		}
	}
	w.wakeAt(time.Now())
	return nil
}

// page looks at some events, and reports whether there may be more. The webhook's filter is read together with them.
func (o *outbox) page(w *worker) (more bool, err error) {
	var list []tokens.WebhookDelivery
	var last uint64
	err = w.Queue.View(w.ctx, func(tx tokens.ReadTx) error {
		list = list[:0]
		if err := w.read(tx); err != nil {
			return err
		}
		if o.saved != w.webhook.Cursor || !o.began {
			o.saved, o.ahead, o.since, o.began = w.webhook.Cursor, w.webhook.Cursor, time.Now(), true
		}
		events, err := tx.OldestEvents(o.ahead, eventsPage)
		if err != nil {
			return fmt.Errorf("read the audit log: %w", err)
		}
		last, more = o.ahead, len(events) == eventsPage
		size := 0
		for _, e := range events {
			if size > maxPage {
				more = true
				break
			}
			d, ok, err := w.delivery(tx, e)
			if err != nil {
				return err
			}
			if last = e.Seq; ok {
				list, size = append(list, d), size+len(d.Data)
			}
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	if len(list) == 0 && last-o.saved < keepAhead && time.Since(o.since) < keepAheadFor {
		o.ahead = last
		return more, nil
	}
	if last == o.saved {
		o.since = time.Now()
		return more, nil
	}
	if err := w.Queue.EnqueueDeliveries(w.ctx, w.lease, o.saved, last, list); err != nil {
		return false, err
	}
	o.saved, o.ahead, o.since = last, last, time.Now()
	o.pending += len(list)
	return more, nil
}

// delivery makes the delivery of an event; false: the webhook gets none.
func (w *worker) delivery(tx tokens.ReadTx, e tokens.Event) (tokens.WebhookDelivery, bool, error) {
	t, ok := tokens.WebhookType(e)
	if types := w.webhook.Filter.Types; !ok || len(types) > 0 && !slices.Contains(types, t) {
		return tokens.WebhookDelivery{}, false, nil // its records need not be read
	}
	m, ok, err := Describe(tx, e)
	if err != nil || !ok || !w.webhook.Filter.Selects(m.Facts) {
		return tokens.WebhookDelivery{}, false, err
	}
	now := w.Now()
	return tokens.WebhookDelivery{
		Webhook: w.webhook.Num, Seq: e.Seq, ID: tokens.NewDeliveryID(w.webhook.Num, e, 0), Type: m.Facts.Type,
		Subject: m.Subject, Data: m.Body, State: tokens.DeliveryPending, CreateTime: now, NextTime: now,
		TraceParent: e.TraceParent,
	}, true, nil
}

// count counts the pending deliveries now and then. Between, what is queued and what ends is counted along.
func (o *outbox) count(w *worker) error {
	if !o.counted.IsZero() && time.Since(o.counted) < countEvery {
		return nil
	}
	n, oldest, err := w.Queue.PendingDeliveries(w.ctx, w.lease.Webhook, maxPending)
	if err != nil {
		return err
	}
	o.pending, o.counted = n, time.Now()
	at := int64(0)
	if !oldest.IsZero() {
		at = oldest.UnixMicro()
	}
	w.oldest.Store(at)
	return nil
}

// read reads the webhook. A disabled one is not found.
func (w *worker) read(tx tokens.ReadTx) error {
	now, err := tx.WebhookByNum(w.lease.Webhook)
	if err != nil {
		return fmt.Errorf("read webhook: %w", err)
	}
	if !now.Enabled {
		return tokens.ErrNotFound
	}
	w.webhook = now
	return nil
}

// reread reads the webhook alone.
func (w *worker) reread(ctx context.Context) error { return w.Queue.View(ctx, w.read) }

// wakeAt has the worker look again at a time at the latest.
func (w *worker) wakeAt(at time.Time) {
	if at.Before(w.wake) {
		w.wake = at
	}
}
