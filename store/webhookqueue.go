package store

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"time"

	"patd/store/internal/db"
	"patd/tokens"
)

var _ tokens.WebhookQueue = (*Store)(nil)

const (
	hasLeases = `
SELECT EXISTS (SELECT 1 FROM webhooks
  WHERE enabled = 1 AND (lease_holder IS NULL OR lease_holder = ?1 OR lease_us <= ?2 OR lease_us > ?3))`

	takeLeases = `
UPDATE webhooks
SET lease_num = lease_num + CASE WHEN lease_holder = ?1 THEN 0 ELSE 1 END, lease_holder = ?1, lease_us = ?4
WHERE enabled = 1 AND (lease_holder IS NULL OR lease_holder = ?1 OR lease_us <= ?2 OR lease_us > ?3)
RETURNING num, lease_num`

	releaseLeases = `UPDATE webhooks SET lease_holder = NULL, lease_us = NULL WHERE lease_holder = ?1`

	hasOwnLeases = `SELECT EXISTS (SELECT 1 FROM webhooks WHERE lease_holder = ?1)`
)

// LeaseWebhooks implements tokens.WebhookQueue.
func (s *Store) LeaseWebhooks(ctx context.Context, holder string, now, until time.Time) ([]tokens.WebhookLease, error) {
	const op = "take the leases of webhooks"
	args := []any{holder, db.Micros(now), db.Micros(now.Add(10 * until.Sub(now)))}
	var held []tokens.WebhookLease
	if due, err := s.due(ctx, op, hasLeases, args...); err != nil || !due {
		return held, err
	}
	err := s.transact(ctx, op, func(t *tx) error {
		held = nil
		return t.returning(op, takeLeases, func(rows *sql.Rows) error {
			l := tokens.WebhookLease{Holder: holder}
			var num int64
			err := rows.Scan(&num, &l.Number)
			l.Webhook = tokens.ID(num)
			held = append(held, l)
			return err
		}, append(args, db.Micros(until))...)
	})
	if err != nil {
		return nil, err
	}
	return held, nil
}

// ReleaseWebhooks implements tokens.WebhookQueue.
func (s *Store) ReleaseWebhooks(ctx context.Context, holder string) error {
	const op = "give back the leases of webhooks"
	if due, err := s.due(ctx, op, hasOwnLeases, holder); err != nil || !due {
		return err
	}
	return s.transact(ctx, op, func(t *tx) error {
		_, err := t.exec(op, releaseLeases, holder)
		return err
	})
}

const moveCursor = `
UPDATE webhooks SET cursor_seq = ?5
WHERE num = ?1 AND lease_holder = ?2 AND lease_num = ?3 AND cursor_seq = ?4 AND enabled = 1`

// EnqueueDeliveries implements tokens.WebhookQueue.
func (s *Store) EnqueueDeliveries(ctx context.Context, l tokens.WebhookLease, from, to uint64,
	list []tokens.WebhookDelivery) error {
	const op = "queue deliveries"
	return s.transact(ctx, op, func(t *tx) error {
		err := t.mustExec(
			op,
			tokens.ErrLeaseLost,
			moveCursor,
			int64(l.Webhook),
			l.Holder,
			l.Number,
			int64(from),
			int64(to),
		)
		for i := range list {
			if err != nil {
				return err
			}
			d := list[i]
			d.Webhook = l.Webhook
			err = t.insertDelivery(&d)
		}
		return err
	})
}

const (
	selectDue = `SELECT ` + deliveryColumns + ` FROM webhook_deliveries INDEXED BY webhook_deliveries_due
WHERE webhook = ?1 AND next_us <= ?2 AND next_us IS NOT NULL ORDER BY next_us, seq, item LIMIT ?3`

	selectUntried = `SELECT ` + deliveryColumns + ` FROM webhook_deliveries INDEXED BY webhook_deliveries_due
WHERE webhook = ?1 AND next_us <= ?2 AND next_us IS NOT NULL AND attempts = 0 ORDER BY next_us, seq, item LIMIT ?3`

	selectNextDue = `SELECT min(next_us) FROM webhook_deliveries INDEXED BY webhook_deliveries_due
WHERE webhook = ?1 AND next_us > ?2 AND next_us IS NOT NULL`
)

// DueDeliveries implements tokens.WebhookQueue.
func (s *Store) DueDeliveries(ctx context.Context, webhook tokens.ID, now time.Time, limit int) (
	due []tokens.WebhookDelivery, next time.Time, err error) {
	const op = "list deliveries that are due"
	err = s.view(ctx, func(t *readTx) error {
		if due, err = t.deliveries(op, selectDue, int64(webhook), db.Micros(now), limit); err != nil {
			return err
		}
		if len(due) == limit && limit > 0 {
			next = due[limit-1].NextTime
			untried, err := t.deliveries(op, selectUntried, int64(webhook), db.Micros(now), max(limit/2, 1))
			for _, d := range untried {
				if !slices.ContainsFunc(due, func(o tokens.WebhookDelivery) bool { return o.ID == d.ID }) {
					due = append(due, d)
				}
			}
			return err
		}
		var us sql.NullInt64
		err := t.one(op, selectNextDue, []any{&us}, int64(webhook), db.Micros(now))
		next = instantOf(us)
		return err
	})
	if err != nil {
		return nil, time.Time{}, err
	}
	return due, next, nil
}

const (
	isHolder = `SELECT count(*) FROM webhooks WHERE num = ?1 AND lease_holder = ?2 AND lease_num = ?3`

	recordAttempt = `
UPDATE webhook_deliveries
SET state = ?4, attempts = attempts + 1, since_us = coalesce(since_us, ?5), attempt_us = ?5, duration_us = ?6,
  status = ?7, error = ?8, next_us = ?9, end_us = ?10
WHERE webhook = ?1 AND seq = ?2 AND item = ?3 AND state = 1
RETURNING subject`

	// The first of those that are pending is due. It is already, if one before it was queued again.
	promoteNext = `
UPDATE webhook_deliveries SET next_us = coalesce(next_us, ?3)
WHERE (webhook, seq, item) = (SELECT webhook, seq, item FROM webhook_deliveries INDEXED BY webhook_deliveries_pending
  WHERE webhook = ?1 AND subject = ?2 AND state = 1 ORDER BY seq, item LIMIT 1)`
)

// RecordAttempts implements tokens.WebhookQueue.
func (s *Store) RecordAttempts(ctx context.Context, l tokens.WebhookLease, list []tokens.WebhookAttempt) error {
	const op = "record attempts at deliveries"
	if len(list) == 0 {
		return nil
	}
	return s.transact(ctx, op, func(t *tx) error {
		if holds, err := t.HoldsWebhook(l); err != nil || !holds {
			return cmp.Or(err, tokens.ErrLeaseLost)
		}
		for i := range list {
			if err := t.recordAttempt(op, l.Webhook, &list[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// HoldsWebhook implements tokens.WebhookReader.
func (t *readTx) HoldsWebhook(l tokens.WebhookLease) (bool, error) {
	var n int64
	err := t.one("read the lease of a webhook", isHolder, []any{&n}, int64(l.Webhook), l.Holder, l.Number)
	return n > 0, err
}

func (t *tx) recordAttempt(op string, webhook tokens.ID, a *tokens.WebhookAttempt) error {
	var nextUS, endUS, status any
	ended := a.Time.Add(a.Duration)
	if a.State == tokens.DeliveryPending {
		nextUS = db.Micros(a.NextTime)
	} else {
		endUS = db.Micros(ended)
	}
	if a.Status != 0 {
		status = int64(a.Status)
	}
	var subject string
	err := t.returning(
		op,
		recordAttempt,
		func(rows *sql.Rows) error { return rows.Scan(&subject) },
		int64(webhook),
		int64(
			a.Seq,
		),
		a.Item,
		int64(a.State),
		db.Micros(a.Time),
		a.Duration.Microseconds(),
		status,
		db.NullText(a.Error),
		nextUS,
		endUS,
	)
	if err != nil || subject == "" || endUS == nil {
		return err
	}
	_, err = t.exec(op, promoteNext, int64(webhook), subject, db.Micros(ended))
	return err
}

const countPending = `
SELECT count(*), min(create_us) FROM (SELECT create_us FROM webhook_deliveries INDEXED BY webhook_deliveries_pending
  WHERE webhook = ?1 AND state = 1 LIMIT ?2) p`

// PendingDeliveries implements tokens.WebhookQueue.
func (s *Store) PendingDeliveries(
	ctx context.Context,
	webhook tokens.ID,
	limit int,
) (n int, oldest time.Time, err error) {
	var us sql.NullInt64
	err = s.view(ctx, func(t *readTx) error {
		return t.one("count pending deliveries", countPending, []any{&n, &us}, int64(webhook), limit)
	})
	return n, instantOf(us), err
}

// keepDelivered and keepFailed are how long deliveries that have ended are kept: so long they are listed, and can be
// asked for again.
const (
	keepDelivered = 3 * tokens.Day
	keepFailed    = 30 * tokens.Day
)

const (
	// Webhooks are few, and deliveries are many: those of one that was deleted are found from one webhook to the next.
	deletedWebhooks = `
WITH RECURSIVE w (num) AS (
  SELECT min(webhook) FROM webhook_deliveries
  UNION ALL
  SELECT (SELECT min(d.webhook) FROM webhook_deliveries d WHERE d.webhook > w.num) FROM w WHERE w.num IS NOT NULL
)
SELECT num FROM w WHERE num IS NOT NULL AND num NOT IN (SELECT num FROM webhooks)`

	hasPrunableDeliveries = `
SELECT EXISTS (SELECT 1 FROM webhook_deliveries WHERE state = 2 AND end_us <= ?1 AND end_us IS NOT NULL)
    OR EXISTS (SELECT 1 FROM webhook_deliveries WHERE state = 3 AND end_us <= ?2 AND end_us IS NOT NULL)
    OR EXISTS (` + deletedWebhooks + `)`

	pruneEndedDeliveries = `
DELETE FROM webhook_deliveries WHERE (webhook, seq, item) IN (SELECT webhook, seq, item
  FROM webhook_deliveries INDEXED BY webhook_deliveries_ended
  WHERE state = ?1 AND end_us <= ?2 AND end_us IS NOT NULL LIMIT ?3)`

	pruneDeletedWebhooks = `
DELETE FROM webhook_deliveries WHERE (webhook, seq, item) IN (SELECT webhook, seq, item FROM webhook_deliveries
  WHERE webhook IN (` + deletedWebhooks + `) LIMIT ?1)`
)

// pruneDeliveries drops deliveries that ended some days ago, and those of deleted webhooks.
func (s *Store) pruneDeliveries(ctx context.Context) error {
	const op = "prune deliveries that have ended"
	now := s.options.Now()
	delivered, failed := db.Micros(now.Add(-keepDelivered)), db.Micros(now.Add(-keepFailed))
	for range pruneRounds {
		if due, err := s.due(ctx, op, hasPrunableDeliveries, delivered, failed); err != nil || !due {
			return err
		}
		err := s.transact(ctx, op, func(t *tx) error {
			_, err := t.exec(op, pruneEndedDeliveries, int64(tokens.DeliveryDelivered), delivered, pruneLimit)
			if err == nil {
				_, err = t.exec(op, pruneEndedDeliveries, int64(tokens.DeliveryFailed), failed, pruneLimit)
			}
			if err == nil {
				_, err = t.exec(op, pruneDeletedWebhooks, pruneLimit)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
