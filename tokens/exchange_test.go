package tokens_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patd/tokens"
	"patd/tokens/refusal"
	"patd/tokens/secret"
)

var (
	home  = tokens.Peer{IP: netip.MustParseAddr("192.0.2.7")}
	photo = tokens.Client{ID: "photo-app"}
)

// api adds an audience with opaque access tokens and refresh tokens; with may change it before.
func (h *house) api(id string, with ...func(*tokens.AudienceEntry)) {
	h.t.Helper()
	e := tokens.AudienceEntry{
		ID:           id,
		Resource:     "https://" + id + ".example",
		AllowOffline: true,
		AccessTTL:    time.Hour,
		AccessFormat: tokens.AccessOpaque,
	}
	for _, w := range with {
		w(&e)
	}
	h.audience(e)
}

func asJWT(e *tokens.AudienceEntry)      { e.AccessFormat = tokens.AccessJWT }
func notOffline(e *tokens.AudienceEntry) { e.AllowOffline = false }

// mintFor mints a token of u1 with these audiences.
func (h *house) mintFor(name string, audiences ...string) tokens.Minted {
	h.t.Helper()
	m, err := h.Mint(
		ctx,
		admin,
		tokens.MintRequest{User: "u1", Name: name, Scopes: []string{"a", "b"}, Audiences: audiences},
	)
	if err != nil {
		h.t.Fatal(err)
	}
	return m
}

func (h *house) exchange(s tokens.Secret, with ...func(*tokens.ExchangeRequest)) tokens.Granted {
	h.t.Helper()
	r := tokens.ExchangeRequest{Subject: s, Peer: home}
	for _, w := range with {
		w(&r)
	}
	g, err := h.Exchange(ctx, r)
	if err != nil {
		h.t.Fatalf("exchange: %v", err)
	}
	return g
}

func offline(r *tokens.ExchangeRequest) { r.Offline = true }

// rotate gives a token of u1 a new secret.
func (h *house) rotate(m tokens.Minted, grace time.Duration) tokens.Secret {
	h.t.Helper()
	r, err := h.Rotate(
		ctx,
		admin,
		tokens.RotateRequest{User: "u1", TokenID: m.Token.ID.String(), Grace: &grace, Force: true},
	)
	if err != nil {
		h.t.Fatal(err)
	}
	return r.Secret
}

func TestExchangedTokenIntrospects(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	h.api("api")
	m := h.mintFor("n", "api", "other")
	h.wait(time.Minute)
	g := h.exchange(m.Secret, func(r *tokens.ExchangeRequest) {
		r.Scopes, r.Audiences, r.Client = []string{"a", "a"}, []string{"api"}, photo
	})
	if g.Format != tokens.AccessOpaque || !g.Refresh.IsEmpty() || g.ExpiresIn != time.Hour ||
		!g.ExpireTime.Equal(h.now().Add(time.Hour)) {
		t.Errorf("%+v", g)
	}
	if !strings.HasPrefix(g.Access.Reveal(), "pata_") {
		t.Error("an opaque access token begins with pata_")
	}
	in := h.ask(g.Access, "a")
	if in.Decision != tokens.Allow || in.Token.ID != m.Token.ID || in.Token.User != "u1" || in.AccessID == 0 ||
		in.AccessID == m.Token.ID ||
		in.ClientID != "photo-app" {
		t.Errorf("%+v", in)
	}
	lists := [][]string{g.Scopes, in.Granted, in.Effective, in.Suspended, in.Audiences}
	if d := cmp.Diff([][]string{{"a"}, {"a"}, {"a"}, {}, {"api"}}, lists); d != "" {
		t.Error(d)
	}
	if !in.IssueTime.Equal(h.now()) || !in.ExpireTime.Equal(g.ExpireTime) || in.ExpiresIn != time.Hour ||
		in.Sequence == 0 {
		t.Errorf("issued %s, expires %s in %s", in.IssueTime, in.ExpireTime, in.ExpiresIn)
	}
	if in := h.ask(g.Access, "b"); in.Decision != tokens.InsufficientScope {
		t.Errorf("a scope that was not asked for: %v", in.Decision)
	}
	in = h.ask(m.Secret)
	if d := cmp.Diff(
		[][]string{{"a", "b"}, {"api", "other"}},
		[][]string{in.Granted, in.Audiences},
	); d != "" || in.AccessID != 0 ||
		!in.IssueTime.Equal(noon) {
		t.Errorf("the token itself: %s %+v", d, in)
	}
	h.wait(time.Hour)
	h.wants(g.Access, tokens.Expired, "after an hour")
	h.wants(m.Secret, tokens.Allow, "the token itself")
}

func TestExchangeOnlyNarrows(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b", "c")
	h.api("api")
	h.api("strict", notOffline)
	// As one from before resources were unique.
	if err := h.store.Update(ctx, func(tx tokens.Tx) ([]tokens.Event, error) {
		twin := tokens.AudienceEntry{
			ID:           "twin",
			Resource:     "HTTPS://api.example:443/",
			AllowOffline: true,
			AccessTTL:    time.Hour,
			AccessFormat: tokens.AccessOpaque,
		}
		return []tokens.Event{
				{
					Time:    noon,
					Actor:   "operator",
					Action:  tokens.ActionAudienceCreate,
					Outcome: tokens.OutcomeSuccess,
					Detail:  "twin",
				},
			}, tx.InsertAudience(
				twin,
			)
	}); err != nil {
		t.Fatal(err)
	}
	named, free := h.mintFor("named", "api", "strict", "unlisted"), h.mintFor("free")
	h.give("u1", "a", "c")
	type x = tokens.ExchangeRequest
	for name, c := range map[string]struct {
		m         tokens.Minted
		r         x
		want      string
		scopes    []string
		audiences []string
	}{
		"nothing asked":             {named, x{}, "", []string{"a"}, []string{"api", "strict", "unlisted"}},
		"nothing asked of no API":   {free, x{}, "", []string{"a"}, nil},
		"one API":                   {named, x{Audiences: []string{"api", "api"}}, "", []string{"a"}, []string{"api"}},
		"an API without an entry":   {named, x{Audiences: []string{"unlisted"}}, "", []string{"a"}, []string{"unlisted"}},
		"by resource":               {named, x{Resources: []string{"https://api.example"}}, "", []string{"a"}, []string{"api"}},
		"a resource of two, free":   {free, x{Resources: []string{"https://api.example"}}, "", []string{"a"}, []string{"api", "twin"}},
		"by both":                   {named, x{Audiences: []string{"strict"}, Resources: []string{"https://api.example"}}, "", []string{"a"}, []string{"api", "strict"}},
		"free to one with an entry": {free, x{Audiences: []string{"strict"}}, "", []string{"a"}, []string{"strict"}},
		"refresh":                   {named, x{Audiences: []string{"api"}, Offline: true}, "", []string{"a"}, []string{"api"}},

		"a suspended scope":                {named, x{Scopes: []string{"a", "b"}}, "SCOPE_INVALID", nil, nil},
		"a scope held, not granted":        {named, x{Scopes: []string{"c"}}, "SCOPE_INVALID", nil, nil},
		"no scope":                         {named, x{Scopes: []string{}}, "SCOPE_INVALID", nil, nil},
		"a malformed scope":                {named, x{Scopes: []string{"a b"}}, "SCOPE_INVALID", nil, nil},
		"an API the token does not name":   {named, x{Audiences: []string{"api", "twin"}}, "TARGET_INVALID", nil, nil},
		"an API nobody knows":              {free, x{Audiences: []string{"unlisted"}}, "TARGET_INVALID", nil, nil},
		"a resource nobody knows":          {free, x{Resources: []string{"https://other.example"}}, "TARGET_INVALID", nil, nil},
		"an empty resource":                {free, x{Resources: []string{""}}, "TARGET_INVALID", nil, nil},
		"an empty audience":                {free, x{Audiences: []string{""}}, "TARGET_INVALID", nil, nil},
		"a secret for an audience":         {free, x{Audiences: []string{free.Secret.Reveal()}}, "TARGET_INVALID", nil, nil},
		"many audiences":                   {free, x{Audiences: strings.Fields(strings.Repeat("api ", 20) + manyNames(33))}, "TARGET_INVALID", nil, nil},
		"refresh for no API":               {free, x{Offline: true}, "SCOPE_INVALID", nil, nil},
		"refresh where one does not allow": {named, x{Audiences: []string{"api", "strict"}, Offline: true}, "SCOPE_INVALID", nil, nil},
		"refresh without an entry":         {named, x{Audiences: []string{"unlisted"}, Offline: true}, "SCOPE_INVALID", nil, nil},
		"a client id with a line end":      {free, x{Client: tokens.Client{ID: "a\nb"}}, "CLIENT_ID_INVALID", nil, nil},
		"a long client id":                 {free, x{Client: tokens.Client{ID: strings.Repeat("x", 256)}}, "CLIENT_ID_INVALID", nil, nil},
		"a secret for a client id":         {free, x{Client: tokens.Client{ID: free.Secret.Reveal()}}, "CLIENT_ID_INVALID", nil, nil},
		"authenticated as nobody":          {free, x{Client: tokens.Client{Authenticated: true}}, "CLIENT_ID_INVALID", nil, nil},
	} {
		c.r.Subject, c.r.Peer = c.m.Secret, home
		g, err := h.Exchange(ctx, c.r)
		wantReason(t, err, c.want, name)
		if d := cmp.Diff(c.scopes, g.Scopes); d != "" {
			t.Errorf("%s: scopes %s", name, d)
		}
		if err == nil {
			if d := cmp.Diff(c.audiences, h.ask(g.Access).Audiences); d != "" {
				t.Errorf("%s: audiences %s", name, d)
			}
		}
	}
	h.give("u1", "c")
	_, err := h.Exchange(ctx, x{Subject: free.Secret})
	wantReason(t, err, "SCOPE_INVALID", "no scope is in effect")
}

func manyNames(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("x" + strings.Repeat("y", i) + " ")
	}
	return b.String()
}

func TestABadSubjectIsOneAnswerAndAnEndedOneSaysWhy(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	h.give("gone", "a")
	h.api("api", func(e *tokens.AudienceEntry) { e.MaxTTL = 365 * tokens.Day })
	m := h.mintFor("good", "api")
	g := h.exchange(m.Secret, offline)
	revoked, rotated, suspended := h.mintFor("revoked"), h.mintFor("rotated"), h.mint("gone", "s", "a")
	if _, err := h.Revoke(ctx, admin, "u1", revoked.Token.ID.String(), ""); err != nil {
		t.Fatal(err)
	}
	h.rotate(rotated, 0)
	if _, err := h.SuspendUser(ctx, admin, "gone", ""); err != nil {
		t.Fatal(err)
	}
	bound, err := h.Mint(
		ctx,
		admin,
		tokens.MintRequest{User: "u1", Name: "bound", Scopes: []string{"a"}, CIDRs: []string{"198.51.100.0/24"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	svc, err := h.CreateService(ctx, admin, tokens.ServiceRequest{Name: "s", Permissions: []string{"admin"}})
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := secret.Mint("pat", m.Token.ID, zeros{})
	if err != nil {
		t.Fatal(err)
	}
	blocked := h.mintFor("blocked", "short")
	h.api("short", func(e *tokens.AudienceEntry) { e.MaxTTL = tokens.Day })
	if n, _, err := h.BlockTokens(ctx, admin, "short", ""); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	for name, s := range map[string]tokens.Secret{
		"empty": {}, "garbage": secret.NewSecret("x"), "a service's": svc.Secret, "an access token": g.Access, "a refresh token": g.Refresh,
		"a wrong secret": wrong,
	} {
		_, err := h.Exchange(ctx, tokens.ExchangeRequest{Subject: s, Peer: home})
		wantReason(t, err, refusal.NotValid, name)
		e := domainError(t, err)
		if e.Message != "the token is not valid" || e.Code != tokens.CodeInvalid || len(e.Metadata) > 0 {
			t.Errorf("%s: %q with %v", name, e.Message, e.Metadata)
		}
		var ended *tokens.EndedError
		if errors.As(err, &ended) {
			t.Errorf("%s: the log says %v", name, err)
		}
	}
	for s, want := range map[*tokens.Secret]string{
		&revoked.Secret: refusal.Revoked, &rotated.Secret: refusal.Superseded, &suspended.Secret: refusal.UserSuspended,
		&bound.Secret: refusal.IPNotAllowed, &blocked.Secret: refusal.PolicyBlocked,
	} {
		_, err := h.Exchange(ctx, tokens.ExchangeRequest{Subject: *s, Peer: home})
		wantReason(t, err, want, want)
		var ended *tokens.EndedError
		if e := domainError(
			t,
			err,
		); e.Code != tokens.CodeInvalid || !errors.As(err, &ended) ||
			ended.Refusal.Text() != e.Message {
			t.Errorf("%s: %v", want, err)
		}
	}
	if g := h.exchange(
		bound.Secret,
		func(r *tokens.ExchangeRequest) { r.Peer.IP = netip.MustParseAddr("198.51.100.9") },
	); g.Access.IsEmpty() {
		t.Error("refused from a network of the token")
	}
	h.wait(tokens.DefaultTTL)
	_, err = h.Exchange(ctx, tokens.ExchangeRequest{Subject: m.Secret, Peer: home})
	wantReason(t, err, refusal.Expired, "expired")
}

func TestAccessTokensEndWithTheShortest(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	h.api("hour")
	h.api("minute", func(e *tokens.AudienceEntry) { e.AccessTTL = time.Minute })
	h.api("month", func(e *tokens.AudienceEntry) { e.AccessTTL = tokens.MaxAccessTTL })
	m := h.mintFor("n")
	to := func(ids ...string) func(*tokens.ExchangeRequest) {
		return func(r *tokens.ExchangeRequest) { r.Audiences = ids }
	}
	for want, ids := range map[time.Duration][]string{tokens.DefaultAccessTTL: nil, time.Hour: {"hour", "month"}, time.Minute: {"hour", "minute"}, tokens.MaxAccessTTL: {"month"}} {
		if g := h.exchange(m.Secret, to(ids...)); g.ExpiresIn != want {
			t.Errorf("%v: for %s, want %s", ids, g.ExpiresIn, want)
		}
	}
	unlisted := h.mintFor("unlisted", "unlisted", "month")
	if g := h.exchange(unlisted.Secret); g.ExpiresIn != tokens.DefaultAccessTTL {
		t.Errorf("with an audience that has no entry: %s", g.ExpiresIn)
	}
	h.rotate(m, 30*time.Minute)
	if g := h.exchange(m.Secret, to("hour")); g.ExpiresIn != 30*time.Minute {
		t.Errorf("of a secret in its grace: %s", g.ExpiresIn)
	}
	h.wait(tokens.DefaultTTL - time.Hour)
	if g := h.exchange(unlisted.Secret); g.ExpiresIn != time.Hour {
		t.Errorf("of a token that ends in an hour: %s", g.ExpiresIn)
	}
}

func TestJWTsAreMadeOnlyWhereAllAudiencesSaySo(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	h.api("jwt", asJWT)
	h.api("opaque")
	m := h.mintFor("n", "jwt", "opaque")
	h.wait(time.Millisecond)
	to := func(ids ...string) func(*tokens.ExchangeRequest) {
		return func(r *tokens.ExchangeRequest) { r.Audiences, r.Client, r.Scopes = ids, photo, []string{"b"} }
	}
	if g := h.exchange(
		m.Secret,
		to("jwt", "opaque"),
		func(r *tokens.ExchangeRequest) { r.Format = tokens.AccessOpaque },
	); g.Format != tokens.AccessOpaque {
		t.Errorf("for both: %v", g.Format)
	}
	g := h.exchange(m.Secret, to("jwt"))
	end := noon.Truncate(time.Second).Add(time.Hour)
	want := tokens.AccessClaims{
		ID: g.Claims.ID, User: "u1", ClientID: "photo-app", Audiences: []string{"jwt"}, Scopes: []string{"b"},
		IssueTime: h.now(), ExpireTime: end, TokenID: m.Token.ID,
	}
	if d := cmp.Diff(
		want,
		g.Claims,
	); d != "" || g.Format != tokens.AccessJWT || !g.Access.IsEmpty() || !g.ExpireTime.Equal(end) ||
		g.Claims.ID == 0 {
		t.Errorf("%+v\n%s", g, d)
	}
	events, _, err := h.Events(ctx, admin, tokens.EventFilter{Action: "token.exchange"}, tokens.Page{})
	if err != nil || len(events) != 2 || !strings.Contains(events[0].Detail, g.Claims.ID.String()) {
		t.Errorf("events %+v, %v", events, err)
	}
	for id, form := range map[string]tokens.AccessFormat{"jwt": tokens.AccessOpaque, "opaque": tokens.AccessJWT} {
		_, err := h.Exchange(
			ctx,
			tokens.ExchangeRequest{Subject: m.Secret, Audiences: []string{id}, Format: form, Peer: home},
		)
		wantReason(t, err, "FORMAT_INVALID", "another form asked for "+id)
	}
	bound, err := h.Mint(
		ctx,
		admin,
		tokens.MintRequest{
			User:      "u1",
			Name:      "bound",
			Scopes:    []string{"a"},
			Audiences: []string{"jwt", "opaque"},
			CIDRs:     []string{"192.0.2.0/24"},
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.Exchange(ctx, tokens.ExchangeRequest{Subject: bound.Secret, Audiences: []string{"jwt"}, Peer: home})
	wantReason(t, err, "TARGET_INVALID", "a JWT of a token that is bound to networks")
	if g := h.exchange(
		bound.Secret,
		func(r *tokens.ExchangeRequest) { r.Audiences = []string{"opaque"} },
	); g.Format != tokens.AccessOpaque {
		t.Errorf("%v", g.Format)
	}
}

func TestScopesOfAJWTAreWhatTheSourceSaysNow(t *testing.T) {
	src := &fixed{held: tokens.Held{Features: []string{"a", "b"}}}
	h := newHouse(t, func(c *tokens.Config) { c.Features = src })
	h.api("jwt", asJWT)
	h.api("opaque")
	m := h.mintFor("n", "jwt", "opaque")
	for id, fresh := range map[string]bool{"jwt": true, "opaque": false} {
		h.exchange(m.Secret, func(r *tokens.ExchangeRequest) { r.Audiences = []string{id} })
		if src.fresh != fresh {
			t.Errorf("%s: asked afresh is %v", id, src.fresh)
		}
	}
	src.err = tokens.FeaturesUnavailable("test", ctx.Err())
	_, err := h.Exchange(ctx, tokens.ExchangeRequest{Subject: m.Secret, Peer: home})
	wantReason(t, err, "FEATURES_UNAVAILABLE", "with the source out")
	src.held, src.err = tokens.Held{AsGranted: true}, nil
	if g := h.exchange(m.Secret); len(g.Scopes) != 2 {
		t.Errorf("of a source that knows nothing by itself: %v", g.Scopes)
	}
}

func TestAccessTokensOfATokenAreLimited(t *testing.T) {
	h := newHouse(t, func(c *tokens.Config) { c.Limits.AccessTokens = 2 })
	h.give("u1", "a", "b")
	h.api("api", asJWT)
	m, other := h.mintFor("n"), h.mintFor("other")
	first := h.exchange(m.Secret)
	h.exchange(m.Secret)
	full := func(what string) {
		t.Helper()
		_, err := h.Exchange(ctx, tokens.ExchangeRequest{Subject: m.Secret, Peer: home})
		wantReason(t, err, "ACCESS_LIMIT_REACHED", what)
		if domainError(t, err).Code != tokens.CodeExhausted {
			t.Errorf("%s: code %v", what, domainError(t, err).Code)
		}
	}
	full("a third")
	h.exchange(other.Secret)
	h.exchange(m.Secret, func(r *tokens.ExchangeRequest) { r.Audiences = []string{"api"} }) // a JWT is not stored
	if err := h.RevokeSecret(ctx, tokens.Actor{}, first.Access); err != nil {
		t.Fatal(err)
	}
	h.exchange(m.Secret)
	full("after a revocation and one more")
	m.Secret = h.rotate(m, 0)
	h.exchange(m.Secret) // what a thief made of the old secret is in nobody's way
	h.exchange(m.Secret)
	full("after a rotation and two more")
	h.wait(tokens.DefaultAccessTTL)
	h.exchange(m.Secret)
}

func TestFamiliesOfATokenAreLimited(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a", "b")
	h.api("api")
	m := h.mintFor("n", "api")
	var last tokens.Granted
	for range tokens.MaxFamilies {
		last = h.exchange(m.Secret, offline)
	}
	_, err := h.Exchange(ctx, tokens.ExchangeRequest{Subject: m.Secret, Offline: true, Peer: home})
	wantReason(t, err, "ACCESS_LIMIT_REACHED", "one more")
	if err := h.RevokeSecret(ctx, tokens.Actor{}, last.Refresh); err != nil {
		t.Fatal(err)
	}
	h.exchange(m.Secret, offline)
}
