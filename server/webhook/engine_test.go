package webhook_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/server/webhook"
	"patd/store"
	"patd/tokens"
)

const (
	hook  = "https://hooks.example.com/a"
	other = "https://hooks.example.com/b"
)

// tokensOnly selects what is about tokens.
func tokensOnly() tokens.WebhookFilter {
	return tokens.WebhookFilter{Types: []string{"token.created", "token.updated", "token.revoked"}}
}

func TestEveryEventReachesItsEndpointInOrder(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.add(1, hook, tokens.WebhookFilter{})
		e, _ := r.engine("one")
		tok := r.mint("alice", "first")
		for i := range 3 {
			r.relabel(tok, fmt.Sprint(i))
		}
		r.revoke(tok, "left")
		pause(time.Second)
		got := r.at(hook)
		of := slices.DeleteFunc(slices.Clone(got), func(m received) bool { return m.token() != tok.ID.String() })
		if kinds(of) != "token.created token.updated token.updated token.updated token.revoked" || len(got) != 6 {
			t.Errorf("received %s", kinds(got))
		}
		ids := map[string]bool{}
		for _, m := range got {
			ids[m.ID] = true
		}
		if len(ids) != len(got) {
			t.Errorf("%d messages have %d ids", len(got), len(ids))
		}
		if s := e.Stats(); s.Accepted != 6 || s.Failed != 0 || s.Webhooks != 1 || s.Down != 0 {
			t.Errorf("the figures are %+v", s)
		}
	})
}

func TestARefusedMessageHoldsBackItsTokenOnly(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.add(1, hook, tokensOnly())
		bad := r.mint("alice", "bad")
		refuse := true
		r.answer(hook, func(_ context.Context, m received) webhook.Outcome {
			if refuse && m.token() == bad.ID.String() {
				return status(500)
			}
			return status(204)
		})
		r.engine("one")
		r.relabel(bad, "1")
		r.revoke(bad, "")
		for i := range 10 {
			pause(10 * time.Second)
			good := r.mint("bob", fmt.Sprint("good", i))
			pause(2 * time.Second)
			r.revoke(good, "")
			pause(2 * time.Second)
			last := r.at(hook)
			if m := last[len(last)-1]; !slices.ContainsFunc(
				last,
				func(m received) bool { return m.token() == good.ID.String() && m.Type == "token.revoked" },
			) {
				t.Fatalf("round %d: a good token's messages are late; the last was %s at %v", i, m.Type, m.At)
			}
		}
		for _, m := range r.at(hook) {
			if m.token() == bad.ID.String() && m.Type != "token.created" {
				t.Fatalf("%s came before token.created was accepted", m.Type)
			}
		}
		refuse = false
		r.pass(2*time.Hour, time.Minute)
		var of []received
		for _, m := range r.at(hook) {
			if m.token() == bad.ID.String() {
				of = append(of, m)
			}
		}
		tail := kinds(of[len(of)-3:])
		if tail != "token.created token.updated token.revoked" {
			t.Errorf("in the end it received %s", tail)
		}
	})
}

func TestRetriesBackOffAndAreTheSameMessage(t *testing.T) {
	longtest.Slow(t)
	inBubble(t, func(t *testing.T, r *rig) {
		r.add(1, hook, tokensOnly())
		r.answer(hook, func(context.Context, received) webhook.Outcome { return status(503) })
		r.engine("one")
		tok := r.mint("alice", "first")
		r.relabel(tok, "later")
		r.pass(6*time.Hour, 10*time.Second)
		got := r.at(hook)
		for i, m := range got {
			if m.ID != got[0].ID || m.Body != got[0].Body {
				t.Fatalf("attempt %d is another message", i)
			}
		}
		least := 5 * time.Second
		for i := 1; i < len(got); i++ {
			gap := got[i].At.Sub(got[i-1].At)
			if gap < least || gap > least*3/2+20*time.Second {
				t.Errorf(
					"attempt %d came %v after the one before; want %v and half as long again at most",
					i,
					gap,
					least,
				)
			}
			least = min(2*least, time.Hour)
		}
		if len(got) < 12 {
			t.Errorf("there were %d attempts", len(got))
		}
	})
}

func TestRetryAfterIsHeeded(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.add(1, hook, tokensOnly())
		r.answer(hook, func(context.Context, received) webhook.Outcome {
			return webhook.Outcome{Status: 429, Failure: webhook.FailureStatus, RetryAfter: 20 * time.Minute}
		})
		r.engine("one")
		r.mint("alice", "first")
		r.pass(59*time.Minute, time.Minute) // the fourth comes after an hour
		got := r.at(hook)
		if len(got) != 3 || got[1].At.Sub(got[0].At) < 20*time.Minute {
			t.Errorf("there were %d attempts: %+v", len(got), got)
		}
	})
}

func TestGoneDisablesAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.add(1, hook, tokensOnly())
		r.add(2, other, tokens.WebhookFilter{Types: []string{"webhook.disabled"}})
		r.answer(hook, func(context.Context, received) webhook.Outcome { return status(410) })
		e, _ := r.engine("one")
		r.mint("alice", "first")
		pause(10 * time.Second)
		r.mint("alice", "second")
		r.pass(time.Hour, time.Minute)
		if w := r.webhook(1); w.Enabled || w.DisableReason != webhook.CauseGone {
			t.Errorf("the webhook is %+v", w)
		}
		if n := len(r.at(hook)); n != 1 {
			t.Errorf("it received %d messages", n)
		}
		got := r.at(other)
		if len(got) != 1 || got[0].Data["webhook_id"] != "wh1" || got[0].Data["reason"] != "GONE" {
			t.Errorf("the other webhook received %+v", got)
		}
		if s := e.Stats(); s.Disabled[webhook.CauseGone] != 1 {
			t.Errorf("the figures are %+v", s)
		}
	})
}

func TestAWebhookIsDisabledAfterThreeDaysAndLosesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.add(1, hook, tokensOnly())
		r.answer(hook, func(context.Context, received) webhook.Outcome {
			return webhook.Outcome{Failure: webhook.FailureConnect}
		})
		e, _ := r.engine("one")
		tok := r.mint("alice", "first")
		for range 71 {
			r.pass(time.Hour, 30*time.Minute)
		}
		if !r.webhook(1).Enabled {
			t.Fatal("it was disabled before 3 days were over")
		}
		for range 4 {
			r.pass(time.Hour, 30*time.Minute)
			pause(2 * time.Second)
		}
		if w := r.webhook(1); w.Enabled || w.DisableReason != webhook.CauseFailing {
			t.Fatalf("the webhook is %+v", w)
		}
		if s := e.Stats(); s.Disabled[webhook.CauseFailing] != 1 {
			t.Errorf("the figures are %+v", s)
		}
		before := len(r.at(hook))
		r.revoke(tok, "")
		pause(time.Minute)
		if n := len(r.at(hook)); n != before {
			t.Errorf("a disabled webhook received %d messages", n-before)
		}
		r.answer(hook, nil)
		must(t, told{r.st, r}.Update(t.Context(), func(tx tokens.Tx) ([]tokens.Event, error) {
			w, err := tx.WebhookByNum(1)
			if err != nil {
				return nil, err
			}
			w.Enabled = true
			return []tokens.Event{
					{
						Time:    r.now(),
						Actor:   "operator",
						Action:  tokens.ActionWebhookUpdate,
						Outcome: tokens.OutcomeSuccess,
					},
				},
				errors.Join(
					tx.UpdateWebhook(w),
					tx.RequeuePending(1, r.now()),
				)
		}))
		pause(20 * time.Second)
		if got := kinds(r.at(hook)[before:]); got != "token.created token.revoked" {
			t.Errorf("after it was enabled it received %s", got)
		}
	})
}

func TestASlowOrDeadEndpointDelaysNoOther(t *testing.T) {
	longtest.Slow(t)
	inBubble(t, func(t *testing.T, r *rig) {
		const dead = "https://hooks.example.com/dead"
		r.add(1, hook, tokensOnly())
		r.add(2, other, tokensOnly())
		r.add(3, dead, tokensOnly())
		r.answer(other, func(ctx context.Context, _ received) webhook.Outcome { // it hangs
			select {
			case <-ctx.Done():
			case <-time.After(15 * time.Second):
			}
			return webhook.Outcome{Failure: webhook.FailureTimeout}
		})
		r.answer(dead, func(context.Context, received) webhook.Outcome {
			return webhook.Outcome{Failure: webhook.FailureConnect}
		})
		r.engine("one")
		pause(time.Second)
		for i := range 200 {
			tok := r.mint(fmt.Sprint("u", i/50), fmt.Sprint(i))
			pause(time.Second)
			got := r.at(hook)
			if len(got) != i+1 || got[i].token() != tok.ID.String() {
				t.Fatalf("after a second the good endpoint has %d of %d messages", len(got), i+1)
			}
		}
		// A dead endpoint is not asked for each message that waits, and gets all of them soon when it is back.
		if n := len(r.at(dead)); n > 450 {
			t.Errorf("a dead endpoint received %d attempts in 200 s", n)
		}
		r.answer(dead, nil)
		r.answer(other, nil)
		pause(10 * time.Minute)
		for _, url := range []string{dead, other} {
			arrived := map[string]bool{}
			for _, m := range r.at(url) {
				arrived[m.token()] = true
			}
			if len(arrived) != 200 {
				t.Errorf("%s has %d of 200 messages", url, len(arrived))
			}
		}
	})
}

func TestMessagesThatHangLeaveRoomForOthers(t *testing.T) {
	longtest.Slow(t)
	inBubble(t, func(t *testing.T, r *rig) {
		r.add(1, hook, tokensOnly())
		hanging := map[string]bool{}
		for i := range 90 {
			hanging[r.mint("alice", fmt.Sprint(i)).ID.String()] = true
		}
		r.answer(hook, func(ctx context.Context, m received) webhook.Outcome {
			if !hanging[m.token()] {
				return status(200)
			}
			select {
			case <-ctx.Done():
			case <-time.After(15 * time.Second):
			}
			return webhook.Outcome{Failure: webhook.FailureTimeout}
		})
		r.engine("one")
		pause(5 * time.Minute)
		var late time.Duration
		for i := range 20 {
			tok := r.mint("bob", fmt.Sprint(i))
			minted := r.now()
			pause(40 * time.Second)
			all := r.at(hook)
			n := slices.IndexFunc(all, func(m received) bool { return m.token() == tok.ID.String() })
			if n < 0 {
				t.Fatalf("message %d has not arrived after 40 s", i)
			}
			late = max(late, all[n].At.Sub(minted))
		}
		t.Logf("the latest came after %v", late)
	})
}

func TestChangesOfAWebhookHoldAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.add(1, hook, tokensOnly())
		r.engine("one")
		r.mint("alice", "a")
		pause(time.Second)
		change := func(f func(*tokens.Webhook)) {
			must(t, told{r.st, r}.Update(t.Context(), func(tx tokens.Tx) ([]tokens.Event, error) {
				w, err := tx.WebhookByNum(1)
				f(&w)
				return []tokens.Event{
						{
							Time:    r.now(),
							Actor:   "operator",
							Action:  tokens.ActionWebhookUpdate,
							Outcome: tokens.OutcomeSuccess,
						},
					}, errors.Join(
						err,
						tx.UpdateWebhook(w),
					)
			}))
		}
		change(func(w *tokens.Webhook) { w.Filter.Users = []string{"bob"} })
		r.mint("alice", "b")
		r.mint("bob", "c")
		pause(time.Second)
		if got := r.at(hook); len(got) != 2 || got[1].Data["user"] != "bob" {
			t.Errorf("with a filter of users it received %+v", got)
		}
		change(func(w *tokens.Webhook) { w.URL = other })
		r.mint("bob", "d")
		pause(time.Second)
		if len(r.at(hook)) != 2 || len(r.at(other)) != 1 {
			t.Error("a message went to the URL before")
		}
		change(func(w *tokens.Webhook) { w.Enabled = false })
		r.mint("bob", "e")
		pause(10 * time.Second)
		if len(r.at(other)) != 1 {
			t.Error("a message went to a disabled webhook")
		}
		change(func(w *tokens.Webhook) { w.Enabled = true })
		pause(10 * time.Second)
		if got := r.at(other); len(got) != 2 || !strings.Contains(got[1].Body, `"name":"e"`) {
			t.Error("what happened while it was disabled did not arrive")
		}
	})
}

// distrusted is a queue whose webhooks are not as patd wrote them, while it says so.
type distrusted struct {
	*store.Store
	edited atomic.Bool
}

func (q *distrusted) View(ctx context.Context, fn func(tokens.ReadTx) error) error {
	return q.Store.View(ctx, func(tx tokens.ReadTx) error { return fn(distrustedTx{tx, q}) })
}

type distrustedTx struct {
	tokens.ReadTx
	q *distrusted
}

func (t distrustedTx) WebhookByNum(num tokens.ID) (tokens.Webhook, error) {
	w, err := t.ReadTx.WebhookByNum(num)
	if err == nil && t.q.edited.Load() {
		err = tokens.RecordInvalid(errors.New("it was edited"))
	}
	return w, err
}

// TestAnEditedWebhookGetsNoMessages until it is as patd wrote it; then it gets what it missed.
func TestAnEditedWebhookGetsNoMessages(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.add(1, hook, tokensOnly())
		q := &distrusted{Store: r.st}
		r.engineOn(q, "one")
		r.mint("alice", "before")
		pause(time.Second)
		q.edited.Store(true)
		r.mint("alice", "meanwhile")
		pause(time.Minute)
		if got := kinds(r.at(hook)); got != "token.created" {
			t.Errorf("an edited webhook got %s", got)
		}
		q.edited.Store(false)
		pause(5 * time.Second)
		if got := kinds(r.at(hook)); got != "token.created token.created" {
			t.Errorf("afterwards it has %s", got)
		}
	})
}
