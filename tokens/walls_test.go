package tokens_test

import (
	"slices"
	"testing"
	"time"

	"patd/internal/waittest"
	"patd/tokens"
)

func TestAnAudienceIsOnlyStricterThanTheServer(t *testing.T) {
	h := newHouse(t, func(c *tokens.Config) { c.Policy = tokens.Policy{MaxTTL: 10 * tokens.Day} })
	h.give("u1", "a", "b")
	for want, e := range map[string]tokens.AudienceEntry{
		"TTL_ABOVE_MAXIMUM": {ID: "api", MaxTTL: 11 * tokens.Day}, "NEVER_NOT_ALLOWED": {ID: "api", AllowNever: true},
	} {
		_, err := h.CreateAudience(ctx, admin, e)
		wantReason(t, err, want, "a looser audience")
	}
	// One that was made under a looser server.
	err := h.store.Update(ctx, func(tx tokens.Tx) ([]tokens.Event, error) {
		e := tokens.AudienceEntry{
			ID:           "old",
			MaxTTL:       100 * tokens.Day,
			AllowNever:   true,
			AccessTTL:    time.Hour,
			AccessFormat: tokens.AccessOpaque,
		}
		return []tokens.Event{
				{
					Time:    noon,
					Actor:   "operator",
					Action:  tokens.ActionAudienceCreate,
					Outcome: tokens.OutcomeSuccess,
					Detail:  "old",
				},
			}, tx.InsertAudience(
				e,
			)
	})
	if err != nil {
		t.Fatal(err)
	}
	long := 11 * tokens.Day
	for want, l := range map[string]tokens.Lifetime{"TTL_ABOVE_MAXIMUM": {TTL: &long}, "NEVER_NOT_ALLOWED": {Never: true}} {
		_, err := h.Mint(
			ctx,
			admin,
			tokens.MintRequest{User: "u1", Name: want, Scopes: []string{"a"}, Audiences: []string{"old"}, Lifetime: l},
		)
		wantReason(t, err, want, "an audience from before")
	}
}

func TestAnAudienceMayDemandToBeNamed(t *testing.T) {
	h := followed(t)
	h.give("u1", "a", "b")
	e := tokens.AudienceEntry{ID: "api", Resource: "https://api.example"}
	e = h.audience(e)
	free, named := h.mintFor("free"), h.mintFor("named", "api")
	came := h.exchange(free.Secret, func(r *tokens.ExchangeRequest) { r.Audiences = []string{"api"} })
	decide := func(s tokens.Secret, bound tokens.Actor, asked string) tokens.Decision {
		t.Helper()
		in, err := h.Introspect(ctx, bound, tokens.IntrospectRequest{Secret: s, Audience: asked})
		if err != nil {
			t.Fatal(err)
		}
		return in.Decision
	}
	bound := gw
	bound.Audience = "api"
	w := watch(t, h, tokens.WatchPosition{})
	next(t, w)
	for _, must := range []bool{false, true, false} {
		e.RequireNamed = must
		if _, err := h.ReplaceAudience(ctx, admin, e); err != nil {
			t.Fatal(err)
		}
		want := tokens.Allow
		if must {
			want = tokens.AudienceMismatch
		}
		for what, got := range map[string]tokens.Decision{
			"asked": decide(free.Secret, gw, "api"), "bound": decide(free.Secret, bound, ""), "an access token of it": decide(came.Access, gw, "api"),
		} {
			if got != want {
				t.Errorf("require_named %t, %s: %v, want %v", must, what, got, want)
			}
		}
		if d := decide(named.Secret, bound, "api"); d != tokens.Allow {
			t.Errorf("require_named %t, a token that names it: %v", must, d)
		}
		if d := decide(free.Secret, gw, "other"); d != tokens.Allow {
			t.Errorf("require_named %t, at another audience: %v", must, d)
		}
		if must {
			_, err := h.Exchange(
				ctx,
				tokens.ExchangeRequest{Subject: free.Secret, Peer: home, Audiences: []string{"api"}},
			)
			wantReason(t, err, "TARGET_INVALID", "an exchange of a token that names none")
			if in := next(t, w); !in.StartOver {
				t.Errorf("a watcher keeps what it remembers: %+v", in)
			}
		}
		got, _, err := h.CheckAudience(ctx, admin, "api", nil, !must, tokens.Page{})
		if err != nil || got.Unnamed != 1 {
			t.Errorf("tokens that name none: %d, %v", got.Unnamed, err)
		}
	}
}

func TestABoundWatcherHearsOnlyOfItsAudience(t *testing.T) {
	h := followed(t)
	bound := gw
	bound.Audience = "a"
	mint := func(user string, audiences ...string) tokens.Token {
		t.Helper()
		h.give(user, "x")
		m, err := h.Mint(
			ctx,
			admin,
			tokens.MintRequest{User: user, Name: "n", Scopes: []string{"x"}, Audiences: audiences},
		)
		if err != nil {
			t.Fatal(err)
		}
		return m.Token
	}
	own, free, foreign := mint("own", "a"), mint("free"), mint("foreign", "b")
	h.give("none", "x")
	w, err := h.Watch(ctx, bound, tokens.WatchPosition{})
	if err != nil {
		t.Fatal(err)
	}
	next(t, w)
	for _, user := range []string{"own", "free", "foreign", "none"} {
		if _, err := h.SuspendUser(ctx, admin, user, ""); err != nil {
			t.Fatal(err)
		}
	}
	var users []string
	var ids []tokens.ID
	waittest.Until(t, "the users are told of", func() bool {
		users = append(users, next(t, w).Users...)
		return len(users) >= 2
	})
	for _, tok := range []tokens.Token{foreign, own, free} {
		if _, err := h.Revoke(ctx, admin, tok.User, tok.ID.String(), ""); err != nil {
			t.Fatal(err)
		}
	}
	waittest.Until(t, "the tokens are told of", func() bool {
		in := next(t, w)
		users, ids = append(users, in.Users...), append(ids, in.TokenIDs...)
		return slices.Contains(ids, free.ID) && slices.Contains(ids, own.ID)
	})
	slices.Sort(users)
	if users = slices.Compact(
		users,
	); !slices.Equal(users, []string{"free", "own"}) ||
		slices.Contains(ids, foreign.ID) {
		t.Errorf("notified of users %q, tokens %v", users, ids)
	}
}

func TestTwoSpellingsOfAResourceAreOneAudience(t *testing.T) {
	for _, same := range [][]string{
		{"https://api.example/", "HTTPS://API.example", "https://api.example:443", "https://api.example:", "https://api.example/a/.."},
		{"https://api.example/a%2Fb~", "https://api.example/./%61%2fb%7e"}, {"urn:a:b", "URN:a:b"}, {"https://a/b/"}, {"https://a/b"},
		{"https://[::1]:8080/x?q=%7E", "https://[::1]:8080/x?q=~"}, {"http://a:443/"},
	} {
		for _, s := range same {
			if got := tokens.NormalResource(s); got != tokens.NormalResource(same[0]) {
				t.Errorf("%s: %s, want %s", s, got, tokens.NormalResource(same[0]))
			}
		}
	}
	if tokens.NormalResource("https://a/b/") == tokens.NormalResource("https://a/b") {
		t.Error("a slash at the end of a path does not count")
	}
	h := newHouse(t)
	h.audience(tokens.AudienceEntry{ID: "a", Resource: "https://api.example"})
	b := h.audience(tokens.AudienceEntry{ID: "b"})
	_, err := h.CreateAudience(ctx, admin, tokens.AudienceEntry{ID: "c", Resource: "https://API.example/"})
	wantReason(t, err, "RESOURCE_TAKEN", "another spelling")
	b.Resource = "https://api.example:443/"
	_, err = h.ReplaceAudience(ctx, admin, b)
	wantReason(t, err, "RESOURCE_TAKEN", "another spelling, by replacing")
}
