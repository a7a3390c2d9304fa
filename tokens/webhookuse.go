package tokens

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// RotateWebhookRequest asks for a new secret of a webhook.
type RotateWebhookRequest struct {
	ID string
	// Force rotates although the secret before the last rotation still signs along, and ends that one at once.
	Force          bool
	IdempotencyKey string
}

// RotateWebhookSecret gives a webhook a new secret. The current one signs along for 24 h.
//
// Reasons: NOT_FOUND, ROTATION_IN_PROGRESS while an earlier secret signs along and Force is not set, those of
// idempotency keys, and outages.
func (s *Service) RotateWebhookSecret(ctx context.Context, a Actor, r RotateWebhookRequest) (MintedWebhook, error) {
	if err := s.manager(a); err != nil {
		return MintedWebhook{}, s.refused(ctx, a, Refusal{Action: ActionWebhookRotate}, err)
	}
	var c checker
	if c.idempotencyKey(r.IdempotencyKey); c.err() != nil {
		return MintedWebhook{}, c.err()
	}
	keys := s.keys.Get()
	seal, err := sealerFor(keys, a, r.IdempotencyKey, []any{"rotate webhook", r.ID, r.Force})
	if err != nil {
		return MintedWebhook{}, err
	}
	var m MintedWebhook
	if r.IdempotencyKey != "" { // a repetition must not be refused by the precondition that held the first time
		err = s.view(ctx, func(tx ReadTx, now time.Time) error {
			m, err = replayWebhook(tx, seal, now)
			return err
		})
		if err != nil || m.Replayed {
			return m, s.refused(ctx, a, Refusal{Action: ActionWebhookRotate}, err)
		}
	}
	w, err := s.changeWebhook(
		ctx,
		a,
		ActionWebhookRotate,
		r.ID,
		func(tx Tx, w *Webhook, now time.Time) (string, error) {
			if m, err = replayWebhook(tx, seal, now); err != nil {
				return "", err
			}
			if m.Replayed {
				*w = m.Webhook
				return "", errUnchanged
			}
			if !w.OldSecret.IsZero() && now.Before(w.OldUntil) && !r.Force {
				until := w.OldUntil.Format(time.RFC3339)
				e := Fail(
					CodePrecondition,
					"ROTATION_IN_PROGRESS",
					"the secret before the last rotation signs along until "+until+
						", and another rotation ends it at once; force it if no receiver needs that secret",
				)
				e.Metadata = map[string]string{"previous_secret_expire_time": until}
				return "", e
			}
			if m.Secret, err = mintWebhookSecret(s.rand); err != nil {
				return "", err
			}
			w.OldSecret, w.OldUntil, w.UpdateTime = w.Secret, now.Add(webhookGrace), now
			if w.Secret, err = sealWebhookSecret(keys, w.Num, m.Secret, s.rand); err != nil {
				return "", err
			}
			if err := tx.UpdateWebhook(*w); err != nil {
				return "", fmt.Errorf("write webhook: %w", err)
			}
			if err := tx.ForgetSealed(w.Num); err != nil {
				return "", fmt.Errorf("forget the requests of webhook %s: %w", w.ID, err)
			}
			return "previous secret until " + w.OldUntil.Format(
					time.RFC3339,
				), seal.keep(
					tx,
					w.Num,
					m.Secret,
					now,
					s.rand,
				)
		},
	)
	m.Webhook = w
	if err != nil {
		return MintedWebhook{}, err
	}
	return m, nil
}

var errWebhookDisabled = Fail(
	CodePrecondition,
	"WEBHOOK_DISABLED",
	"the webhook is disabled, and is sent nothing; enable it first",
)

// TestWebhook queues a message of type WebhookTest for an enabled webhook, whatever its filter, and returns its
// delivery.
func (s *Service) TestWebhook(ctx context.Context, a Actor, id string) (WebhookDelivery, error) {
	var d WebhookDelivery
	_, err := s.changeWebhook(ctx, a, ActionWebhookTest, id, func(tx Tx, w *Webhook, now time.Time) (string, error) {
		if !w.Enabled {
			return "", errWebhookDisabled
		}
		newest, err := newestEvent(tx)
		if err != nil {
			return "", err
		}
		d = WebhookDelivery{
			Webhook: w.Num, Seq: newest, Type: WebhookTest, State: DeliveryPending, CreateTime: now, NextTime: now,
		}
		if _, err := io.ReadFull(s.rand, d.ID[:]); err != nil {
			return "", fmt.Errorf("make the id of a test: %w", err)
		}
		for i := range 4 { // a test has a place of its own after the newest event
			d.Item = d.Item<<8 | int64(d.ID[i])
		}
		d.Item += TestItem
		d.Subject = "test:" + d.ID.String() // it waits for no other
		return d.ID.String(), tx.InsertDelivery(d)
	})
	return d, err
}

// WebhookDeliveryFilter selects deliveries; zero fields match all.
type WebhookDeliveryFilter struct {
	State DeliveryState
	Type  string
}

// WebhookDeliveries lists the deliveries of a webhook, newest event first, and returns the cursor of the next page.
func (s *Service) WebhookDeliveries(
	ctx context.Context,
	a Actor,
	id string,
	f WebhookDeliveryFilter,
	p Page,
) ([]WebhookDelivery, string, error) {
	if err := s.manager(a); err != nil {
		return nil, "", err
	}
	list := lister{keys: s.keys.Get(), query: framed("deliveries", id, strconv.Itoa(int(f.State)), f.Type)}
	after, limit, err := list.page(p)
	if err != nil {
		return nil, "", err
	}
	q := WebhookDeliveryQuery{State: f.State, Type: f.Type, Limit: limit + 1}
	if after != "" {
		if _, err := fmt.Sscanf(after, "%d.%d", &q.BeforeSeq, &q.BeforeItem); err != nil {
			return nil, "", errPageToken
		}
	}
	var found []WebhookDelivery
	err = s.store.View(ctx, func(tx ReadTx) error {
		w, err := knownWebhook(tx, id)
		if err != nil {
			return err
		}
		q.Webhook = w.Num
		found, err = tx.WebhookDeliveries(q)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	found, next := cut(
		list,
		found,
		limit,
		func(d WebhookDelivery) string { return fmt.Sprintf("%d.%d", d.Seq, d.Item) },
	)
	return found, next, nil
}

// WebhookDelivery returns a delivery of a webhook.
func (s *Service) WebhookDelivery(ctx context.Context, a Actor, id, delivery string) (WebhookDelivery, error) {
	if err := s.manager(a); err != nil {
		return WebhookDelivery{}, err
	}
	var d WebhookDelivery
	err := s.store.View(ctx, func(tx ReadTx) error {
		w, err := knownWebhook(tx, id)
		if err == nil {
			d, err = knownDelivery(tx, w, delivery)
		}
		return err
	})
	return d, err
}

func knownDelivery(tx ReadTx, w Webhook, text string) (WebhookDelivery, error) {
	id, err := ParseDeliveryID(text)
	if err != nil {
		return WebhookDelivery{}, notFound("delivery")
	}
	d, err := tx.WebhookDelivery(w.Num, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return WebhookDelivery{}, notFound("delivery")
	case err != nil:
		return WebhookDelivery{}, fmt.Errorf("read delivery: %w", err)
	}
	return d, nil
}

// Redeliver has a delivery sent again, with the same id, whether it was delivered, was given up or waits for its next
// attempt. One that waits for an earlier one goes on waiting.
func (s *Service) Redeliver(ctx context.Context, a Actor, id, delivery string) (WebhookDelivery, error) {
	var d WebhookDelivery
	_, err := s.changeWebhook(
		ctx,
		a,
		ActionWebhookRedeliver,
		id,
		func(tx Tx, w *Webhook, now time.Time) (string, error) {
			var err error
			if d, err = knownDelivery(tx, *w, delivery); err != nil {
				return "", err
			}
			if !w.Enabled {
				return "", errWebhookDisabled
			}
			if err := tx.RequeueDelivery(w.Num, d.ID, now); err != nil {
				return "", fmt.Errorf("queue delivery %s: %w", d.ID, err)
			}
			d, err = knownDelivery(tx, *w, delivery)
			return d.ID.String(), err
		},
	)
	return d, err
}

// DisableWebhook disables a webhook that the holder of a lease sends to, and records why: a stable word. ErrLeaseLost
// if another has the lease, or the webhook is deleted or disabled already.
func (s *Service) DisableWebhook(ctx context.Context, l WebhookLease, reason string) error {
	return s.ledger.carryOn(ctx, func(tx Tx, now time.Time) ([]Event, error) {
		holds, err := tx.HoldsWebhook(l)
		if err != nil {
			return nil, fmt.Errorf("read the lease of a webhook: %w", err)
		}
		w, err := tx.WebhookByNum(l.Webhook)
		switch {
		case errors.Is(err, ErrNotFound), err == nil && (!holds || !w.Enabled):
			return nil, ErrLeaseLost
		case err != nil:
			return nil, fmt.Errorf("read webhook: %w", err)
		}
		w.Enabled, w.DisableTime, w.DisableReason, w.UpdateTime = false, now, reason, now
		if err := tx.UpdateWebhook(w); err != nil {
			return nil, fmt.Errorf("disable webhook %s: %w", w.ID, err)
		}
		e := Actor{}.event(now, ActionWebhookDisable)
		e.Detail = w.ID + " " + reason
		return []Event{e}, nil
	})
}
