package webhook

import (
	"context"
	"runtime/debug"
	"time"

	"patd/internal/tracecontext"
	"patd/tokens"
)

// Causes for which a webhook is disabled.
const (
	CauseGone    = "GONE"    // its endpoint answered 410
	CauseFailing = "FAILING" // it refused a message for giveUpAfter
)

// begin begins the attempts that are due, as many as the endpoint has room for.
func (w *worker) begin() error {
	now := w.Now()
	room, retries := w.health.room(time.Now(), w.underWay(), w.retries)
	if room == 0 {
		if at := w.health.started.Add(downPace); w.health.down() && time.Now().Before(at) {
			w.wakeAt(at)
		}
		return nil // or an attempt must end first
	}
	due, next, err := w.Queue.DueDeliveries(w.ctx, w.lease.Webhook, now, dueLimit+w.underWay())
	if err != nil {
		return err
	}
	if next.After(now) { // else there are more than can begin
		w.wakeAt(time.Now().Add(next.Sub(now)))
	}
	due = w.idle(due)
	if len(due) == 0 {
		return nil
	}
	if err := w.reread(w.ctx); err != nil {
		return err
	}
	secrets, err := w.Domain.OpenWebhookSecrets(w.webhook)
	if err != nil {
		return err
	}
	if err := w.connect(); err != nil {
		return err
	}
	for _, tried := range []bool{true, false} { // those that were tried before have less room, and come first
		for _, d := range due {
			if (d.Attempts > 0) != tried || room == 0 || tried && retries == 0 {
				continue
			}
			if tried {
				retries--
			}
			room--
			w.attempt(d, secrets)
		}
	}
	return nil
}

// underWay returns how many attempts are under way, or are not recorded yet.
func (w *worker) underWay() int { return len(w.sending) }

// idle returns those deliveries whose subject has none under way.
func (w *worker) idle(due []tokens.WebhookDelivery) []tokens.WebhookDelivery {
	busy := map[string]bool{}
	for _, d := range w.sending {
		busy[d.Subject] = true
	}
	var list []tokens.WebhookDelivery
	for _, d := range due {
		if !busy[d.Subject] {
			busy[d.Subject] = true
			list = append(list, d)
		}
	}
	return list
}

// connect makes the sender to the webhook's URL, if that is not the one before.
func (w *worker) connect() error {
	if w.sender != nil && w.to == w.webhook.URL {
		return nil
	}
	s, err := w.open(SenderConfig{URL: w.webhook.URL, AllowPrivate: w.AllowPrivate, Connections: upSlots, Now: w.Now})
	if err != nil {
		s = unusable{}
	}
	if w.sender != nil {
		w.sender.Close()
	}
	w.sender, w.to, w.health = s, w.webhook.URL, health{}
	return nil
}

// unusable is the sender to a URL that may not be called from here, as when a private network is no longer allowed.
type unusable struct{}

func (unusable) Send(context.Context, string, []byte, ...tokens.Secret) Outcome {
	return Outcome{Failure: FailureAddress}
}
func (unusable) Close() {}

// attempt begins an attempt. Its result comes unless the lease ends before.
func (w *worker) attempt(d tokens.WebhookDelivery, secrets []tokens.Secret) {
	text, err := w.bodyOf(d)
	at := place{d.Seq, d.Item}
	w.sending[at] = &d
	if d.Attempts > 0 {
		w.retries++
	}
	w.health.started = time.Now()
	s, begun, start := w.sender, w.Now(), time.Now()
	w.attempts.Go(func() {
		out := Outcome{Failure: FailureConfig}
		if err == nil {
			out = w.send(s, d, text, secrets)
		}
		if w.ctx.Err() != nil && !out.Accepted() {
			return // this server ended it
		}
		select {
		case w.results <- result{at, out, begun, time.Since(start)}:
		case <-w.ctx.Done():
		}
	})
}

// send makes an attempt. A panic is a failure of this one.
func (w *worker) send(s sender, d tokens.WebhookDelivery, text []byte, secrets []tokens.Secret) (out Outcome) {
	id, ctx := d.ID.String(), w.ctx
	if parent := tracecontext.Parse(d.TraceParent); parent.Valid() {
		ctx = tracecontext.With(ctx, parent)
	}
	defer func() {
		if v := recover(); v != nil {
			w.Logger.Error(
				"a panic while a message was sent to a webhook",
				"message",
				id,
				"stack",
				string(debug.Stack()),
			)
			out = Outcome{Failure: FailureConfig}
		}
	}()
	return s.Send(ctx, id, text, secrets...)
}

// bodyOf returns the body of a delivery. That of a test is made here.
func (w *worker) bodyOf(d tokens.WebhookDelivery) ([]byte, error) {
	if len(d.Data) > 0 {
		return d.Data, nil
	}
	return body(d.Type, d.CreateTime, testData{w.webhook.ID})
}

// note takes the result of an attempt.
func (w *worker) note(r result) {
	d := w.sending[r.place]
	was := w.health.down()
	w.health.note(r.outcome)
	w.counts.attempt(r.outcome)
	if is := w.health.down(); is != was {
		w.failing.Store(is)
		if is {
			w.Logger.Warn(
				"the endpoint of a webhook takes no message",
				"webhook",
				w.webhook.ID,
				"failure",
				string(r.outcome.Failure),
				"status",
				r.outcome.Status,
			)
		} else {
			w.Logger.Info("the endpoint of a webhook takes messages again", "webhook", w.webhook.ID)
		}
	}
	a := tokens.WebhookAttempt{
		Seq: d.Seq, Item: d.Item, Time: r.begun, Duration: r.took, Status: r.outcome.Status,
		Error: string(r.outcome.Failure), State: tokens.DeliveryDelivered,
	}
	if !r.outcome.Accepted() {
		now := w.Now()
		a.State, a.NextTime = tokens.DeliveryPending, now.Add(retryIn(int(d.Attempts)+1, r.outcome))
		switch {
		case r.outcome.Gone():
			w.disable = CauseGone
		case w.disable == "" && !d.SinceTime.IsZero() && now.Sub(d.SinceTime) >= giveUpAfter:
			w.disable = CauseFailing
		}
	}
	w.toRecord = append(w.toRecord, a)
}

// record records the attempts that have ended, and disables the webhook if one of them says so.
func (w *worker) record() error {
	if len(w.toRecord) > 0 {
		if err := w.Queue.RecordAttempts(w.ctx, w.lease, w.toRecord); err != nil {
			return err
		}
		for _, a := range w.toRecord {
			at := place{a.Seq, a.Item}
			if w.sending[at].Attempts > 0 {
				w.retries--
			}
			delete(w.sending, at)
			if a.State != tokens.DeliveryPending {
				w.out.pending--
			}
		}
		w.toRecord = w.toRecord[:0]
	}
	if w.disable == "" {
		return nil
	}
	if err := w.Domain.DisableWebhook(w.ctx, w.lease, w.disable); err != nil {
		return err
	}
	w.counts.disable(w.disable)
	w.Logger.Warn("a webhook was disabled", "webhook", w.webhook.ID, "reason", w.disable)
	return tokens.ErrLeaseLost
}
