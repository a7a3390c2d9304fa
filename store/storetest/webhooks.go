package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"patd/tokens"
)

// webhook adds a webhook, and returns it as it is read.
func (f *fixture) webhook(id string, change ...func(*tokens.Webhook)) tokens.Webhook {
	f.t.Helper()
	w := tokens.Webhook{
		Num:        f.nextID(),
		ID:         id,
		URL:        "https://" + id + ".example.com/",
		Enabled:    true,
		CreateTime: f.now,
		UpdateTime: f.now,
		Secret:     tokens.SealedSecret{Key: "k1", Box: []byte("box of " + id)},
	}
	for _, c := range change {
		c(&w)
	}
	f.update(func(tx tokens.Tx) error { return tx.InsertWebhook(w) }, tokens.Event{Action: tokens.ActionWebhookCreate})
	return w
}

func testWebhooks(t *testing.T, f *fixture) {
	full := f.webhook("full", func(w *tokens.Webhook) {
		w.Description, w.Enabled = "to the chat", false
		w.Filter = tokens.WebhookFilter{
			Types: []string{"token.created", "token.revoked"}, Users: []string{"u v", "ü"},
			Audiences: []string{"api", "https://b.example/"}, Labels: map[string]string{"team": "a b"},
		}
		w.DisableTime, w.DisableReason, w.Cursor = f.now, "GONE", 17
		w.OldSecret, w.OldUntil = tokens.SealedSecret{Key: "k1", Box: []byte{0, 255}}, f.now.Add(time.Hour)
	})
	bare := f.webhook("bare")
	f.view(func(tx tokens.ReadTx) error {
		for _, want := range []tokens.Webhook{full, bare} {
			got, err := tx.Webhook(want.ID)
			if err != nil {
				return err
			}
			f.equal("a webhook", got, want)
			if got, err = tx.WebhookByNum(want.Num); err != nil {
				return err
			}
			f.equal("a webhook by its number", got, want)
		}
		list, err := tx.Webhooks("", 10)
		f.equal("webhooks", list, []tokens.Webhook{bare, full})
		if err == nil {
			list, err = tx.Webhooks("bare", 10)
			f.equal("webhooks after one", list, []tokens.Webhook{full})
		}
		if _, err := tx.Webhook("none"); !errors.Is(err, tokens.ErrNotFound) {
			t.Errorf("an unknown webhook: %v", err)
		}
		return err
	})
	changed := full
	changed.URL, changed.Description, changed.Filter, changed.Enabled = "https://new.example.com/", "", tokens.WebhookFilter{}, true
	changed.DisableTime, changed.DisableReason, changed.UpdateTime = time.Time{}, "", f.now.Add(time.Second)
	changed.Secret, changed.OldSecret, changed.OldUntil = tokens.SealedSecret{
		Key: "k1",
		Box: []byte("new"),
	}, tokens.SealedSecret{}, time.Time{}
	other := changed
	other.Cursor, other.CreateTime = 99, f.now.Add(time.Hour) // neither is written
	f.update(func(tx tokens.Tx) error { return tx.UpdateWebhook(other) })
	f.update(func(tx tokens.Tx) error { return tx.DeleteWebhook(bare.Num) })
	f.view(func(tx tokens.ReadTx) error {
		list, err := tx.Webhooks("", 10)
		f.equal("webhooks after changes", list, []tokens.Webhook{changed})
		return err
	})
	f.update(func(tx tokens.Tx) error {
		if err := tx.InsertWebhook(full); !errors.Is(err, tokens.ErrTaken) {
			t.Errorf("a second webhook of one id: %v", err)
		}
		if err := tx.UpdateWebhook(bare); !errors.Is(err, tokens.ErrNotFound) {
			t.Errorf("an update of a deleted webhook: %v", err)
		}
		if err := tx.DeleteWebhook(bare.Num); !errors.Is(err, tokens.ErrNotFound) {
			t.Errorf("a second deletion: %v", err)
		}
		return nil
	})
	f.view(func(tx tokens.ReadTx) error {
		use, err := tx.KeyUse(f.now)
		f.equal("digests and sealed secrets under the key", use["k1"], int64(1))
		return err
	})
}

// queue returns the store's queue, and skips the test if it has none.
func (f *fixture) queue() tokens.WebhookQueue {
	q, ok := f.st.(tokens.WebhookQueue)
	if !ok {
		f.t.Skip("it keeps no deliveries")
	}
	return q
}

// lease takes the leases for a holder, and returns that of a webhook; nil: it was not to be had.
func (f *fixture) lease(q tokens.WebhookQueue, w tokens.Webhook, holder string) *tokens.WebhookLease {
	f.t.Helper()
	held, err := q.LeaseWebhooks(f.ctx, holder, f.now, f.now.Add(10*time.Second))
	if err != nil {
		f.t.Fatal(err)
	}
	for _, l := range held {
		if l.Webhook == w.Num {
			return &l
		}
	}
	return nil
}

func testWebhookLeases(t *testing.T, f *fixture) {
	q := f.queue()
	w := f.webhook("w")
	off := f.webhook("off", func(w *tokens.Webhook) { w.Enabled = false })
	first := f.lease(q, w, "a")
	if first == nil || f.lease(q, off, "a") != nil {
		t.Fatalf("the first to come: %v", first)
	}
	if l := f.lease(q, w, "b"); l != nil {
		t.Fatalf("a second holder within the lease: %v", l)
	}
	f.now = f.now.Add(9 * time.Second)
	renewed := f.lease(q, w, "a")
	f.equal("the lease as renewed", renewed, first)
	f.now = f.now.Add(9 * time.Second)
	if l := f.lease(q, w, "b"); l != nil {
		t.Fatalf("a second holder within the renewed lease: %v", l)
	}
	if err := q.EnqueueDeliveries(f.ctx, *first, 0, 5, nil); err != nil {
		t.Fatal(err)
	}
	f.now = f.now.Add(time.Second)
	second := f.lease(q, w, "b")
	if second == nil || second.Number == first.Number {
		t.Fatalf("when the lease has ended: %v", second)
	}
	if err := q.EnqueueDeliveries(f.ctx, *first, 5, 6, nil); !errors.Is(err, tokens.ErrLeaseLost) {
		t.Errorf("a write under a lost lease: %v", err)
	}
	if err := q.RecordAttempts(
		f.ctx,
		*first,
		[]tokens.WebhookAttempt{{Seq: 1, State: tokens.DeliveryDelivered}},
	); !errors.Is(
		err,
		tokens.ErrLeaseLost,
	) {
		t.Errorf("an attempt under a lost lease: %v", err)
	}
	if err := q.EnqueueDeliveries(f.ctx, *second, 0, 6, nil); !errors.Is(err, tokens.ErrLeaseLost) {
		t.Errorf("a write from a cursor that has moved: %v", err)
	}
	if err := q.ReleaseWebhooks(f.ctx, "b"); err != nil {
		t.Fatal(err)
	}
	third := f.lease(q, w, "a")
	if third == nil || third.Number == second.Number || third.Number == first.Number {
		t.Fatalf("after the lease was given back: %v", third)
	}
	f.now = f.now.Add(-time.Hour) // the holder's clock was ahead
	if l := f.lease(q, w, "b"); l == nil {
		t.Error("a lease that ends in an hour is not taken over")
	}
	w.Enabled = false
	f.update(func(tx tokens.Tx) error { return tx.UpdateWebhook(w) })
	if l := f.lease(q, w, "b"); l != nil {
		t.Errorf("a lease of a disabled webhook: %v", l)
	}
}

// notices are deliveries of events at positions, of one subject each.
func (f *fixture) notices(w tokens.Webhook, from uint64, subjects ...string) []tokens.WebhookDelivery {
	var list []tokens.WebhookDelivery
	for i, subject := range subjects {
		seq := from + uint64(i)
		list = append(list, tokens.WebhookDelivery{
			Webhook: w.Num, Seq: seq, ID: tokens.NewDeliveryID(w.Num, tokens.Event{Seq: seq}, 0), Type: "token.created",
			Subject: subject, State: tokens.DeliveryPending, CreateTime: f.now, NextTime: f.now,
		})
	}
	return list
}

// due lists the positions of the deliveries that are due.
func (f *fixture) due(q tokens.WebhookQueue, w tokens.Webhook) (seqs []uint64) {
	f.t.Helper()
	due, _, err := q.DueDeliveries(f.ctx, w.Num, f.now, 100)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, d := range due {
		seqs = append(seqs, d.Seq)
	}
	return seqs
}

func testDeliveries(t *testing.T, f *fixture) {
	q := f.queue()
	w := f.webhook("w")
	l := *f.lease(q, w, "a")
	list := f.notices(w, 1, "token:a", "token:a", "token:b", "token:a")
	list[0].Data = []byte(`{"name":"ü"}`)
	try := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	try(q.EnqueueDeliveries(f.ctx, l, 0, 4, list))
	f.equal("what is due: the first of each subject", f.due(q, w), []uint64{1, 3})
	due, next, err := q.DueDeliveries(f.ctx, w.Num, f.now.Add(-time.Second), 100)
	if err != nil || len(due) != 0 || !next.Equal(f.now) {
		t.Errorf("before its time: %v, next %v, %v", due, next, err)
	}
	n, oldest, err := q.PendingDeliveries(f.ctx, w.Num, 3)
	if err != nil || n != 3 || !oldest.Equal(f.now) {
		t.Errorf("%d pending, the oldest from %v, %v", n, oldest, err)
	}
	failed := tokens.WebhookAttempt{
		Seq:      1,
		Time:     f.now,
		Duration: 1500 * time.Microsecond,
		Status:   500,
		Error:    "status",
		State:    tokens.DeliveryPending,
		NextTime: f.now.Add(5 * time.Second),
	}
	try(q.RecordAttempts(f.ctx, l, []tokens.WebhookAttempt{failed}))
	f.equal("what is due while the first waits", f.due(q, w), []uint64{3})
	f.now = f.now.Add(5 * time.Second)
	f.equal("what is due after the pause", f.due(q, w), []uint64{3, 1})
	done := tokens.WebhookAttempt{Seq: 1, Time: f.now, Status: 204, State: tokens.DeliveryDelivered}
	gone := tokens.WebhookAttempt{Seq: 3, Time: f.now, Error: "timeout", State: tokens.DeliveryFailed}
	try(q.RecordAttempts(f.ctx, l, []tokens.WebhookAttempt{done, gone, done}))
	f.equal("what is due when the first has ended", f.due(q, w), []uint64{2})
	want := list[0]
	want.State, want.Attempts, want.SinceTime, want.NextTime, want.EndTime = tokens.DeliveryDelivered, 2, list[0].CreateTime, time.Time{}, f.now
	want.AttemptTime, want.Status = f.now, 204
	f.view(func(tx tokens.ReadTx) error {
		got, err := tx.WebhookDelivery(w.Num, list[0].ID)
		f.equal("a delivery that has ended", got, want)
		if _, err := tx.WebhookDelivery(w.Num+1, list[0].ID); !errors.Is(err, tokens.ErrNotFound) {
			t.Errorf("another webhook's delivery: %v", err)
		}
		return err
	})
	testUntriedDeliveries(t, f)
	// Asked for again, it is due beside the one that is, and once it has ended that one is due as before.
	f.update(func(tx tokens.Tx) error {
		if err := tx.RequeueDelivery(w.Num, list[3].ID, f.now); err != nil { // it waits, and goes on waiting
			return err
		}
		return tx.RequeueDelivery(w.Num, list[0].ID, f.now)
	})
	f.equal("what is due", f.due(q, w), []uint64{1, 2})
	try(q.RecordAttempts(f.ctx, l, []tokens.WebhookAttempt{done}))
	f.equal("what is due", f.due(q, w), []uint64{2})
	done.Seq = 2
	try(q.RecordAttempts(f.ctx, l, []tokens.WebhookAttempt{done}))
	f.equal("what is due", f.due(q, w), []uint64{4})
	f.now = f.now.Add(time.Hour)
	f.update(func(tx tokens.Tx) error { return tx.RequeuePending(w.Num, f.now) })
	f.equal("what is due", f.due(q, w), []uint64{4})
	f.equal(
		"the positions, newest first",
		f.positions(w, tokens.WebhookDeliveryQuery{Limit: 3}),
		[]string{"4.0", "3.0", "2.0"},
	)
	f.equal("after one", f.positions(w, tokens.WebhookDeliveryQuery{BeforeSeq: 2, Limit: 3}), []string{"1.0"})
	f.equal(
		"of a state",
		f.positions(w, tokens.WebhookDeliveryQuery{State: tokens.DeliveryFailed, Limit: 3}),
		[]string{"3.0"},
	)
	f.equal("of a type", f.positions(w, tokens.WebhookDeliveryQuery{Type: "token.revoked", Limit: 3}), []string(nil))
}

func (f *fixture) positions(w tokens.Webhook, q tokens.WebhookDeliveryQuery) (at []string) {
	f.t.Helper()
	q.Webhook = w.Num
	f.view(func(tx tokens.ReadTx) error {
		list, err := tx.WebhookDeliveries(q)
		for _, d := range list {
			at = append(at, fmt.Sprintf("%d.%d", d.Seq, d.Item))
		}
		return err
	})
	return at
}

func testDeliveriesMoveWithTheCursor(t *testing.T, f *fixture) {
	q := f.queue()
	w := f.webhook("w")
	l := *f.lease(q, w, "a")
	if err := q.EnqueueDeliveries(f.ctx, l, 0, 2, f.notices(w, 1, "a", "b")); err != nil {
		t.Fatal(err)
	}
	// A repetition, as after a commit whose outcome was not known, adds nothing.
	if err := q.EnqueueDeliveries(f.ctx, l, 0, 2, f.notices(w, 1, "a", "b")); !errors.Is(err, tokens.ErrLeaseLost) {
		t.Errorf("a repetition: %v", err)
	}
	// One that was made already keeps the cursor where it is.
	if err := q.EnqueueDeliveries(f.ctx, l, 2, 3, f.notices(w, 2, "a", "b")); !errors.Is(err, tokens.ErrTaken) {
		t.Errorf("a delivery that there is: %v", err)
	}
	f.equal("the deliveries", f.positions(w, tokens.WebhookDeliveryQuery{Limit: 9}), []string{"2.0", "1.0"})
	f.view(func(tx tokens.ReadTx) error {
		got, err := tx.Webhook("w")
		f.equal("the cursor", got.Cursor, uint64(2))
		return err
	})
	test := f.notices(w, 2, "test")[0]
	test.Item = tokens.TestItem
	test.ID[0]++
	f.update(func(tx tokens.Tx) error { return tx.InsertDelivery(test) })
	f.equal("what is due, with a test", f.due(q, w), []uint64{1, 2, 2})
	f.update(func(tx tokens.Tx) error { return tx.DeleteWebhook(w.Num) })
	if err := q.EnqueueDeliveries(f.ctx, l, 2, 3, nil); !errors.Is(err, tokens.ErrLeaseLost) {
		t.Errorf("deliveries for a deleted webhook: %v", err)
	}
}

// testUntriedDeliveries holds that deliveries which were not tried yet are listed although many wait that were.
func testUntriedDeliveries(t *testing.T, f *fixture) {
	q := f.queue()
	w := f.webhook("tried")
	l := *f.lease(q, w, "a")
	list := f.notices(w, 1, "token:a", "token:b", "token:c", "token:d", "token:e")
	if err := q.EnqueueDeliveries(f.ctx, l, 0, 5, list); err != nil {
		t.Fatal(err)
	}
	var failed []tokens.WebhookAttempt
	for seq := range uint64(4) {
		failed = append(failed, tokens.WebhookAttempt{
			Seq:      seq + 1,
			Time:     f.now,
			Status:   500,
			Error:    "status",
			State:    tokens.DeliveryPending,
			NextTime: f.now.Add(-time.Second),
		})
	}
	if err := q.RecordAttempts(f.ctx, l, failed); err != nil {
		t.Fatal(err)
	}
	due, _, err := q.DueDeliveries(f.ctx, w.Num, f.now, 2)
	if err != nil || len(due) != 3 || due[2].Seq != 5 || due[2].Attempts != 0 {
		t.Errorf("what is due is %v, %v; want one that was not tried, too", due, err)
	}
}
