package tokens_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patd/store/storetest"
	"patd/tokens"
	"patd/tokens/secret"
)

func (h *house) refreshed(s tokens.Secret, with ...func(*tokens.RefreshRequest)) tokens.Granted {
	h.t.Helper()
	r := tokens.RefreshRequest{Token: s, Peer: home}
	for _, w := range with {
		w(&r)
	}
	g, err := h.Refresh(ctx, r)
	if err != nil {
		h.t.Fatalf("refresh: %v", err)
	}
	return g
}

// refuses tries to refresh, and wants the refusal.
func (h *house) refuses(s tokens.Secret, want, why string, with ...func(*tokens.RefreshRequest)) {
	h.t.Helper()
	r := tokens.RefreshRequest{Token: s, Peer: home}
	for _, w := range with {
		w(&r)
	}
	g, err := h.Refresh(ctx, r)
	wantReason(h.t, err, want, why)
	if !g.Access.IsEmpty() || !g.Refresh.IsEmpty() {
		h.t.Errorf("%s: a secret was handed out", why)
	}
}

func TestRefreshTokensRotate(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	h.api("api")
	m := h.mintFor("n", "api")
	g := h.exchange(m.Secret, offline, func(r *tokens.ExchangeRequest) { r.Client = photo })
	if !strings.HasPrefix(g.Refresh.Reveal(), "patr_") {
		t.Error("a refresh token begins with patr_")
	}
	as := func(r *tokens.RefreshRequest) { r.Client = photo }
	for range 3 {
		h.wait(30 * time.Minute)
		next := h.refreshed(g.Refresh, as)
		if next.Refresh.Reveal() == g.Refresh.Reveal() || next.ExpiresIn != time.Hour {
			t.Errorf("%+v", next)
		}
		in := h.ask(next.Access)
		if d := cmp.Diff(
			[][]string{{"a", "b"}, {"api"}},
			[][]string{in.Effective, in.Audiences},
		); d != "" || in.ClientID != "photo-app" ||
			in.Token.ID != m.Token.ID {
			t.Errorf("%s %+v", d, in)
		}
		h.wants(g.Access, tokens.Allow, "the access token before")
		g = next
	}
	events, _, err := h.Events(
		ctx,
		admin,
		tokens.EventFilter{Action: "token.refresh", TokenID: m.Token.ID.String()},
		tokens.Page{},
	)
	if err != nil || len(events) != 3 || events[0].User != "u1" ||
		!strings.Contains(events[0].Detail, `, unverified_client_id "photo-app", `) ||
		events[0].PeerIP != home.IP {
		t.Errorf("events: %+v, %v", events, err)
	}
	h.wait(m.Token.ExpireTime.Sub(h.now()) - time.Minute)
	g = h.refreshed(g.Refresh, as)
	if g.ExpiresIn != time.Minute {
		t.Errorf("a minute before the token's end, for %s", g.ExpiresIn)
	}
	h.wait(time.Minute)
	h.refuses(g.Refresh, "GRANT_INVALID", "after the token's end", as)
}

func TestReuseOfARefreshTokenEndsTheFamily(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	h.api("api")
	m := h.mintFor("n", "api")
	first := h.exchange(m.Secret, offline, func(r *tokens.ExchangeRequest) { r.Client = photo })
	other := h.exchange(m.Secret, offline)
	as := func(r *tokens.RefreshRequest) { r.Client = photo }
	second := h.refreshed(first.Refresh, as)
	third := h.refreshed(second.Refresh, as)
	h.refuses(first.Refresh, "GRANT_INVALID", "the first one again, by a thief who is no client")
	h.refuses(third.Refresh, "GRANT_INVALID", "the newest one, after that", as)
	for name, s := range map[string]tokens.Secret{"first": first.Access, "second": second.Access, "third": third.Access} {
		h.wants(s, tokens.Revoked, "the "+name+" access token")
	}
	h.wants(other.Access, tokens.Allow, "an access token of another family")
	h.refreshed(other.Refresh)
	h.wants(m.Secret, tokens.Allow, "the token itself")
	events, _, err := h.Events(ctx, admin, tokens.EventFilter{Action: "family.revoke"}, tokens.Page{})
	if err != nil || len(events) != 1 || events[0].TokenID != m.Token.ID || events[0].User != "u1" ||
		!strings.Contains(events[0].Detail, "refresh token reused") {
		t.Errorf("events: %+v, %v", events, err)
	}
}

func TestReuseIsNoAnswerUntilTheFamilysEndIsStored(t *testing.T) {
	var faulty *storetest.Faulty
	h := newHouse(t, func(c *tokens.Config) {
		faulty = storetest.NewFaulty(c.Store)
		c.Store = faulty
	})
	h.give("u1", "a", "b")
	h.api("api")
	first := h.exchange(h.mintFor("n", "api").Secret, offline)
	second := h.refreshed(first.Refresh)
	for _, op := range []storetest.Op{storetest.OpUpdate, storetest.OpCommit, "RevokeFamily"} {
		faulty.FailOp(op, storetest.Full())
		h.refuses(first.Refresh, "DISK_FULL", "reuse with a fault at "+string(op))
		faulty.FailOp(op, nil)
	}
	h.wants(second.Access, tokens.Allow, "while it could not be stored")
	h.refuses(first.Refresh, "GRANT_INVALID", "reuse, stored")
	h.wants(second.Access, tokens.Revoked, "after that")
}

func TestOfRacingRefreshesOneWinsAndTheFamilyEnds(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	h.api("api")
	m := h.mintFor("n", "api")
	for range 10 {
		g := h.exchange(m.Secret, offline)
		const n = 8
		granted, errs := make([]tokens.Granted, n), make([]error, n)
		var ready, wg sync.WaitGroup
		ready.Add(n)
		for i := range n {
			wg.Go(func() {
				ready.Done()
				ready.Wait()
				granted[i], errs[i] = h.Refresh(ctx, tokens.RefreshRequest{Token: g.Refresh, Peer: home})
			})
		}
		wg.Wait()
		won := 0
		for i, err := range errs {
			if err != nil {
				wantReason(t, err, "GRANT_INVALID", "one that lost")
				continue
			}
			won++
			h.wants(granted[i].Access, tokens.Revoked, "the winner's access token, after the reuse")
			h.refuses(granted[i].Refresh, "GRANT_INVALID", "the winner's refresh token, after the reuse")
		}
		if won != 1 {
			t.Errorf("%d of %d refreshes with one token were granted", won, n)
		}
		h.wants(g.Access, tokens.Revoked, "the access token before")
	}
}

func TestARefreshTokenIsBoundToItsClient(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	h.api("api")
	m := h.mintFor("n", "api")
	bff := tokens.Client{ID: "bff", Authenticated: true}
	for name, c := range map[string]struct {
		of     tokens.Client
		good   []tokens.Client
		refuse []tokens.Client
	}{
		"nobody's":         {tokens.Client{}, []tokens.Client{{}, photo, bff}, nil},
		"a public one's":   {photo, []tokens.Client{photo, {ID: photo.ID, Authenticated: true}}, []tokens.Client{{}, bff, {ID: "Photo-App"}}},
		"a confidential's": {bff, []tokens.Client{bff}, []tokens.Client{{}, {ID: "bff"}, photo, {ID: "other", Authenticated: true}}},
	} {
		g := h.exchange(m.Secret, offline, func(r *tokens.ExchangeRequest) { r.Client = c.of })
		for _, bad := range c.refuse {
			h.refuses(
				g.Refresh,
				"GRANT_INVALID",
				name+", by another",
				func(r *tokens.RefreshRequest) { r.Client = bad },
			)
		}
		for _, good := range c.good { // the wrong clients did not use it up
			g = h.refreshed(g.Refresh, func(r *tokens.RefreshRequest) { r.Client = good })
			if got := h.ask(g.Access).ClientID; got != c.of.ID {
				t.Errorf("%s: client %q", name, got)
			}
		}
	}
}

func TestRefreshOnlyNarrowsForOneAccessToken(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b", "c")
	h.api("api")
	h.api("other")
	h.api("third")
	m, err := h.Mint(
		ctx,
		admin,
		tokens.MintRequest{
			User:      "u1",
			Name:      "n",
			Scopes:    []string{"a", "b", "c"},
			Audiences: []string{"api", "other", "third"},
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	g := h.exchange(m.Secret, offline, func(r *tokens.ExchangeRequest) {
		r.Scopes, r.Audiences = []string{"a", "b"}, []string{"api", "other"}
	})
	scopes := func(s ...string) func(*tokens.RefreshRequest) {
		return func(r *tokens.RefreshRequest) { r.Scopes = append([]string{}, s...) }
	}
	h.refuses(g.Refresh, "SCOPE_INVALID", "a scope of the token, not of the family", scopes("c"))
	h.refuses(g.Refresh, "SCOPE_INVALID", "no scope", scopes())
	h.refuses(
		g.Refresh,
		"TARGET_INVALID",
		"an audience of the token, not of the family",
		func(r *tokens.RefreshRequest) { r.Audiences = []string{"third"} },
	)
	g = h.refreshed(
		g.Refresh,
		scopes("b"),
		func(r *tokens.RefreshRequest) { r.Resources = []string{"https://other.example"} },
	)
	if d := cmp.Diff([][]string{{"b"}, {"other"}}, [][]string{g.Scopes, h.ask(g.Access).Audiences}); d != "" {
		t.Error(d)
	}
	g = h.refreshed(g.Refresh)
	if d := cmp.Diff(
		[][]string{{"a", "b"}, {"api", "other"}},
		[][]string{g.Scopes, h.ask(g.Access).Audiences},
	); d != "" {
		t.Error("the next one has all again:", d)
	}
	h.give("u1", "b", "c")
	h.refuses(g.Refresh, "SCOPE_INVALID", "a suspended scope", scopes("a"))
	if _, err := h.UpdateToken(
		ctx,
		admin,
		"u1",
		m.Token.ID.String(),
		tokens.TokenChange{Scopes: &[]string{"a", "c"}},
	); err != nil {
		t.Fatal(err)
	}
	h.refuses(g.Refresh, "SCOPE_INVALID", "no scope is left")
	h.give("u1", "a")
	if g = h.refreshed(g.Refresh); !cmp.Equal(g.Scopes, []string{"a"}) {
		t.Errorf("family ∩ token ∩ held: %v", g.Scopes)
	}
	if _, err := h.ReplaceAudience(ctx, admin, tokens.AudienceEntry{ID: "api"}); err != nil {
		t.Fatal(err)
	}
	h.refuses(g.Refresh, "GRANT_INVALID", "an audience that allows it no longer")
	h.refreshed(g.Refresh, func(r *tokens.RefreshRequest) { r.Audiences = []string{"other"} })
}

func TestRefreshKeepsToTheNetworksOfTheToken(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	h.api("api")
	h.api("jwt", asJWT)
	m := h.mintFor("n", "api", "jwt")
	to := func(id string) func(*tokens.ExchangeRequest) {
		return func(r *tokens.ExchangeRequest) { r.Audiences = []string{id} }
	}
	opaque, jwt := h.exchange(m.Secret, offline, to("api")), h.exchange(m.Secret, offline, to("jwt"))
	if jwt.Format != tokens.AccessJWT || jwt.Refresh.IsEmpty() {
		t.Fatalf("%+v", jwt)
	}
	if jwt = h.refreshed(jwt.Refresh); jwt.Format != tokens.AccessJWT || jwt.Claims.ID == 0 {
		t.Errorf("%+v", jwt)
	}
	if _, err := h.UpdateToken(
		ctx,
		admin,
		"u1",
		m.Token.ID.String(),
		tokens.TokenChange{CIDRs: &[]string{"192.0.2.0/24"}},
	); err != nil {
		t.Fatal(err)
	}
	h.refuses(jwt.Refresh, "TARGET_INVALID", "a JWT of a token that was bound to networks since")
	h.refuses(
		opaque.Refresh,
		"GRANT_INVALID",
		"from nowhere",
		func(r *tokens.RefreshRequest) { r.Peer = tokens.Peer{} },
	)
	h.refreshed(opaque.Refresh)
}

func TestOtherSecretsAreNoRefreshTokens(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	h.api("api")
	m := h.mintFor("n", "api")
	g := h.exchange(m.Secret, offline)
	unknown, err := secret.Mint(secret.PrefixRefresh, m.Token.ID, zeros{})
	if err != nil {
		t.Fatal(err)
	}
	renamed := secret.NewSecret(strings.Replace(g.Refresh.Reveal(), "patr_", "pata_", 1))
	for name, s := range map[string]tokens.Secret{
		"empty": {}, "garbage": secret.NewSecret("patr_x"), "the token itself": m.Secret, "an access token": g.Access, "an unknown id": unknown, "another prefix": renamed,
	} {
		h.refuses(s, "GRANT_INVALID", name)
	}
	h.refreshed(g.Refresh)
}
