package tokens_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"patd/tokens"
)

// lease takes the lease of a webhook.
func (h *house) lease(w tokens.Webhook) tokens.WebhookLease {
	h.t.Helper()
	held, err := h.store.LeaseWebhooks(ctx, "server", h.now(), h.now().Add(time.Hour))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, l := range held {
		if l.Webhook == w.Num {
			return l
		}
	}
	h.t.Fatalf("no lease of %s", w.ID)
	return tokens.WebhookLease{}
}

// dueAt returns the ids of the deliveries that are due.
func (h *house) dueAt(w tokens.Webhook) (ids []string) {
	h.t.Helper()
	due, _, err := h.store.DueDeliveries(ctx, w.Num, h.now(), 10)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, d := range due {
		ids = append(ids, d.ID.String())
	}
	return ids
}

func TestTestOfAWebhookIsADeliveryOfItsOwn(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	r := webhookRequest("w")
	r.Filter.Types = []string{tokens.WebhookKeyRotated} // no filter keeps a test out
	w := h.hook(r).Webhook
	first, err := h.TestWebhook(ctx, admin, "w")
	if err != nil {
		t.Fatal(err)
	}
	second, err := h.TestWebhook(ctx, admin, "w")
	if err != nil {
		t.Fatal(err)
	}
	if got := h.dueAt(
		w,
	); len(got) != 2 || !slices.Contains(got, first.ID.String()) ||
		!slices.Contains(got, second.ID.String()) {
		t.Errorf("due: %q", got)
	}
	l := h.lease(w)
	done := tokens.WebhookAttempt{
		Seq:    first.Seq,
		Item:   first.Item,
		Time:   h.now(),
		Status: 200,
		State:  tokens.DeliveryDelivered,
	}
	if err := h.store.RecordAttempts(ctx, l, []tokens.WebhookAttempt{done}); err != nil {
		t.Fatal(err)
	}
	d, err := h.WebhookDelivery(ctx, admin, "w", first.ID.String())
	if err != nil || d.State != tokens.DeliveryDelivered || d.Type != tokens.WebhookTest || d.Status != 200 {
		t.Errorf("%+v, %v", d, err)
	}
	if list, next, err := h.WebhookDeliveries(
		ctx,
		admin,
		"w",
		tokens.WebhookDeliveryFilter{State: tokens.DeliveryPending},
		tokens.Page{},
	); err != nil || len(list) != 1 || list[0].ID != second.ID ||
		next != "" {
		t.Errorf("pending: %+v, %v", list, err)
	}
	page, next, err := h.WebhookDeliveries(ctx, admin, "w", tokens.WebhookDeliveryFilter{}, tokens.Page{Size: 1})
	if err != nil || len(page) != 1 || next == "" {
		t.Fatalf("%+v, %v", page, err)
	}
	rest, next, err := h.WebhookDeliveries(
		ctx,
		admin,
		"w",
		tokens.WebhookDeliveryFilter{},
		tokens.Page{Size: 1, Token: next},
	)
	if err != nil || len(rest) != 1 || rest[0].ID == page[0].ID || next != "" {
		t.Errorf("%+v, %v", rest, err)
	}
	again, err := h.Redeliver(ctx, admin, "w", first.ID.String())
	if err != nil || again.State != tokens.DeliveryPending || again.ID != first.ID {
		t.Errorf("sent again: %+v, %v", again, err)
	}
	if got := h.dueAt(w); len(got) != 2 {
		t.Errorf("due: %q", got)
	}
	for _, id := range []string{"", "x", strings.Repeat("0", 32), strings.ToUpper(first.ID.String()) + "0"} {
		_, err := h.Redeliver(ctx, admin, "w", id)
		wantReason(t, err, "NOT_FOUND", "redeliver "+id)
	}
}

func TestDisabledWebhookGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	w := h.hook(webhookRequest("w")).Webhook
	d, err := h.TestWebhook(ctx, admin, "w")
	if err != nil {
		t.Fatal(err)
	}
	l := h.lease(w)
	failed := tokens.WebhookAttempt{
		Seq:      d.Seq,
		Item:     d.Item,
		Time:     h.now(),
		Status:   410,
		Error:    "status",
		State:    tokens.DeliveryPending,
		NextTime: h.now().Add(72 * time.Hour),
	}
	if err := h.store.RecordAttempts(ctx, l, []tokens.WebhookAttempt{failed}); err != nil {
		t.Fatal(err)
	}
	stale := l
	stale.Number--
	if err := h.Service.DisableWebhook(ctx, stale, "GONE"); !errors.Is(err, tokens.ErrLeaseLost) {
		t.Errorf("by a server without the lease: %v", err)
	}
	if err := h.Service.DisableWebhook(ctx, l, "GONE"); err != nil {
		t.Fatal(err)
	}
	if err := h.Service.DisableWebhook(ctx, l, "GONE"); !errors.Is(err, tokens.ErrLeaseLost) {
		t.Errorf("once more: %v", err)
	}
	off, err := h.Webhook(ctx, admin, "w")
	if err != nil || off.Enabled || off.DisableReason != "GONE" || !off.DisableTime.Equal(h.now()) ||
		off.ETag() == w.ETag() {
		t.Errorf("%+v, %v", off, err)
	}
	_, err = h.TestWebhook(ctx, admin, "w")
	wantReason(t, err, "WEBHOOK_DISABLED", "a test")
	_, err = h.Redeliver(ctx, admin, "w", d.ID.String())
	wantReason(t, err, "WEBHOOK_DISABLED", "a redelivery")
	events, _, err := h.Events(ctx, admin, tokens.EventFilter{Action: "webhook.disable"}, tokens.Page{})
	if err != nil || len(events) != 1 || events[0].Detail != "w GONE" || events[0].Actor != "nobody" {
		t.Errorf("the log has %+v, %v", events, err)
	}
	if kind, ok := tokens.WebhookType(events[0]); !ok || kind != tokens.WebhookDisabled {
		t.Errorf("it is sent as %s", kind)
	}
	h.wait(time.Hour)
	on, err := h.ReplaceWebhook(ctx, admin, webhookRequest("w"))
	if err != nil || !on.Enabled || !on.DisableTime.IsZero() || on.DisableReason != "" || on.Cursor != w.Cursor {
		t.Errorf("enabled again as %+v, %v", on, err)
	}
	if got := h.dueAt(w); !slices.Equal(got, []string{d.ID.String()}) {
		t.Errorf("due: %q", got)
	}
	if d, err = h.WebhookDelivery(ctx, admin, "w", d.ID.String()); err != nil || !d.SinceTime.IsZero() {
		t.Errorf("its retries did not begin anew: %+v, %v", d, err)
	}
}

func TestFilterSelectsWhatHasEverythingItAsksFor(t *testing.T) {
	t.Parallel()
	full := tokens.WebhookFacts{
		Type:      "token.created",
		User:      "u",
		Audiences: []string{"a", "b"},
		Labels:    map[string]string{"team": "x", "env": ""},
	}
	bare := tokens.WebhookFacts{Type: "key.rotated"}
	for _, c := range []struct {
		name       string
		filter     tokens.WebhookFilter
		full, bare bool
	}{
		{"none", tokens.WebhookFilter{}, true, true},
		{"type", tokens.WebhookFilter{Types: []string{"token.created"}}, true, false},
		{"other type", tokens.WebhookFilter{Types: []string{"key.rotated"}}, false, true},
		{"user", tokens.WebhookFilter{Users: []string{"v", "u"}}, true, false},
		{"other user", tokens.WebhookFilter{Users: []string{"v", ""}}, false, false},
		{"audience", tokens.WebhookFilter{Audiences: []string{"b", "c"}}, true, false},
		{"other audience", tokens.WebhookFilter{Audiences: []string{"c"}}, false, false},
		{"label", tokens.WebhookFilter{Labels: map[string]string{"team": "x"}}, true, false},
		{"empty label", tokens.WebhookFilter{Labels: map[string]string{"env": ""}}, true, false},
		{"label that is not there", tokens.WebhookFilter{Labels: map[string]string{"none": ""}}, false, false},
		{"labels", tokens.WebhookFilter{Labels: map[string]string{"team": "x", "env": "y"}}, false, false},
		{"all but one", tokens.WebhookFilter{Types: []string{"token.created"}, Users: []string{"u"}, Audiences: []string{"c"}}, false, false},
	} {
		if got := c.filter.Selects(full); got != c.full {
			t.Errorf("%s selects the token's event: %t", c.name, got)
		}
		if got := c.filter.Selects(bare); got != c.bare {
			t.Errorf("%s selects the key's event: %t", c.name, got)
		}
	}
}

func TestDeliveryIDIsOfOneEvent(t *testing.T) {
	t.Parallel()
	e := tokens.Event{Seq: 7, Time: noon, Action: tokens.ActionTokenCreate, Actor: "operator"}
	id := tokens.NewDeliveryID(1, e, 0)
	if id != tokens.NewDeliveryID(1, e, 0) {
		t.Error("it has another id when it is made again")
	}
	later, next := e, e
	later.Time, next.Seq = noon.Add(time.Microsecond), 8
	for name, other := range map[string]tokens.DeliveryID{
		"webhook": tokens.NewDeliveryID(2, e, 0), "item": tokens.NewDeliveryID(1, e, 1), "history": tokens.NewDeliveryID(1, later, 0),
		"position": tokens.NewDeliveryID(1, next, 0),
	} {
		if id == other {
			t.Errorf("another %s has the same id", name)
		}
	}
	if read, err := tokens.ParseDeliveryID(id.String()); err != nil || read != id {
		t.Errorf("read back as %s, %v", read, err)
	}
}
