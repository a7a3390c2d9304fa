package tokens

import (
	"context"
	"errors"
	"fmt"
)

// WebhookState is a webhook with how it fares, for people.
type WebhookState struct {
	Webhook

	Edited  bool            // it is not as patd wrote it, is sent nothing, and can be deleted and nothing else
	Last    WebhookDelivery // of the newest event; zero: there is none, or it is not kept any more
	Failing WebhookDelivery // the one that was tried in vain and is tried again first; zero: none was
}

// WebhookStates lists webhooks by id with how they fare, and returns the cursor of the next page.
func (s *Service) WebhookStates(ctx context.Context, a Actor, p Page) ([]WebhookState, string, error) {
	found, next, err := s.Webhooks(ctx, a, p)
	if err != nil {
		return nil, "", err
	}
	list := make([]WebhookState, 0, len(found))
	err = s.store.View(ctx, func(tx ReadTx) error {
		list = list[:0]
		for _, w := range found {
			st, err := webhookState(tx, w.ID)
			if errors.Is(err, ErrNotFound) {
				continue // it was deleted meanwhile
			}
			if err != nil {
				return err
			}
			list = append(list, st)
		}
		return nil
	})
	return list, next, err
}

// WebhookState returns a webhook with how it fares.
func (s *Service) WebhookState(ctx context.Context, a Actor, id string) (st WebhookState, err error) {
	if err := s.manager(a); err != nil {
		return WebhookState{}, err
	}
	err = s.store.View(ctx, func(tx ReadTx) error {
		st, err = webhookState(tx, id)
		if errors.Is(err, ErrNotFound) {
			return notFound("webhook")
		}
		return err
	})
	return st, err
}

// webhookState reads a webhook, also one that is not as patd wrote it. ErrNotFound.
func webhookState(tx ReadTx, id string) (st WebhookState, err error) {
	st.Webhook, err = tx.Webhook(id)
	if toEnd(err) != nil {
		return st, fmt.Errorf("read webhook: %w", err)
	}
	st.Edited = err != nil
	newest, err := tx.WebhookDeliveries(WebhookDeliveryQuery{Webhook: st.Num, Limit: 1})
	if err != nil {
		return st, fmt.Errorf("read the newest delivery of webhook %s: %w", id, err)
	}
	if len(newest) > 0 {
		st.Last = newest[0]
	}
	st.Failing, err = tx.FailingDelivery(st.Num)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return st, fmt.Errorf("read the failing delivery of webhook %s: %w", id, err)
	}
	return st, nil
}
