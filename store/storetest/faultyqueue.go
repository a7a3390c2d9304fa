package storetest

import (
	"context"
	"errors"
	"time"

	"patd/tokens"
)

var _ tokens.WebhookQueue = (*Faulty)(nil)

var errNoQueue = errors.New("the store behind the faults keeps no deliveries")

// queue passes one method of the queue on.
func queue[T any](ctx context.Context, f *Faulty, op Op, next func(tokens.WebhookQueue) (T, error)) (T, error) {
	var none T
	if err := f.at(ctx, op); err != nil {
		return none, err
	}
	q, ok := f.st.(tokens.WebhookQueue)
	if !ok {
		return none, errNoQueue
	}
	return next(q)
}

// LeaseWebhooks implements tokens.WebhookQueue.
func (f *Faulty) LeaseWebhooks(
	ctx context.Context,
	holder string,
	now, until time.Time,
) ([]tokens.WebhookLease, error) {
	return queue(ctx, f, "LeaseWebhooks", func(q tokens.WebhookQueue) ([]tokens.WebhookLease, error) {
		return q.LeaseWebhooks(ctx, holder, now, until)
	})
}

// ReleaseWebhooks implements tokens.WebhookQueue.
func (f *Faulty) ReleaseWebhooks(ctx context.Context, holder string) error {
	_, err := queue(ctx, f, "ReleaseWebhooks", func(q tokens.WebhookQueue) (any, error) {
		return nil, q.ReleaseWebhooks(ctx, holder)
	})
	return err
}

// EnqueueDeliveries implements tokens.WebhookQueue.
func (f *Faulty) EnqueueDeliveries(
	ctx context.Context,
	l tokens.WebhookLease,
	from, to uint64,
	list []tokens.WebhookDelivery,
) error {
	_, err := queue(ctx, f, "EnqueueDeliveries", func(q tokens.WebhookQueue) (any, error) {
		return nil, q.EnqueueDeliveries(ctx, l, from, to, list)
	})
	return err
}

// DueDeliveries implements tokens.WebhookQueue.
func (f *Faulty) DueDeliveries(
	ctx context.Context,
	webhook tokens.ID,
	now time.Time,
	limit int,
) (due []tokens.WebhookDelivery, next time.Time, err error) {
	due, err = queue(ctx, f, "DueDeliveries", func(q tokens.WebhookQueue) (due []tokens.WebhookDelivery, err error) {
		due, next, err = q.DueDeliveries(ctx, webhook, now, limit)
		return due, err
	})
	return due, next, err
}

// RecordAttempts implements tokens.WebhookQueue.
func (f *Faulty) RecordAttempts(ctx context.Context, l tokens.WebhookLease, list []tokens.WebhookAttempt) error {
	_, err := queue(ctx, f, "RecordAttempts", func(q tokens.WebhookQueue) (any, error) {
		return nil, q.RecordAttempts(ctx, l, list)
	})
	return err
}

// PendingDeliveries implements tokens.WebhookQueue.
func (f *Faulty) PendingDeliveries(
	ctx context.Context,
	webhook tokens.ID,
	limit int,
) (n int, oldest time.Time, err error) {
	n, err = queue(ctx, f, "PendingDeliveries", func(q tokens.WebhookQueue) (n int, err error) {
		n, oldest, err = q.PendingDeliveries(ctx, webhook, limit)
		return n, err
	})
	return n, oldest, err
}
