package tokens_test

import (
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"patd/store/storetest"
	"patd/tokens"
	"patd/tokens/secret"
)

// supersededUses lists the events of superseded secrets that were presented, once all are written.
func (h *house) supersededUses() []tokens.Event {
	h.t.Helper()
	h.FlushSupersededUses(ctx, func(err error) { h.t.Errorf("%v", err) })
	events, _, err := h.Events(ctx, admin, tokens.EventFilter{Action: "token.superseded_use"}, tokens.Page{})
	if err != nil {
		h.t.Fatal(err)
	}
	return events
}

// second returns another server on the same store.
func (h *house) second() *house {
	h.t.Helper()
	prefixes, err := tokens.BindKeys(ctx, h.store, h.ring.Get(), "", h.now())
	if err != nil {
		h.t.Fatal(err)
	}
	s, err := tokens.NewService(tokens.Config{Store: h.store, Keys: h.ring, Prefixes: prefixes, Now: h.now})
	if err != nil {
		h.t.Fatal(err)
	}
	return &house{Service: s, t: h.t, store: h.store, ring: h.ring, at: h.now()}
}

// TestTheUseOfASupersededSecretIsAnEvent, however it was superseded and wherever it is presented.
func TestTheUseOfASupersededSecretIsAnEvent(t *testing.T) {
	t.Parallel()
	zero, minute := time.Duration(0), time.Minute
	elsewhere := netip.MustParseAddr("203.0.113.9")
	ways := map[string]func(h *house, m tokens.Minted) tokens.Secret{
		"without grace": func(h *house, m tokens.Minted) tokens.Secret {
			h.mustTurn(m, tokens.RotateRequest{Grace: &zero})
			return m.Secret
		},
		"after the grace": func(h *house, m tokens.Minted) tokens.Secret {
			h.mustTurn(m, tokens.RotateRequest{Grace: days(2)})
			h.wait(2 * tokens.Day)
			return m.Secret
		},
		"on first use": func(h *house, m tokens.Minted) tokens.Secret {
			h.wants(
				h.mustTurn(m, tokens.RotateRequest{Retire: tokens.OnFirstUse}).Secret,
				tokens.Allow,
				"the new secret",
			)
			return m.Secret
		},
		"by force": func(h *house, m tokens.Minted) tokens.Secret {
			h.mustTurn(m, tokens.RotateRequest{})
			h.mustTurn(m, tokens.RotateRequest{Force: true})
			return m.Secret
		},
		"canceled": func(h *house, m tokens.Minted) tokens.Secret {
			r := h.mustTurn(m, tokens.RotateRequest{})
			_, err := h.cancel(m)
			noError(t, err)
			return r.Secret
		},
		"by the token itself": func(h *house, m tokens.Minted) tokens.Secret {
			_, err := h.rotateSelf(m.Secret, tokens.RotateSelfRequest{Grace: &minute})
			noError(t, err)
			h.wait(minute)
			return m.Secret
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.give("u1", "a", "b")
			m := h.selfTurning("n")
			old := way(h, m)
			if n := len(h.supersededUses()); n != 0 {
				t.Errorf("%d events before it was presented", n)
			}
			in, err := h.Introspect(ctx, gw, tokens.IntrospectRequest{Secret: old, ClientIP: elsewhere})
			if noError(t, err); in.Decision != tokens.Superseded {
				t.Fatalf("decision %v", in.Decision)
			}
			events := h.supersededUses()
			if len(events) != 1 {
				t.Fatalf("%d events", len(events))
			}
			e := events[0]
			if e.TokenID != m.Token.ID ||
				e.User != "u1" ||
				e.Actor != "token:"+m.Token.ID.String() ||
				e.PeerIP != elsewhere ||
				e.Outcome != tokens.OutcomeRefused ||
				e.Reason != "TOKEN_SUPERSEDED" ||
				!strings.Contains(e.Detail, "presented to service:gw") ||
				!strings.Contains(e.Detail, "which stopped at 20") ||
				strings.Contains(e.Detail, old.Reveal()) {
				t.Errorf("event %+v", e)
			}
		})
	}
	for name, present := range map[string]func(h *house, s tokens.Secret){
		"introspected": func(h *house, s tokens.Secret) { h.wants(s, tokens.Superseded, "an old secret") },
		"in a batch": func(h *house, s tokens.Secret) {
			_, _ = h.decideAll(gw, tokens.IntrospectRequest{Secret: s}, tokens.IntrospectRequest{})
		},
		"as the credential": func(h *house, s tokens.Secret) { _, _ = h.Authenticate(ctx, s, home) },
		"exchanged": func(h *house, s tokens.Secret) {
			_, _ = h.Exchange(ctx, tokens.ExchangeRequest{Subject: s, Peer: home})
		},
		"to rotate": func(h *house, s tokens.Secret) { _, _ = h.rotateSelf(s, tokens.RotateSelfRequest{}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.give("u1", "a", "b")
			m := h.selfTurning("n")
			present(h, ways["without grace"](h, m))
			if n := len(h.supersededUses()); n != 1 {
				t.Errorf("%d events", n)
			}
		})
	}
}

// TestASupersededUseIsRecordedOnceAnHour for each secret, on two servers together and over a restart.
func TestASupersededUseIsRecordedOnceAnHour(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a", "b")
	m := h.selfTurning("n")
	older := h.mustTurn(m, tokens.RotateRequest{Grace: new(time.Duration)}).Secret
	h.wait(time.Minute)
	h.mustTurn(m, tokens.RotateRequest{Grace: new(time.Duration)})
	var others sync.WaitGroup
	servers := []*house{h, h.second()}
	at := func(want int, what string) {
		t.Helper()
		for _, s := range servers {
			for range 4 {
				others.Go(func() { s.wants(m.Secret, tokens.Superseded, what) })
			}
		}
		others.Wait()
		for _, s := range servers {
			others.Go(func() { s.FlushSupersededUses(ctx, func(err error) { t.Errorf("%v", err) }) })
		}
		others.Wait()
		if n := len(h.supersededUses()); n != want {
			t.Errorf("%s: %d events, want %d", what, n, want)
		}
	}
	at(1, "at first")
	h.wait(59 * time.Minute)
	at(1, "within the hour")
	servers = append(servers, h.second())
	at(1, "after a restart within the hour")
	h.wait(time.Minute)
	at(2, "an hour later")
	h.wants(older, tokens.Superseded, "another secret")
	if n := len(h.supersededUses()); n != 3 {
		t.Errorf("another secret: %d events", n)
	}
	h.wait(-2 * time.Hour) // the clock was wrong, and is set back
	at(4, "the clock was set back")
}

// TestStrangersCauseNoEventOfSupersededUse: neither a wrong secret of a rotated token, nor a secret that works, nor one
// that is presented to be ended.
func TestStrangersCauseNoEventOfSupersededUse(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a", "b")
	m, other := h.selfTurning("n"), h.selfTurning("other")
	r := h.mustTurn(m, tokens.RotateRequest{Grace: new(time.Duration)})
	inGrace := h.mustTurn(other, tokens.RotateRequest{})
	wrong, err := secret.Mint("pat", m.Token.ID, zeros{})
	noError(t, err)
	h.wants(wrong, tokens.NotFound, "a wrong secret")
	h.wants(r.Secret, tokens.Allow, "the current secret")
	h.wants(other.Secret, tokens.Allow, "a secret in its grace")
	h.wants(inGrace.Secret, tokens.Allow, "a new secret")
	noError(t, h.RevokeSecret(ctx, tokens.Actor{}, m.Secret))
	noError(t, h.ReportLeaks(ctx, tokens.Actor{}, []tokens.Secret{m.Secret}))
	if events := h.supersededUses(); len(events) != 0 {
		t.Errorf("events %+v", events)
	}
}

// TestIntrospectionDoesNotWaitForTheRecordOfASupersededUse, whatever the store does. What could not be written is
// counted, and tried again after a minute.
func TestIntrospectionDoesNotWaitForTheRecordOfASupersededUse(t *testing.T) {
	t.Parallel()
	var broken *storetest.Faulty
	h := newHouse(t, func(c *tokens.Config) {
		broken = storetest.NewFaulty(c.Store)
		c.Store = broken
	})
	h.give("u1", "a", "b")
	m := h.selfTurning("n")
	h.mustTurn(m, tokens.RotateRequest{Grace: new(time.Duration)})
	broken.FailOp(storetest.OpUpdate, storetest.Outage())
	h.wants(m.Secret, tokens.Superseded, "an old secret, while the store takes no change")
	failed := 0
	h.FlushSupersededUses(ctx, func(err error) {
		if failed++; strings.Contains(err.Error(), m.Secret.Reveal()) {
			t.Errorf("the failure holds the secret: %v", err)
		}
	})
	if n := h.SupersededUsesUnrecorded(); n != 1 || failed != 1 {
		t.Errorf("%d are not recorded, %d failures", n, failed)
	}
	broken.FailOp(storetest.OpUpdate, nil)
	h.wants(m.Secret, tokens.Superseded, "an old secret, at once")
	if n := len(h.supersededUses()); n != 0 {
		t.Errorf("%d events at once", n)
	}
	h.wait(time.Minute)
	h.wants(m.Secret, tokens.Superseded, "an old secret, a minute later")
	if n := len(h.supersededUses()); n != 1 {
		t.Errorf("%d events a minute later", n)
	}
}
