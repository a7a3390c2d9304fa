package tokens_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"patd/tokens"
)

// gate is a feature source that waits when it is armed, until the test has changed something.
type gate struct {
	armed   atomic.Bool
	asked   chan struct{}
	release chan struct{}
	claims  bool
}

func newGate() *gate { return &gate{asked: make(chan struct{}), release: make(chan struct{})} }

func (*gate) Local() bool { return false }

func (g *gate) Features(ctx context.Context, _ tokens.User, _ bool) (tokens.Held, error) {
	if g.armed.CompareAndSwap(true, false) {
		g.asked <- struct{}{}
		<-g.release
	}
	if g.claims {
		return tokens.Held{AsGranted: true}, ctx.Err()
	}
	return tokens.Held{Features: []string{"a", "b"}}, ctx.Err()
}

// during runs a call, and a change while the call waits for the source.
func (g *gate) during(t *testing.T, change func() error, call func() error) error {
	t.Helper()
	g.armed.Store(true)
	done := make(chan error, 1)
	go func() { done <- call() }()
	select {
	case <-g.asked:
	case err := <-done:
		t.Fatalf("the call did not ask the source: %v", err)
	}
	if err := change(); err != nil {
		t.Fatal(err)
	}
	g.release <- struct{}{}
	return <-done
}

func TestNoGrantRestsOnWhatChangedWhileItWaited(t *testing.T) {
	t.Parallel()
	soon, none := noon.Add(time.Minute), time.Duration(0)
	update := func(c tokens.TokenChange) func(h *house, id string) error {
		return func(h *house, id string) error {
			_, err := h.UpdateToken(ctx, admin, "u1", id, c)
			return err
		}
	}
	nets, fewer := []string{"198.51.100.0/24"}, []string{"a"}
	for name, change := range map[string]func(h *house, id string) error{
		"suspend": func(h *house, _ string) error { _, err := h.SuspendUser(ctx, admin, "u1", ""); return err },
		"delete":  func(h *house, _ string) error { _, err := h.DeleteUser(ctx, admin, "u1", ""); return err },
		"rotate": func(h *house, id string) error {
			_, err := h.Rotate(ctx, admin, tokens.RotateRequest{User: "u1", TokenID: id, Grace: &none})
			return err
		},
		"revoke": func(h *house, id string) error { _, err := h.Revoke(ctx, admin, "u1", id, ""); return err },
		"bind":   update(tokens.TokenChange{CIDRs: &nets}),
		"narrow": update(tokens.TokenChange{Scopes: &fewer}),
		"expire": update(tokens.TokenChange{ExpireTime: &soon}),
	} {
		for _, way := range []string{"exchange", "refresh"} {
			t.Run(name+" during "+way, func(t *testing.T) {
				t.Parallel()
				g := newGate()
				h := newHouse(t, func(c *tokens.Config) { c.Features = g })
				h.api("api", asJWT)
				m := h.mintFor("n", "api")
				first := h.exchange(m.Secret, offline)
				var got tokens.Granted
				err := g.during(t, func() error { return change(h, m.Token.ID.String()) }, func() (err error) {
					if way == "exchange" {
						got, err = h.Exchange(ctx, tokens.ExchangeRequest{Subject: m.Secret, Peer: home})
					} else {
						got, err = h.Refresh(ctx, tokens.RefreshRequest{Token: first.Refresh, Peer: home})
					}
					return err
				})
				switch name {
				case "narrow":
					if err != nil || len(got.Claims.Scopes) != 1 {
						t.Errorf("scopes %q, %v", got.Claims.Scopes, err)
					}
				case "expire":
					if err != nil || got.Claims.ExpireTime.After(soon) {
						t.Errorf("until %s, %v", got.Claims.ExpireTime, err)
					}
				default:
					if err == nil {
						t.Errorf("a JWT with %+v", got.Claims)
					}
				}
			})
		}
	}
}

func TestAServiceRevokedWhileItMintsGetsNoToken(t *testing.T) {
	t.Parallel()
	g := newGate()
	h := newHouse(t, func(c *tokens.Config) { c.Features = g })
	a := tokens.Actor{Kind: tokens.ServiceActor, Name: "minter", TokenID: 3, Permissions: tokens.PermTokens}
	h.serviceOf(a)
	err := g.during(t, func() error { _, err := h.RevokeService(ctx, admin, "minter", ""); return err }, func() error {
		_, err := h.Mint(ctx, a, tokens.MintRequest{User: "u1", Name: "n", Scopes: []string{"a"}})
		return err
	})
	wantReason(t, err, "CREDENTIAL_INVALID", "a service revoked while it mints")
	if list, _, err := h.Tokens(
		ctx,
		admin,
		tokens.TokenFilter{User: "u1"},
		tokens.Page{},
	); err == nil &&
		len(list) != 0 {
		t.Errorf("%d tokens", len(list))
	}
}

// TestAUserWhoseSignInEndsWhileItMintsGetsNoToken lets time pass while the source is asked.
func TestAUserWhoseSignInEndsWhileItMintsGetsNoToken(t *testing.T) {
	t.Parallel()
	g := newGate()
	h := newHouse(t, func(c *tokens.Config) { c.Features = g })
	for _, wait := range []time.Duration{0, time.Minute} {
		a := tokens.Actor{Kind: tokens.UserActor, User: "u1", ExpireTime: h.now().Add(time.Minute)}
		err := g.during(t, func() error { h.wait(wait); return nil }, func() error {
			_, err := h.Mint(ctx, a, tokens.MintRequest{User: "u1", Name: "n" + wait.String(), Scopes: []string{"a"}})
			return err
		})
		if wait == 0 && err != nil {
			t.Error(err)
		} else if wait > 0 {
			wantReason(t, err, "CREDENTIAL_INVALID", "a user whose sign-in ended meanwhile")
		}
	}
}

func TestALongerLifeIsAGrant(t *testing.T) {
	t.Parallel()
	g := newGate()
	g.claims = true
	h := newHouse(t, func(c *tokens.Config) { c.Features = g })
	user := tokens.Actor{Kind: tokens.UserActor, User: "u1", Features: []string{"a", "b"}}
	day := tokens.Day
	m, err := h.Mint(
		ctx,
		user,
		tokens.MintRequest{User: "u1", Name: "n", Scopes: []string{"a", "b"}, Lifetime: tokens.Lifetime{TTL: &day}},
	)
	if err != nil {
		t.Fatal(err)
	}
	user.Features = []string{"a"}
	week, hour := 7*day, time.Hour
	_, err = h.Rotate(
		ctx,
		user,
		tokens.RotateRequest{User: "u1", TokenID: m.Token.ID.String(), Lifetime: tokens.Lifetime{TTL: &week}},
	)
	wantReason(t, err, "SCOPE_NOT_HELD", "a later expiry")
	for _, l := range []tokens.Lifetime{{}, {TTL: &hour}} {
		g.armed.Store(true) // whoever asks waits for ever
		if _, err = h.Rotate(
			ctx,
			user,
			tokens.RotateRequest{User: "u1", TokenID: m.Token.ID.String(), Lifetime: l, Force: true},
		); err != nil {
			t.Errorf("no longer life: %v", err)
		}
	}
}

func TestRepeatedRotationAnswersTheSameSecret(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a")
	m := h.mint("u1", "n", "a")
	r := tokens.RotateRequest{User: "u1", TokenID: m.Token.ID.String(), IdempotencyKey: idem}
	first, err := h.Rotate(ctx, admin, r)
	if err != nil || first.Replayed {
		t.Fatalf("%v, %v", first.Replayed, err)
	}
	h.wait(time.Minute)
	again, err := h.Rotate(ctx, admin, r)
	if err != nil || !again.Replayed || again.Secret.Reveal() != first.Secret.Reveal() ||
		!again.PreviousUntil.Equal(first.PreviousUntil) {
		t.Errorf("replayed %v, until %s, %v", again.Replayed, again.PreviousUntil, err)
	}
	h.wants(m.Secret, tokens.Allow, "the secret before")
	h.wants(first.Secret, tokens.Allow, "the new one")
}
