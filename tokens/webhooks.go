package tokens

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"patd/tokens/secret"
)

// Bounds of webhooks.
const (
	// MaxWebhooks is how many webhooks there may be: each event is compared with the filter of each.
	MaxWebhooks = 100
	// maxWebhookURL is in bytes.
	maxWebhookURL = 2000
	// maxWebhookFilter is how many values each part of a filter may list.
	maxWebhookFilter = 100
)

// WebhookRequest asks for a new webhook, or says what one is to be.
type WebhookRequest struct {
	ID          string // `[A-Za-z0-9._-]{1,64}`; empty in a new one: patd chooses
	URL         string
	Description string
	Filter      WebhookFilter
	Enabled     bool
	// IdempotencyKey makes the request for a new webhook safe to repeat; empty: it is not.
	IdempotencyKey string
}

// MintedWebhook is a webhook, with its new secret.
type MintedWebhook struct {
	Webhook Webhook
	// Secret is empty only in a replay whose webhook's secret was rotated since.
	Secret   Secret
	Replayed bool
}

// ETag returns the entity tag of a webhook. Each change, rotation and disabling changes it; a delivery does not.
func (w Webhook) ETag() string {
	parts := []string{
		"webhook", w.Num.String(), w.ID, w.URL, w.Description, fmt.Sprint(w.Enabled), framed(w.Filter.Types...),
		framed(w.Filter.Users...), framed(w.Filter.Audiences...), instant(w.UpdateTime), instant(w.DisableTime),
	}
	for _, k := range slices.Sorted(maps.Keys(w.Filter.Labels)) {
		parts = append(parts, k, w.Filter.Labels[k])
	}
	return etag(parts...)
}

// String returns the 32 hexadecimal digits of the id.
func (id DeliveryID) String() string { return hex.EncodeToString(id[:]) }

// ParseDeliveryID reads what String wrote.
func ParseDeliveryID(text string) (id DeliveryID, err error) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(id) || text != strings.ToLower(text) {
		return DeliveryID{}, errors.New("the id of a delivery is 32 hexadecimal digits")
	}
	return DeliveryID(raw), nil
}

// validWebhookID reports whether s may be the id of a webhook. `schemas` is a page beside them.
func validWebhookID(s string) bool { return validServiceName(s) && !LostInPath(s) && s != "schemas" }

// draftWebhook checks what a webhook is to be.
func (s *Service) draftWebhook(r WebhookRequest) (Webhook, error) {
	var c checker
	w := Webhook{ID: r.ID, URL: r.URL, Description: r.Description, Enabled: r.Enabled}
	if !validWebhookID(r.ID) {
		c.add(
			"webhook_id",
			"WEBHOOK_ID_INVALID",
			"a webhook's id must match [A-Za-z0-9._-]{1,64}, and is not `.`, `..` or `schemas`",
		)
	} else if secret.ContainsSecret(r.ID) {
		c.add("webhook_id", "SECRET_IN_FIELD", "holds the secret of a token; revoke that token, it may have been seen")
	}
	c.webhookURL(r.URL, s.checkWebhookURL)
	c.description(r.Description)
	c.idempotencyKey(r.IdempotencyKey)
	f := r.Filter
	w.Filter = WebhookFilter{Types: nonNil(set(f.Types)), Users: nonNil(set(f.Users)), Labels: f.Labels}
	w.Filter.Audiences = nonNil(c.audiences(f.Audiences, maxWebhookFilter))
	for i, t := range w.Filter.Types {
		if !slices.Contains(WebhookTypes(), t) {
			c.add(
				fmt.Sprintf("event_types[%d]", i),
				"EVENT_TYPE_UNKNOWN",
				"there is no such type; there are "+strings.Join(WebhookTypes(), ", "),
			)
		}
	}
	if len(w.Filter.Users) > maxWebhookFilter {
		c.add("users", "TOO_MANY_USERS", fmt.Sprintf("at most %d", maxWebhookFilter))
	}
	for _, u := range w.Filter.Users {
		c.user(u)
	}
	c.labels(f.Labels, s.limits.Labels)
	if len(f.Labels) == 0 {
		w.Filter.Labels = nil
	}
	return w, c.err()
}

// nonNil returns nil for an empty list, as it is read again.
func nonNil(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return list
}

// webhookURL checks where a webhook is. check may refuse it too; its errors begin with "its URL", or name the address.
func (c *checker) webhookURL(text string, check func(string) error) {
	const field, reason = "url", "WEBHOOK_URL_INVALID"
	u, err := url.Parse(text)
	switch {
	case len(text) > maxWebhookURL:
		c.add(field, reason, fmt.Sprintf("a URL has at most %d bytes", maxWebhookURL))
	case secret.ContainsSecret(text):
		c.add(field, "SECRET_IN_FIELD", "holds the secret of a token; revoke that token, it may have been seen")
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		c.add(field, reason, "must be https://host/path; http only on this machine")
	case check != nil:
		if err := check(text); err != nil {
			c.add(
				field,
				reason,
				"must be https, or http on this machine, without credential and fragment, and at a public address or in a "+
					"network that --webhook-allow-private names: "+err.Error(),
			)
		}
	case u.Scheme != "https":
		c.add(field, reason, "must be https://host/path")
	}
}

// CreateWebhook adds a webhook with a new secret. It is sent what happens from now on.
//
// Reasons: WEBHOOK_EXISTS, WEBHOOK_LIMIT_REACHED, those of fields and of idempotency keys, WEBHOOK_DELETED in the
// replay of a request whose webhook was deleted since, and outages.
func (s *Service) CreateWebhook(ctx context.Context, a Actor, r WebhookRequest) (MintedWebhook, error) {
	m, err := s.createWebhook(ctx, a, r)
	if err != nil {
		return MintedWebhook{}, s.refused(ctx, a, Refusal{Action: ActionWebhookCreate}, err)
	}
	return m, nil
}

func (s *Service) createWebhook(ctx context.Context, a Actor, r WebhookRequest) (MintedWebhook, error) {
	if err := s.manager(a); err != nil {
		return MintedWebhook{}, err
	}
	keys, asked := s.keys.Get(), r
	num, err := secret.NewID(s.Now(), s.rand)
	if err != nil {
		return MintedWebhook{}, err
	}
	if r.ID == "" {
		r.ID = "wh-" + num.String()
	}
	w, err := s.draftWebhook(r)
	if err != nil {
		return MintedWebhook{}, err
	}
	seal, err := sealerFor(keys, a, r.IdempotencyKey, []any{"webhook", asked})
	if err != nil {
		return MintedWebhook{}, err
	}
	w.Num = num
	var m MintedWebhook
	err = s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		if m, err = replayWebhook(tx, seal, now); err != nil || m.Replayed {
			return nil, err
		}
		if m.Secret, err = mintWebhookSecret(s.rand); err != nil {
			return nil, err
		}
		if w.Secret, err = sealWebhookSecret(keys, w.Num, m.Secret, s.rand); err != nil {
			return nil, err
		}
		w.CreateTime, w.UpdateTime, w.AsOf = now, now, now
		if w.Cursor, err = newestEvent(tx); err != nil {
			return nil, err
		}
		if err := insertWebhook(tx, w); err != nil {
			return nil, err
		}
		m.Webhook = w
		if err := seal.keep(tx, w.Num, m.Secret, now, s.rand); err != nil {
			return nil, err
		}
		e := a.event(now, ActionWebhookCreate)
		e.Detail = w.ID
		return []Event{e}, nil
	})
	return m, err
}

func insertWebhook(tx Tx, w Webhook) error {
	there, err := tx.Webhooks("", MaxWebhooks)
	if err != nil {
		return fmt.Errorf("count webhooks: %w", err)
	}
	err = tx.InsertWebhook(w)
	switch {
	case errors.Is(err, ErrTaken):
		return Fail(CodeExists, "WEBHOOK_EXISTS", "there is a webhook of this id; replace it instead")
	case err != nil:
		return fmt.Errorf("add webhook: %w", err)
	case len(there) == MaxWebhooks:
		return Fail(
			CodeExhausted,
			"WEBHOOK_LIMIT_REACHED",
			fmt.Sprintf("there are %d webhooks, and there may be no more; delete one first", MaxWebhooks),
		)
	}
	return nil
}

// newestEvent returns the position of the newest event; 0: there is none.
func newestEvent(tx ReadTx) (uint64, error) {
	newest, err := tx.Events(EventQuery{Limit: 1})
	if err != nil {
		return 0, fmt.Errorf("read the newest event: %w", err)
	}
	if len(newest) == 0 {
		return 0, nil
	}
	return newest[0].Seq, nil
}

// replayWebhook returns the stored result of an idempotent request. A zero MintedWebhook means that there is none.
func replayWebhook(tx ReadTx, seal *sealer, now time.Time) (MintedWebhook, error) {
	r, found, err := seal.find(tx, now)
	if err != nil || !found {
		return MintedWebhook{}, err
	}
	m := MintedWebhook{Replayed: true}
	m.Webhook, err = tx.WebhookByNum(r.TokenID)
	m.Webhook.AsOf = now
	switch {
	case errors.Is(err, ErrNotFound):
		return MintedWebhook{}, Fail(
			CodePrecondition,
			"WEBHOOK_DELETED",
			"the webhook of this request was deleted since; for another one use a fresh idempotency key",
		)
	case err != nil:
		return MintedWebhook{}, fmt.Errorf("read the webhook of a request: %w", err)
	}
	if r.Sealed != nil {
		m.Secret, err = seal.open(r)
	}
	return m, err
}

// Webhook returns a webhook.
func (s *Service) Webhook(ctx context.Context, a Actor, id string) (Webhook, error) {
	if err := s.manager(a); err != nil {
		return Webhook{}, err
	}
	var w Webhook
	err := s.view(ctx, func(tx ReadTx, now time.Time) error {
		var err error
		w, err = knownWebhook(tx, id)
		w.AsOf = now
		return err
	})
	return w, err
}

func knownWebhook(tx ReadTx, id string) (Webhook, error) {
	w, err := tx.Webhook(id)
	switch {
	case errors.Is(err, ErrNotFound):
		return Webhook{}, notFound("webhook")
	case err != nil:
		return w, fmt.Errorf("read webhook: %w", err)
	}
	return w, nil
}

// Webhooks lists webhooks by id, and returns the cursor of the next page.
func (s *Service) Webhooks(ctx context.Context, a Actor, p Page) ([]Webhook, string, error) {
	if err := s.manager(a); err != nil {
		return nil, "", err
	}
	list := lister{keys: s.keys.Get(), query: framed("webhooks")}
	after, limit, err := list.page(p)
	if err != nil {
		return nil, "", err
	}
	var found []Webhook
	err = s.view(ctx, func(tx ReadTx, now time.Time) error {
		found, err = tx.Webhooks(after, limit+1)
		for i := range found {
			found[i].AsOf = now
		}
		return err
	})
	if err != nil {
		return nil, "", err
	}
	found, next := cut(list, found, limit, func(w Webhook) string { return w.ID })
	return found, next, nil
}

// changeWebhook runs one change of a webhook in its transaction. change returns the event's detail after the id.
func (s *Service) changeWebhook(ctx context.Context, a Actor, action Action, id string,
	change func(tx Tx, w *Webhook, now time.Time) (detail string, err error),
) (Webhook, error) {
	if err := s.manager(a); err != nil {
		return Webhook{}, s.refused(ctx, a, Refusal{Action: action}, err)
	}
	var w Webhook
	err := s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		var err error
		// One that is not as patd wrote it may be deleted, and nothing else.
		if w, err = knownWebhook(tx, id); err != nil && (action != ActionWebhookDelete || toEnd(err) != nil) {
			return nil, err
		}
		if err := expectTag(ctx, w); err != nil {
			return nil, err
		}
		w.AsOf = now
		detail, err := change(tx, &w, now)
		if errors.Is(err, errUnchanged) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		e := a.event(now, action)
		e.Detail = strings.TrimSpace(w.ID + " " + detail)
		return []Event{e}, nil
	})
	return w, s.refused(ctx, a, Refusal{Action: action}, err)
}

// ReplaceWebhook writes all of a webhook but its secret. One that is enabled again, or has another URL, is sent what it
// was not sent before: the audit log has kept it.
func (s *Service) ReplaceWebhook(ctx context.Context, a Actor, r WebhookRequest) (Webhook, error) {
	to, err := s.draftWebhook(r)
	if err != nil {
		return Webhook{}, s.refused(ctx, a, Refusal{Action: ActionWebhookUpdate}, err)
	}
	return s.changeWebhook(ctx, a, ActionWebhookUpdate, r.ID, func(tx Tx, w *Webhook, now time.Time) (string, error) {
		changes := w.differences(to)
		if len(changes) == 0 && w.DisableTime.IsZero() {
			return "", errUnchanged
		}
		afresh := to.Enabled && (!w.Enabled || to.URL != w.URL)
		w.URL, w.Description, w.Filter, w.Enabled = to.URL, to.Description, to.Filter, to.Enabled
		w.DisableTime, w.DisableReason, w.UpdateTime = time.Time{}, "", now
		if err := tx.UpdateWebhook(*w); err != nil {
			return "", fmt.Errorf("write webhook: %w", err)
		}
		if afresh {
			if err := tx.RequeuePending(w.Num, now); err != nil {
				return "", fmt.Errorf("queue what waits for the webhook: %w", err)
			}
		}
		return strings.Join(changes, " "), nil
	})
}

// differences names the fields in which a webhook is to change.
func (w *Webhook) differences(to Webhook) []string {
	var names []string
	for _, f := range []struct {
		name string
		same bool
	}{
		{"url", w.URL == to.URL}, {"description", w.Description == to.Description},
		{"event_types", slices.Equal(w.Filter.Types, to.Filter.Types)},
		{"users", slices.Equal(w.Filter.Users, to.Filter.Users)},
		{"audiences", slices.Equal(w.Filter.Audiences, to.Filter.Audiences)},
		{"labels", maps.Equal(w.Filter.Labels, to.Filter.Labels)}, {"enabled", w.Enabled == to.Enabled},
	} {
		if !f.same {
			names = append(names, f.name)
		}
	}
	return names
}

// DeleteWebhook removes a webhook. It is sent nothing more.
func (s *Service) DeleteWebhook(ctx context.Context, a Actor, id string) error {
	_, err := s.changeWebhook(ctx, a, ActionWebhookDelete, id, func(tx Tx, w *Webhook, _ time.Time) (string, error) {
		if err := tx.DeleteWebhook(w.Num); err != nil {
			return "", fmt.Errorf("delete webhook: %w", err)
		}
		if err := tx.ForgetSealed(w.Num); err != nil {
			return "", fmt.Errorf("forget the requests of webhook %s: %w", w.ID, err)
		}
		return "", nil
	})
	return err
}
