package tokens_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"patd/store/storetest"
	"patd/tokens"
	"patd/tokens/secret"
)

// RevokeSecret revokes what a secret belongs to, as /oauth2/revoke does: one that is not live is no error.
func (h *house) RevokeSecret(ctx context.Context, a tokens.Actor, text tokens.Secret) error {
	found, err := h.FindSecret(ctx, text)
	if reason(err) == "CREDENTIAL_INVALID" {
		return nil
	}
	if err != nil {
		return err
	}
	return found.Revoke(ctx, a)
}

func TestWhoeverHasASecretEndsIt(t *testing.T) {
	for name, a := range map[string]tokens.Actor{"nobody": {Peer: home}, "a service bound to another audience": {Kind: tokens.ServiceActor, Name: "spa", TokenID: 3, Permissions: tokens.PermIntrospect, Audience: "elsewhere", Peer: home}} {
		h := newHouse(t)
		if a.Kind == tokens.ServiceActor {
			h.serviceOf(a)
		}
		h.give("u1", "a", "b")
		h.api("api")
		m := h.mintFor("n", "api")
		one, two, three := h.exchange(m.Secret, offline), h.exchange(m.Secret, offline), h.exchange(m.Secret, offline)
		next := h.refreshed(two.Refresh)
		end := func(s tokens.Secret) {
			t.Helper()
			for range 2 { // idempotent
				if err := h.RevokeSecret(ctx, a, s); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		end(one.Access)
		h.wants(one.Access, tokens.Revoked, "an access token")
		one = h.refreshed(one.Refresh)
		h.wants(one.Access, tokens.Allow, "the next one of its family")

		end(two.Refresh) // a used one
		h.wants(two.Access, tokens.Revoked, "the first access token of a family")
		h.wants(next.Access, tokens.Revoked, "the second")
		h.refuses(next.Refresh, "GRANT_INVALID", "its newest refresh token")

		end(m.Secret)
		h.wants(m.Secret, tokens.Revoked, "the token")
		h.wants(three.Access, tokens.Revoked, "what came of it")
		got, err := h.Token(ctx, admin, "u1", m.Token.ID.String())
		want := "token:" + m.Token.ID.String()
		if a.Kind == tokens.ServiceActor {
			want = "service:spa"
		}
		if err != nil || got.Revocation == nil || got.Revocation.By != want {
			t.Errorf("%s: revoked as %+v, %v; want by %s", name, got.Revocation, err, want)
		}
		for action, n := range map[string]int{"access.revoke": 1, "family.revoke": 1, "token.revoke": 1} {
			events, _, err := h.Events(
				ctx,
				admin,
				tokens.EventFilter{Action: action, TokenID: m.Token.ID.String(), User: "u1"},
				tokens.Page{},
			)
			if err != nil || len(events) != n || events[0].PeerIP != home.IP {
				t.Errorf("%s: %s: %+v, %v", name, action, events, err)
			}
		}
	}
}

func TestOnlyALiveSecretEndsAnything(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	h.api("api")
	m := h.mintFor("n", "api")
	g := h.exchange(m.Secret, offline)
	svc, err := h.CreateService(ctx, admin, tokens.ServiceRequest{Name: "s", Permissions: []string{"introspect"}})
	if err != nil {
		t.Fatal(err)
	}
	first := m.Secret
	m.Secret = h.rotate(m, 0)
	mint := func(prefix string, id tokens.ID) tokens.Secret {
		s, err := secret.Mint(prefix, id, zeros{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := count(t, h)
	for name, s := range map[string]tokens.Secret{
		"empty": {}, "garbage": secret.NewSecret("pat_x"), "rotated away": first,
		"a wrong secret": mint("pat", m.Token.ID), "a wrong access token": mint("pata", h.idOf(t, g.Access)), "a wrong refresh token": mint("patr", h.idOf(t, g.Refresh)),
		"an unknown token": mint("pat", 1), "an unknown access token": mint("pata", 1), "an unknown refresh token": mint("patr", 1),
	} {
		if err := h.RevokeSecret(ctx, tokens.Actor{}, s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := h.ReportLeaks(ctx, tokens.Actor{}, []tokens.Secret{s}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, s := range map[string]tokens.Secret{"a service's": svc.Secret, "a wrong service's": mint("pats", h.idOf(t, svc.Secret)), "an unknown service's": mint("pats", 1)} {
		err := h.RevokeSecret(ctx, tokens.Actor{}, s)
		wantReason(
			t,
			err,
			"REVOCATION_UNSUPPORTED",
			name,
		) // for the form alone, so that it tells nothing of the service
		if name == "a service's" {
			continue
		}
		if err := h.ReportLeaks(ctx, tokens.Actor{}, []tokens.Secret{s}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	h.wants(m.Secret, tokens.Allow, "the token")
	if a, err := h.Authenticate(ctx, svc.Secret, tokens.Peer{}); err != nil || a.Name != "s" {
		t.Errorf("the service: %+v, %v", a, err)
	}
	if n := count(t, h); n != before {
		t.Errorf("%d events were written", n-before)
	}
	h.wait(tokens.DefaultTTL)
	if err := h.RevokeSecret(ctx, tokens.Actor{}, m.Secret); err != nil || count(t, h) != before {
		t.Errorf("an expired token: %v, %d events", err, count(t, h)-before)
	}
}

// idOf reads the id out of a secret.
func (h *house) idOf(t *testing.T, s tokens.Secret) tokens.ID {
	t.Helper()
	p, err := secret.NewPrefixes("")
	if err != nil {
		t.Fatal(err)
	}
	_, id, err := p.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// count is how many events there are.
func count(t *testing.T, h *house) int {
	t.Helper()
	list, _, err := h.Events(ctx, admin, tokens.EventFilter{}, tokens.Page{Size: 200})
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestSuspendedIsNoShelterForALeakedSecret(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	m := h.mintFor("n")
	if _, err := h.SuspendUser(ctx, admin, "u1", ""); err != nil {
		t.Fatal(err)
	}
	if err := h.ReportLeaks(ctx, tokens.Actor{}, []tokens.Secret{m.Secret}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.ResumeUser(ctx, admin, "u1", ""); err != nil {
		t.Fatal(err)
	}
	h.wants(m.Secret, tokens.Revoked, "resumed after the leak")
}

func TestLeakedSecretsOfEveryKindAreEnded(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	h.api("api")
	m, graced, kept := h.mintFor("n", "api"), h.mintFor("graced", "api"), h.mintFor("kept", "api")
	one, two := h.exchange(kept.Secret, offline), h.exchange(kept.Secret, offline)
	h.rotate(graced, time.Hour)
	svc, err := h.CreateService(ctx, admin, tokens.ServiceRequest{Name: "s", Permissions: []string{"admin"}})
	if err != nil {
		t.Fatal(err)
	}
	found := []tokens.Secret{
		m.Secret,
		secret.NewSecret("look-alike"),
		svc.Secret,
		one.Access,
		two.Refresh,
		m.Secret,
		graced.Secret,
		svc.Secret,
		one.Access,
		two.Refresh,
	}
	before := count(t, h)
	for range 2 {
		if err := h.ReportLeaks(ctx, tokens.Actor{Peer: home}, found); err != nil {
			t.Fatal(err)
		}
	}
	h.wants(m.Secret, tokens.Revoked, "a token")
	h.wants(graced.Secret, tokens.Revoked, "a secret in its grace")
	h.wants(one.Access, tokens.Revoked, "an access token")
	h.wants(two.Access, tokens.Revoked, "an access token of a refresh token's family")
	h.wants(kept.Secret, tokens.Allow, "the token that they came of")
	h.refreshed(one.Refresh)
	if _, err := h.Authenticate(ctx, svc.Secret, tokens.Peer{}); reason(err) != "TOKEN_REVOKED" {
		t.Errorf("a service: %v", err)
	}
	if n := count(t, h) - before - 1; n != 10 { // the refresh is one
		t.Errorf("%d events for five secrets, want the leak and the revocation of each", n)
	}
	for _, id := range []string{m.Token.ID.String(), graced.Token.ID.String()} {
		got, err := h.Token(ctx, admin, "u1", id)
		if err != nil || got.Revocation.Reason != "LEAKED" || got.Revocation.By != "nobody" {
			t.Errorf("%+v, %v", got.Revocation, err)
		}
	}
	list, _, err := h.Services(ctx, admin, tokens.Page{})
	if err != nil || list[0].Revocation == nil || list[0].Revocation.Reason != "LEAKED" {
		t.Errorf("%+v, %v", list, err)
	}
	events, _, err := h.Events(ctx, admin, tokens.EventFilter{Actor: "nobody"}, tokens.Page{})
	if err != nil || len(events) != 10 || slices.ContainsFunc(events, func(e tokens.Event) bool {
		_, leaked := tokens.ParseLeak(e.Detail)
		return e.PeerIP != home.IP || leaked != (e.Action == tokens.ActionTokenLeaked) ||
			!leaked && !strings.Contains(e.Detail, "LEAKED")
	}) {
		t.Errorf("%+v, %v", events, err)
	}
}

func TestALeakThatCannotBeEndedDoesNotShelterTheOthers(t *testing.T) {
	var faulty *storetest.Faulty
	h := newHouse(t, func(c *tokens.Config) {
		faulty = storetest.NewFaulty(c.Store)
		c.Store = faulty
	})
	h.give("u1", "a", "b")
	m := h.mintFor("n")
	g := h.exchange(h.mintFor("other").Secret)
	faulty.FailOp("RevokeAccess", storetest.Full())
	err := h.ReportLeaks(ctx, tokens.Actor{}, []tokens.Secret{g.Access, m.Secret})
	wantReason(t, err, "DISK_FULL", "one that cannot be ended")
	h.wants(m.Secret, tokens.Revoked, "the other")
	h.wants(g.Access, tokens.Allow, "that one")
	err = h.ReportLeaks(ctx, tokens.Actor{}, make([]tokens.Secret, tokens.MaxLeaks+1))
	wantReason(t, err, "LEAKS_TOO_MANY", "too many")
	if err := h.ReportLeaks(ctx, tokens.Actor{}, make([]tokens.Secret, tokens.MaxLeaks)); err != nil {
		t.Errorf("as many as are allowed: %v", err)
	}
}

func TestNoSecretStandsInAnEvent(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	h.api("api")
	m := h.mintFor("n", "api")
	one := h.exchange(m.Secret, offline, func(r *tokens.ExchangeRequest) { r.Client = photo })
	two := h.refreshed(one.Refresh, func(r *tokens.RefreshRequest) { r.Client = photo })
	secrets := []tokens.Secret{m.Secret, one.Access, one.Refresh, two.Access, two.Refresh}
	bad := tokens.ExchangeRequest{Subject: m.Secret, Client: tokens.Client{ID: one.Access.Reveal()}, Peer: home}
	if _, err := h.Exchange(ctx, bad); err == nil {
		t.Error("a secret was taken for a client id")
	}
	bad = tokens.ExchangeRequest{
		Subject:   m.Secret,
		Scopes:    []string{one.Access.Reveal()},
		Audiences: []string{one.Refresh.Reveal()},
		Peer:      home,
	}
	if _, err := h.Exchange(ctx, bad); err == nil || strings.Contains(err.Error(), one.Refresh.Reveal()) {
		t.Errorf("a secret for an audience: %v", err)
	}
	bad.Audiences = nil
	if _, err := h.Exchange(ctx, bad); err == nil || strings.Contains(err.Error(), one.Access.Reveal()) {
		t.Errorf("a secret for a scope: %v", err)
	}
	for _, s := range []tokens.Secret{two.Access, one.Refresh, m.Secret} {
		if err := h.RevokeSecret(ctx, tokens.Actor{}, s); err != nil {
			t.Fatal(err)
		}
	}
	list, _, err := h.Events(ctx, admin, tokens.EventFilter{TokenID: m.Token.ID.String()}, tokens.Page{})
	if err != nil || len(list) < 7 {
		t.Fatalf("%d events, %v", len(list), err)
	}
	for _, e := range list {
		for _, s := range secrets {
			if text := s.Reveal(); strings.Contains(e.Detail+e.Reason+e.Actor+e.User+e.Service, text[len(text)-40:]) {
				t.Errorf("a secret stands in %+v", e)
			}
		}
	}
}

func TestAskingForMoreIsRecorded(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	h.api("api")
	m := h.mintFor("n", "api")
	for _, r := range []tokens.ExchangeRequest{{Scopes: []string{"c"}}, {Audiences: []string{"other"}}} {
		r.Subject, r.Peer = m.Secret, home
		if _, err := h.Exchange(ctx, r); err == nil {
			t.Errorf("granted %+v", r)
		}
	}
	events, _, err := h.Events(ctx, admin, tokens.EventFilter{Action: "token.exchange"}, tokens.Page{})
	if err != nil || len(events) != 2 {
		t.Fatalf("%+v, %v", events, err)
	}
	for i, want := range []string{"TARGET_INVALID", "SCOPE_INVALID"} {
		e := events[i]
		if e.Reason != want || e.Outcome != tokens.OutcomeRefused || e.TokenID != m.Token.ID ||
			e.Actor != "token:"+m.Token.ID.String() ||
			e.PeerIP != home.IP {
			t.Errorf("%+v", e)
		}
	}
}
