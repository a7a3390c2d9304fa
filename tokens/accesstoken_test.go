package tokens_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patd/store/storetest"
	"patd/tokens"
	"patd/tokens/secret"
)

// fixed is an outside source that answers what a test says, and remembers how it was asked.
type fixed struct {
	held  tokens.Held
	err   error
	fresh bool
}

func (f *fixed) Features(_ context.Context, _ tokens.User, fresh bool) (tokens.Held, error) {
	f.fresh = fresh
	return f.held, f.err
}

func (*fixed) Local() bool { return false }

func TestTheEndOfATokenEndsWhatCameOfItAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*testing.T, *house, tokens.Minted)
		want tokens.Decision
	}{
		"revoked": {func(t *testing.T, h *house, m tokens.Minted) {
			_, err := h.Revoke(ctx, admin, "u1", m.Token.ID.String(), "")
			noError(t, err)
		}, tokens.Revoked},
		"revoked by its bearer": {func(t *testing.T, h *house, m tokens.Minted) {
			noError(t, h.RevokeSecret(ctx, tokens.Actor{}, m.Secret))
		}, tokens.Revoked},
		"all of the user's revoked": {func(t *testing.T, h *house, _ tokens.Minted) {
			_, err := h.RevokeAll(ctx, admin, "u1", "")
			noError(t, err)
		}, tokens.Revoked},
		"the user deleted": {func(t *testing.T, h *house, _ tokens.Minted) {
			_, err := h.DeleteUser(ctx, admin, "u1", "")
			noError(t, err)
		}, tokens.Revoked},
		"the user suspended": {func(t *testing.T, h *house, _ tokens.Minted) {
			_, err := h.SuspendUser(ctx, admin, "u1", "")
			noError(t, err)
		}, tokens.UserIsSuspended},
		"an earlier expiry": {func(t *testing.T, h *house, m tokens.Minted) {
			at := h.now().Add(time.Minute)
			_, err := h.UpdateToken(ctx, admin, "u1", m.Token.ID.String(), tokens.TokenChange{ExpireTime: &at})
			noError(t, err)
			h.wait(time.Minute)
		}, tokens.Expired},
		"rotated without grace": {func(_ *testing.T, h *house, m tokens.Minted) { h.rotate(m, 0) }, tokens.Superseded},
		"rotated, and the grace over": {func(_ *testing.T, h *house, m tokens.Minted) {
			h.rotate(m, time.Minute)
			h.wait(time.Minute)
		}, tokens.Superseded},
		"rotated twice": {func(_ *testing.T, h *house, m tokens.Minted) {
			h.rotate(m, time.Hour)
			h.rotate(m, time.Hour)
		}, tokens.Superseded},
		"blocked": {func(t *testing.T, h *house, _ tokens.Minted) {
			_, err := h.ReplaceAudience(ctx, admin, tokens.AudienceEntry{ID: "api", MaxTTL: tokens.Day, AllowOffline: true})
			noError(t, err)
			n, _, err := h.BlockTokens(ctx, admin, "api", "")
			if noError(t, err); n != 1 {
				t.Errorf("%d blocked", n)
			}
		}, tokens.PolicyBlocked},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.give("u1", "a", "b")
			h.api("api")
			m := h.mintFor("n", "api")
			g := h.exchange(m.Secret, offline)
			h.wants(g.Access, tokens.Allow, "before")
			c.end(t, h, m)
			h.wants(g.Access, c.want, "after")
			_, err := h.Refresh(ctx, tokens.RefreshRequest{Token: g.Refresh, Peer: home})
			wantReason(t, err, "GRANT_INVALID", "refresh after")
		})
	}
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhatCanBeUndoneBringsAccessTokensBack(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	h.api("api")
	m := h.mintFor("n", "api")
	g := h.exchange(m.Secret, offline)
	if _, err := h.SuspendUser(ctx, admin, "u1", ""); err != nil {
		t.Fatal(err)
	}
	_, err := h.Refresh(ctx, tokens.RefreshRequest{Token: g.Refresh, Peer: home})
	wantReason(t, err, "GRANT_INVALID", "while suspended")
	if _, err := h.ResumeUser(ctx, admin, "u1", ""); err != nil {
		t.Fatal(err)
	}
	h.wants(g.Access, tokens.Allow, "resumed")
	h.rotate(m, 10*time.Minute)
	in := h.ask(g.Access)
	if in.Decision != tokens.Allow || in.ExpiresIn != 10*time.Minute {
		t.Errorf("in the grace of its secret: %v, %s", in.Decision, in.ExpiresIn)
	}
	if got := h.refreshed(g.Refresh); got.ExpiresIn != 10*time.Minute {
		t.Errorf("refreshed in the grace of its secret: %s", got.ExpiresIn)
	}
}

func TestAnAccessTokenHasNeverMoreThanItsTokenHasNow(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b", "c")
	m, err := h.Mint(ctx, admin, tokens.MintRequest{User: "u1", Name: "n", Scopes: []string{"a", "b", "c"}})
	if err != nil {
		t.Fatal(err)
	}
	g := h.exchange(m.Secret, func(r *tokens.ExchangeRequest) { r.Scopes = []string{"a", "b"} })
	h.give("u1", "b", "c")
	in := h.ask(g.Access)
	if d := cmp.Diff(
		[][]string{{"a", "b"}, {"b"}, {"a"}},
		[][]string{in.Granted, in.Effective, in.Suspended},
	); d != "" {
		t.Error("a lost feature:", d)
	}
	if _, err := h.UpdateToken(
		ctx,
		admin,
		"u1",
		m.Token.ID.String(),
		tokens.TokenChange{Scopes: &[]string{"a", "c"}},
	); err != nil {
		t.Fatal(err)
	}
	in = h.ask(g.Access)
	if d := cmp.Diff([][]string{{"a"}, {}, {"a"}}, [][]string{in.Granted, in.Effective, in.Suspended}); d != "" {
		t.Error("a narrowed token:", d)
	}
	h.give("u1", "a", "b", "c")
	in = h.ask(g.Access, "a")
	if d := cmp.Diff([]string{"a"}, in.Effective); d != "" || in.Decision != tokens.Allow {
		t.Error("the feature back:", in.Decision, d)
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
	h.wants(g.Access, tokens.IPNotAllowed, "bound to networks since, no address")
	in, err = h.Introspect(ctx, gw, tokens.IntrospectRequest{Secret: g.Access, ClientIP: home.IP})
	if in.Decision != tokens.Allow || err != nil {
		t.Errorf("from one of them: %v, %v", in.Decision, err)
	}
}

func TestAccessTokensAreForTheirAudiencesOnly(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	h.api("api")
	g := h.exchange(
		h.mintFor("n", "api", "other").Secret,
		func(r *tokens.ExchangeRequest) { r.Audiences = []string{"api"} },
	)
	free := h.exchange(h.mintFor("free").Secret)
	at := h.bound
	for _, c := range []struct {
		secret tokens.Secret
		actor  tokens.Actor
		asked  string
		want   tokens.Decision
	}{
		{g.Access, gw, "api", tokens.Allow},
		{g.Access, gw, "other", tokens.AudienceMismatch},
		{g.Access, at("api"), "", tokens.Allow},
		{g.Access, at("other"), "", tokens.AudienceMismatch},
		{g.Access, at("other"), "api", tokens.AudienceMismatch},
		{free.Access, at("other"), "", tokens.Allow},
	} {
		in, err := h.Introspect(ctx, c.actor, tokens.IntrospectRequest{Secret: c.secret, Audience: c.asked})
		if err != nil || in.Decision != c.want {
			t.Errorf(
				"asked for %q by a service of %q: %v, %v; want %v",
				c.asked,
				c.actor.Audience,
				in.Decision,
				err,
				c.want,
			)
		}
	}
}

func TestOtherSecretsAreNoAccessTokens(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	h.api("api")
	m := h.mintFor("n", "api")
	g := h.exchange(m.Secret, offline)
	id := h.ask(g.Access).AccessID
	wrong, err := secret.Mint(secret.PrefixAccess, id, zeros{})
	if err != nil {
		t.Fatal(err)
	}
	unknown, err := secret.Mint(secret.PrefixAccess, m.Token.ID, zeros{})
	if err != nil {
		t.Fatal(err)
	}
	renamed := secret.NewSecret(strings.Replace(g.Access.Reveal(), "pata_", "pat_", 1))
	for name, s := range map[string]tokens.Secret{"a wrong secret": wrong, "an unknown id": unknown, "a refresh token": g.Refresh, "another prefix": renamed} {
		h.wants(s, tokens.NotFound, name)
	}
	for name, s := range map[string]tokens.Secret{"an access token": g.Access, "a refresh token": g.Refresh} {
		_, err := h.Authenticate(ctx, s, tokens.Peer{})
		wantReason(t, err, "CREDENTIAL_INVALID", "calling patd with "+name)
	}
}

func TestAUseOfAnAccessTokenIsAUseOfItsToken(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	m := h.mintFor("n")
	used := func() tokens.Use {
		t.Helper()
		if err := h.store.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		got, err := h.Token(ctx, admin, "u1", m.Token.ID.String())
		if err != nil {
			t.Fatal(err)
		}
		return got.LastUsed
	}
	g := h.exchange(m.Secret)
	if got := used(); got != (tokens.Use{Time: noon, IP: home.IP}) {
		t.Errorf("after the exchange: %+v", got)
	}
	h.wait(time.Minute)
	ip := netip.MustParseAddr("198.51.100.4")
	if in, err := h.Introspect(
		ctx,
		gw,
		tokens.IntrospectRequest{Secret: g.Access, ClientIP: ip},
	); err != nil ||
		in.Decision != tokens.Allow {
		t.Fatal(in.Decision, err)
	}
	want := tokens.Use{Time: noon.Add(time.Minute), IP: ip}
	if got := used(); got != want {
		t.Errorf("after a use of the access token: %+v", got)
	}
	h.wait(time.Minute)
	if in := h.ask(g.Access, "x"); in.Decision != tokens.InsufficientScope {
		t.Fatal(in.Decision)
	}
	if got := used(); got != want {
		t.Errorf("after a refused one: %+v", got)
	}
}

func TestOutagesAreNeverAnswersAboutAccessTokens(t *testing.T) {
	var faulty *storetest.Faulty
	h := newHouse(t, func(c *tokens.Config) {
		faulty = storetest.NewFaulty(c.Store)
		c.Store = faulty
	})
	h.give("u1", "a", "b")
	h.api("api")
	m := h.mintFor("n", "api")
	g := h.exchange(m.Secret, offline)
	svc, err := h.CreateService(ctx, admin, tokens.ServiceRequest{Name: "s", Permissions: []string{"introspect"}})
	if err != nil {
		t.Fatal(err)
	}
	type ops = []storetest.Op
	both := func(more ...storetest.Op) ops { return append(ops{storetest.OpUpdate, storetest.OpCommit}, more...) }
	end := func(s tokens.Secret) func() error {
		return func() error { return h.RevokeSecret(ctx, tokens.Actor{}, s) }
	}
	leak := func(s tokens.Secret) func() error {
		return func() error { return h.ReportLeaks(ctx, tokens.Actor{}, []tokens.Secret{s}) }
	}
	leaked := h.exchange(h.mintFor("leaked", "api").Secret, offline)
	for _, c := range []struct {
		what string
		ops  ops
		call func() error
	}{
		{"introspect", ops{storetest.OpLookupAccess, storetest.OpLookup}, func() error {
			in, err := h.Introspect(ctx, gw, tokens.IntrospectRequest{Secret: g.Access})
			if err != nil && in.Decision != 0 {
				t.Errorf("an error with the decision %v", in.Decision)
			}
			return err
		}},
		{"exchange", both(storetest.OpLookup, storetest.OpView, "Audience", "Credential", "CountGrants", "InsertFamily", "InsertRefresh", "InsertAccess"), func() error {
			_, err := h.Exchange(ctx, tokens.ExchangeRequest{Subject: m.Secret, Offline: true, Peer: home})
			return err
		}},
		{"exchange by resource", ops{"Audiences"}, func() error {
			_, err := h.Exchange(ctx, tokens.ExchangeRequest{Subject: m.Secret, Resources: []string{"https://api.example"}, Peer: home})
			return err
		}},
		{"refresh", both(storetest.OpLookup, storetest.OpView, "Audience", "RefreshToken", "Credential", "UseRefresh", "CountGrants", "InsertRefresh", "InsertAccess"), func() error {
			_, err := h.Refresh(ctx, tokens.RefreshRequest{Token: g.Refresh, Peer: home})
			return err
		}},
		{"revoke an access token", both(storetest.OpLookupAccess, "RevokeAccess", "Token"), end(g.Access)},
		{"revoke a family", both(storetest.OpView, "RefreshToken", "RevokeFamily", "Token"), end(g.Refresh)},
		{"revoke a token", both(storetest.OpLookup, "Credential", "Token", "UpdateToken", "ForgetSealed"), end(m.Secret)},
		{"a leaked service", both(storetest.OpLookupService, "Service", "RevokeService"), leak(svc.Secret)},
		{"a leaked access token", both(storetest.OpLookupAccess, "RevokeAccess", "Token"), leak(leaked.Access)},
		{"a leaked refresh token", both(storetest.OpView, "RefreshToken", "RevokeFamily", "Token"), leak(leaked.Refresh)},
	} {
		for _, op := range c.ops {
			before := faulty.Calls()[op]
			faulty.FailOp(op, storetest.Outage())
			err := c.call()
			faulty.FailOp(op, nil)
			wantReason(t, err, "STORE_UNAVAILABLE", c.what+" with a fault at "+string(op))
			if faulty.Calls()[op] == before {
				t.Errorf("%s never comes to %s", c.what, op)
			}
		}
		if err := c.call(); err != nil {
			t.Errorf("%s after the outage: %v", c.what, err)
		}
	}
}
