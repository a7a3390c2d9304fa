package tokens

import (
	"context"
	"errors"
	"time"
)

// ErrLeaseLost is returned for a write under a lease of a webhook that another server holds by now, or whose webhook is
// deleted or, where that matters, disabled. Nothing was written.
var ErrLeaseLost = errors.New("the lease of the webhook is lost")

// WebhookReader reads webhooks and their deliveries.
type WebhookReader interface {
	// Webhook reads a webhook by its id. ErrNotFound; ErrRecordInvalid, with the record, if it is not as patd wrote it.
	Webhook(id string) (Webhook, error)
	// WebhookByNum reads a webhook by its Num. ErrNotFound; ErrRecordInvalid, as Webhook.
	WebhookByNum(num ID) (Webhook, error)
	// Webhooks lists webhooks with ids above after, by id in byte order, at most limit, as they are stored.
	Webhooks(after string, limit int) ([]Webhook, error)
	// WebhookDelivery reads a delivery. ErrNotFound. Ended ones are kept for some days.
	WebhookDelivery(webhook ID, id DeliveryID) (WebhookDelivery, error)
	// WebhookDeliveries lists deliveries by the query, newest event first.
	WebhookDeliveries(q WebhookDeliveryQuery) ([]WebhookDelivery, error)
	// FailingDelivery reads the pending delivery of a webhook that was tried in vain, and is tried again first.
	// ErrNotFound.
	FailingDelivery(webhook ID) (WebhookDelivery, error)
	// HoldsWebhook reports whether no other server has taken a lease since.
	HoldsWebhook(l WebhookLease) (bool, error)
}

// WebhookWriter writes webhooks.
type WebhookWriter interface {
	// InsertWebhook adds a webhook. ErrTaken when the id exists.
	InsertWebhook(w Webhook) error
	// UpdateWebhook writes all of the webhook with w.Num but ID, CreateTime and Cursor. ErrNotFound.
	UpdateWebhook(w Webhook) error
	// DeleteWebhook removes a webhook. Its deliveries are no longer found, and are dropped later. ErrNotFound.
	DeleteWebhook(num ID) error
	// InsertDelivery adds a pending delivery that is of no event. ErrTaken when the webhook has one of that id or
	// place.
	InsertDelivery(d WebhookDelivery) error
	// RequeueDelivery makes a delivery due at a time, whether it has ended or is pending; one that waits for another
	// goes on waiting. Its retries begin anew. ErrNotFound.
	RequeueDelivery(webhook ID, id DeliveryID, at time.Time) error
	// RequeuePending makes the pending deliveries of a webhook that wait for no other due at a time. Their retries
	// begin anew.
	RequeuePending(webhook ID, at time.Time) error
}

// WebhookQueue is a Store that keeps what is to be sent to webhooks. Each method is a transaction of its own that
// leaves no event; it gives way to changes. Errors are as those of a Store.
type WebhookQueue interface {
	// LeaseWebhooks takes the lease of every enabled webhook that has none at now, or whose lease is the holder's
	// already, until a time, and returns them. A lease ends at its time, or when it ends later than ten times as long
	// from now: its holder's clock was set back. It writes nothing when there is nothing to take or to renew.
	LeaseWebhooks(ctx context.Context, holder string, now, until time.Time) ([]WebhookLease, error)
	// ReleaseWebhooks gives back the leases of a holder, so that others need not wait for their end.
	ReleaseWebhooks(ctx context.Context, holder string) error
	// EnqueueDeliveries adds deliveries, by Seq and Item, and moves the webhook's cursor from one position to another,
	// in one transaction. Of each it takes Seq, Item, ID, Type, Subject, Data and CreateTime; NextTime is when the
	// first attempt is due if no delivery waits before it. ErrLeaseLost, also if the cursor is not at from, or the
	// webhook is disabled: nothing was added.
	EnqueueDeliveries(ctx context.Context, l WebhookLease, from, to uint64, list []WebhookDelivery) error
	// DueDeliveries lists pending deliveries of a webhook that are due at now, the longest due first, at most limit,
	// and after those, where there are more, up to half as many that were not tried yet, so that these are not behind
	// many which are tried again and again. No two are of one subject, unless one was asked for again. next is when the
	// next one is due after the first limit; zero: none is.
	DueDeliveries(
		ctx context.Context,
		webhook ID,
		now time.Time,
		limit int,
	) (due []WebhookDelivery, next time.Time, err error)
	// RecordAttempts records attempts at deliveries that are pending; others are left as they are. When a delivery
	// ends, the next one of its subject is due. ErrLeaseLost.
	RecordAttempts(ctx context.Context, l WebhookLease, list []WebhookAttempt) error
	// PendingDeliveries counts the pending deliveries of a webhook, up to limit, and returns when the oldest was made;
	// zero: there is none.
	PendingDeliveries(ctx context.Context, webhook ID, limit int) (n int, oldest time.Time, err error)
}
