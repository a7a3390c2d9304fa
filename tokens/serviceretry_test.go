package tokens_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"patd/store/storetest"
	"patd/tokens"
)

func serviceRequest() tokens.ServiceRequest {
	ttl := 30 * tokens.Day
	return tokens.ServiceRequest{
		Name:           "gate",
		Permissions:    []string{"introspect"},
		Audience:       "api",
		TTL:            &ttl,
		IdempotencyKey: idem,
	}
}

// authenticates reports whether a secret is good as the caller's own.
func (h *house) authenticates(s tokens.Secret) bool {
	h.t.Helper()
	_, err := h.Authenticate(ctx, s, tokens.Peer{})
	return err == nil
}

func TestRepeatedCreateServiceAnswersTheSameSecret(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	first, err := h.CreateService(ctx, admin, serviceRequest())
	if err != nil || first.Replayed {
		t.Fatalf("%+v, %v", first, err)
	}
	h.wait(time.Hour)
	h.ring.Set(parseKeys(t, lineB+"\n"+lineA))
	h.reopen()
	again, err := h.CreateService(ctx, admin, serviceRequest())
	if err != nil || !again.Replayed || again.Service.ID != first.Service.ID ||
		again.Secret.Reveal() != first.Secret.Reveal() {
		t.Fatalf("replayed %v, %v: %v", again.Replayed, again.Service.ID, err)
	}
	if !h.authenticates(again.Secret) {
		t.Error("the secret of the replay is invalid")
	}
	for name, change := range map[string]func(*tokens.ServiceRequest){
		"name":       func(r *tokens.ServiceRequest) { r.Name = "other" },
		"permission": func(r *tokens.ServiceRequest) { r.Permissions = []string{"admin"} },
		"audience":   func(r *tokens.ServiceRequest) { r.Audience = "" },
		"ttl":        func(r *tokens.ServiceRequest) { d := tokens.Day; r.TTL = &d },
		"no ttl":     func(r *tokens.ServiceRequest) { r.TTL = nil },
	} {
		other := serviceRequest()
		change(&other)
		_, err := h.CreateService(ctx, admin, other)
		wantReason(t, err, "IDEMPOTENCY_KEY_REUSED", "another "+name)
	}
	h.give("u1", "a")
	m := h.mint("u1", "n", "a")
	_, err = h.Mint(ctx, admin, tokens.MintRequest{User: "u1", Name: "m", Scopes: []string{"a"}, IdempotencyKey: idem})
	wantReason(t, err, "IDEMPOTENCY_KEY_REUSED", "the key for a token")
	_, err = h.Rotate(ctx, admin, tokens.RotateRequest{User: "u1", TokenID: m.Token.ID.String(), IdempotencyKey: idem})
	wantReason(t, err, "IDEMPOTENCY_KEY_REUSED", "the key for a rotation")
	_, err = h.CreateService(ctx, tokens.Operator(), serviceRequest())
	wantReason(t, err, "NAME_TAKEN", "another caller's use of the same key")
	if list, _, err := h.Services(ctx, admin, tokens.Page{}); err != nil || len(list) != 3 {
		t.Errorf("%d services with those that ask, %v", len(list), err)
	}
	if found, err := h.store.Check(ctx); err != nil || len(found) != 0 {
		t.Errorf("check: %q, %v", found, err)
	}
	h.wait(tokens.IdempotencyWindow)
	_, err = h.CreateService(ctx, admin, serviceRequest())
	wantReason(t, err, "NAME_TAKEN", "a day later")
}

func TestReplayOfARevokedServiceComesWithoutItsSecret(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(h *house, s tokens.Secret) error{
		"revoked": func(h *house, _ tokens.Secret) error {
			_, err := h.RevokeService(ctx, admin, "gate", "")
			return err
		},
		"leaked": func(h *house, s tokens.Secret) error {
			return h.ReportLeaks(ctx, tokens.Actor{}, []tokens.Secret{s})
		},
	} {
		h := newHouse(t)
		first, err := h.CreateService(ctx, admin, serviceRequest())
		if err != nil {
			t.Fatal(err)
		}
		if err := end(h, first.Secret); err != nil {
			t.Fatal(name, err)
		}
		again, err := h.CreateService(ctx, admin, serviceRequest())
		if err != nil || !again.Replayed || again.Service.ID != first.Service.ID || !again.Secret.IsEmpty() {
			t.Errorf("%s: replayed %v with secret %v, %v", name, again.Replayed, !again.Secret.IsEmpty(), err)
		}
		if found, err := h.store.Check(ctx); err != nil || len(found) != 0 {
			t.Errorf("%s: check: %q, %v", name, found, err)
		}
	}
}

func TestOneOfManyRepeatedRequestsMakesTheService(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	var wg sync.WaitGroup
	made := make([]tokens.MintedService, 16)
	for i := range made {
		wg.Go(func() {
			var err error
			if made[i], err = h.CreateService(ctx, admin, serviceRequest()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	first := 0
	for _, m := range made {
		if !m.Replayed {
			first++
		}
		if m.Secret.IsEmpty() || m.Secret.Reveal() != made[0].Secret.Reveal() {
			t.Fatal("two callers have different secrets")
		}
	}
	if first != 1 {
		t.Errorf("%d calls made the service", first)
	}
}

// lossy is a store whose commits succeed and are not answered while it is armed, or do not happen.
type lossy struct {
	tokens.Store
	lose bool
}

func (l *lossy) Update(ctx context.Context, fn func(tokens.Tx) ([]tokens.Event, error)) error {
	err := l.Store.Update(ctx, fn)
	if l.lose && err == nil {
		return tokens.Fail(tokens.CodeUnavailable, "OUTCOME_UNKNOWN", "the answer to the commit was lost")
	}
	return err
}

// TestAKeyedRequestIsSafeToRepeatWhateverBecameOfTheFirst has commits whose answer is lost, and commits that fail.
func TestAKeyedRequestIsSafeToRepeatWhateverBecameOfTheFirst(t *testing.T) {
	t.Parallel()
	for _, happened := range []bool{true, false} {
		var net *lossy
		var faulty *storetest.Faulty
		h := newHouse(t, func(c *tokens.Config) {
			faulty = storetest.NewFaulty(c.Store)
			net = &lossy{Store: faulty}
			c.Store = net
		})
		if happened {
			net.lose = true
		} else {
			faulty.FailOp(storetest.OpCommit, storetest.Outage())
		}
		if _, err := h.CreateService(ctx, admin, serviceRequest()); domainError(t, err).Code != tokens.CodeUnavailable {
			t.Fatal(err)
		}
		net.lose = false
		faulty.FailOp(storetest.OpCommit, nil)
		m, err := h.CreateService(ctx, admin, serviceRequest())
		if err != nil || m.Replayed != happened || !h.authenticates(m.Secret) {
			t.Errorf("happened %v: replayed %v, %v", happened, m.Replayed, err)
		}
		if list, _, err := h.Services(ctx, admin, tokens.Page{}); err != nil || len(list) != 3 {
			t.Errorf("happened %v: %d services with those that ask, %v", happened, len(list), err)
		}
	}
}
