package store_test

import (
	"fmt"
	"testing"
	"time"

	"patd/store"
	"patd/tokens"
)

// hooked opens a store with a key and a webhook that is sealed under it.
func hooked(t *testing.T, url string) (*store.Store, *clock, tokens.Webhook) {
	t.Helper()
	clock := newClock()
	st := openURL(t, url, store.Options{Connections: 2, Now: clock.now})
	w := tokens.Webhook{
		Num:        1 << 40,
		ID:         "w",
		URL:        "https://hooks.example.com/",
		Enabled:    true,
		CreateTime: clock.now(),
		UpdateTime: clock.now(),
		Secret:     tokens.SealedSecret{Key: "a", Box: []byte("box")},
	}
	err := st.Update(t.Context(), func(tx tokens.Tx) ([]tokens.Event, error) {
		for i, name := range []string{"a", "b"} {
			if err := tx.PutKey(
				tokens.KeyRecord{Name: name, Check: [32]byte{byte(i + 1)}, CreateTime: clock.now()},
			); err != nil {
				return nil, err
			}
		}
		return []tokens.Event{
				{
					Time:    clock.now(),
					Actor:   "operator",
					Action:  tokens.ActionWebhookCreate,
					Outcome: tokens.OutcomeSuccess,
					Detail:  w.ID,
				},
			}, tx.InsertWebhook(
				w,
			)
	})
	if err != nil {
		t.Fatal(err)
	}
	return st, clock, w
}

// changeHook runs a change with an event.
func changeHook(t *testing.T, st *store.Store, now time.Time, fn func(tokens.Tx) error) error {
	t.Helper()
	return st.Update(t.Context(), func(tx tokens.Tx) ([]tokens.Event, error) {
		return []tokens.Event{
				{Time: now, Actor: "operator", Action: tokens.ActionWebhookUpdate, Outcome: tokens.OutcomeSuccess},
			}, fn(
				tx,
			)
	})
}

func TestKeyWithSealedWebhookSecretsIsNotRetired(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		st, clock, w := hooked(t, url)
		retire := func() error { // as a program does that knows nothing of webhooks
			return changeHook(t, st, clock.now(), func(tx tokens.Tx) error {
				return tx.PutKey(tokens.KeyRecord{Name: "a", Check: [32]byte{1}, RetireTime: clock.now()})
			})
		}
		if err := retire(); err == nil {
			t.Fatal("the key of a secret was retired")
		}
		w.OldSecret, w.OldUntil = w.Secret, clock.now().Add(time.Hour)
		w.Secret.Key = "b"
		if err := changeHook(t, st, clock.now(), func(tx tokens.Tx) error { return tx.UpdateWebhook(w) }); err != nil {
			t.Fatal(err)
		}
		if err := retire(); err == nil {
			t.Fatal("the key of a secret that signs along was retired")
		}
		clock.move(time.Hour)
		if err := retire(); err != nil {
			t.Errorf("the key of a secret that signs no more: %v", err)
		}
	})
}

func TestDeliveriesThatEndedLongAgoAreDropped(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		st, clock, w := hooked(t, url)
		held, err := st.LeaseWebhooks(t.Context(), "a", clock.now(), clock.now().Add(time.Minute))
		if err != nil || len(held) != 1 {
			t.Fatal(held, err)
		}
		var list []tokens.WebhookDelivery
		for seq := range uint64(3) {
			list = append(list, tokens.WebhookDelivery{
				Seq:        seq + 1,
				ID:         tokens.DeliveryID{byte(seq)},
				Type:       "token.created",
				Subject:    fmt.Sprint("token:", seq),
				CreateTime: clock.now(),
				NextTime:   clock.now(),
			})
		}
		if err := st.EnqueueDeliveries(t.Context(), held[0], 0, 3, list); err != nil {
			t.Fatal(err)
		}
		err = st.RecordAttempts(t.Context(), held[0], []tokens.WebhookAttempt{
			{
				Seq:   1,
				Time:  clock.now(),
				State: tokens.DeliveryDelivered,
			},
			{Seq: 2, Time: clock.now(), State: tokens.DeliveryFailed},
		})
		if err != nil {
			t.Fatal(err)
		}
		left := func() (seqs []uint64) {
			t.Helper()
			if err := st.Prune(t.Context()); err != nil {
				t.Fatal(err)
			}
			err := st.View(t.Context(), func(tx tokens.ReadTx) error {
				list, err := tx.WebhookDeliveries(tokens.WebhookDeliveryQuery{Webhook: w.Num, Limit: 10})
				for _, d := range list {
					seqs = append(seqs, d.Seq)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return seqs
		}
		for _, step := range []struct {
			wait time.Duration
			want string
		}{{0, "[3 2 1]"}, {3*tokens.Day - time.Second, "[3 2 1]"}, {2 * time.Second, "[3 2]"}, {27 * tokens.Day, "[3]"}, {365 * tokens.Day, "[3]"}} {
			clock.move(step.wait)
			if got := fmt.Sprint(left()); got != step.want {
				t.Errorf("after another %v there are %s, want %s", step.wait, got, step.want)
			}
		}
		if err := changeHook(
			t,
			st,
			clock.now(),
			func(tx tokens.Tx) error { return tx.DeleteWebhook(w.Num) },
		); err != nil {
			t.Fatal(err)
		}
		if got := left(); len(got) != 0 {
			t.Errorf("deliveries %v of a webhook that was deleted", got)
		}
	})
}
