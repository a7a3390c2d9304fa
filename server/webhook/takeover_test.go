package webhook_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"patd/server/webhook"
	"patd/store"
	"patd/tokens"
)

// mortal is a queue whose server dies: then nothing that it does has an effect.
type mortal struct {
	*store.Store
	dead atomic.Bool
}

var errDead = errors.New("the server is dead")

func (m *mortal) LeaseWebhooks(
	ctx context.Context,
	holder string,
	now, until time.Time,
) ([]tokens.WebhookLease, error) {
	if m.dead.Load() {
		return nil, errDead
	}
	return m.Store.LeaseWebhooks(ctx, holder, now, until)
}

func (m *mortal) ReleaseWebhooks(ctx context.Context, holder string) error {
	if m.dead.Load() {
		return errDead
	}
	return m.Store.ReleaseWebhooks(ctx, holder)
}

func (m *mortal) EnqueueDeliveries(
	ctx context.Context,
	l tokens.WebhookLease,
	from, to uint64,
	list []tokens.WebhookDelivery,
) error {
	if m.dead.Load() {
		return errDead
	}
	return m.Store.EnqueueDeliveries(ctx, l, from, to, list)
}

func (m *mortal) RecordAttempts(ctx context.Context, l tokens.WebhookLease, list []tokens.WebhookAttempt) error {
	if m.dead.Load() {
		return errDead
	}
	return m.Store.RecordAttempts(ctx, l, list)
}

func TestAnotherServerTakesOverWithinSeconds(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.add(1, hook, tokensOnly())
		first := &mortal{Store: r.st}
		r.engineOn(first, "first")
		pause(time.Second)
		second, _ := r.engine("second")
		r.mint("alice", "a")
		pause(time.Minute)
		if s := second.Stats(); s.Webhooks != 0 || len(r.at(hook)) != 1 {
			t.Fatalf("two servers deliver: %+v, %d messages", s, len(r.at(hook)))
		}
		first.dead.Store(true)
		tok := r.mint("alice", "b")
		pause(leaseBound)
		if s := second.Stats(); s.Webhooks != 1 {
			t.Fatalf("after %v no other server delivers: %+v", leaseBound, s)
		}
		got := r.at(hook)
		if got[len(got)-1].token() != tok.ID.String() {
			t.Errorf("the message of after the death has not arrived")
		}
	})
}

// leaseBound is within how long another server takes over.
const leaseBound = 12 * time.Second

func TestAStoppedServerHandsOverAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.add(1, hook, tokensOnly())
		under := make(chan struct{})
		r.answer(hook, func(context.Context, received) webhook.Outcome {
			close(under)
			pause(2 * time.Second)
			return status(204)
		})
		_, stop := r.engine("first")
		r.mint("alice", "a")
		<-under
		stop() // waits for the attempt, and records it
		r.answer(hook, nil)
		second, _ := r.engine("second")
		r.mint("alice", "b")
		pause(time.Second)
		if s := second.Stats(); s.Webhooks != 1 || len(r.at(hook)) != 2 {
			t.Errorf("a second after the stop: %+v, %d messages", s, len(r.at(hook)))
		}
	})
}

// TestAServerThatLosesItsLeaseEndsItsAttempts holds that a server whose store does not answer sends nothing more when
// its lease ends, so that no two servers send for a webhook.
func TestAServerThatLosesItsLeaseEndsItsAttempts(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.add(1, hook, tokensOnly())
		first := &mortal{Store: r.st}
		ended := make(chan time.Time, 1)
		begun := make(chan time.Time, 1)
		r.answer(hook, func(ctx context.Context, _ received) webhook.Outcome {
			select {
			case begun <- time.Now():
			default:
				return status(204)
			}
			first.dead.Store(true)
			<-ctx.Done()
			ended <- time.Now()
			return webhook.Outcome{Failure: webhook.FailureTimeout}
		})
		r.engineOn(first, "first")
		r.mint("alice", "a")
		took := (<-ended).Sub(<-begun)
		if took >= 8*time.Second {
			t.Errorf("the attempt went on for %v after the last renewal", took)
		}
		r.engine("second")
		pause(leaseBound)
		if got := r.at(hook); len(got) != 2 || got[0].ID != got[1].ID {
			t.Errorf("received %+v", got)
		}
	})
}
