package tokens_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patd/tokens"
	"patd/tokens/secret"
)

func TestRevocationIsFinalAndIdempotent(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a")
	m := h.mint("u1", "n", "a")
	id := m.Token.ID.String()
	first, err := h.Revoke(ctx, admin, "u1", id, "lost laptop")
	if err != nil {
		t.Fatal(err)
	}
	h.wants(m.Secret, tokens.Revoked, "revoked")
	h.wait(time.Hour)
	second, err := h.Revoke(ctx, gw, "u1", id, "another reason")
	if err != nil {
		t.Fatal(err)
	}
	want := &tokens.Revocation{Time: noon, By: "service:admin", Reason: "lost laptop"}
	if d := cmp.Diff(want, first.Revocation); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(want, second.Revocation); d != "" {
		t.Error(d)
	}
	h.wait(-100 * tokens.Day)
	h.wants(m.Secret, tokens.Revoked, "the clock set back before the revocation")
	if n, err := h.RevokeAll(ctx, admin, "u1", "x"); n != 0 || err != nil {
		t.Errorf("revoke all: %d, %v", n, err)
	}
	got, err := h.Token(ctx, admin, "u1", id)
	if d := cmp.Diff(want, got.Revocation); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestRevokeAllEndsExpiredTokensToo(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a")
	h.give("u2", "a")
	one, two, other := h.mint("u1", "1", "a"), h.mint("u1", "2", "a"), h.mint("u2", "1", "a")
	h.wait(tokens.DefaultTTL)
	if n, err := h.RevokeAll(ctx, admin, "u1", ""); n != 2 || err != nil {
		t.Errorf("revoked %d, %v", n, err)
	}
	h.wait(-tokens.DefaultTTL)
	h.wants(one.Secret, tokens.Revoked, "the clock set back")
	h.wants(two.Secret, tokens.Revoked, "the clock set back")
	h.wants(other.Secret, tokens.Allow, "another user's")
}

func TestNotFoundIsOneAnswer(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a")
	m := h.mint("u1", "n", "a")
	svc, err := h.CreateService(ctx, admin, tokens.ServiceRequest{Name: "s", Permissions: []string{"introspect"}})
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := secret.Mint("pat", m.Token.ID, zeros{})
	if err != nil {
		t.Fatal(err)
	}
	unknown, err := secret.Mint("pat", m.Token.ID+1, zeros{})
	if err != nil {
		t.Fatal(err)
	}
	renamed := secret.NewSecret(strings.Replace(svc.Secret.Reveal(), "pats_", "pat_", 1))
	for name, s := range map[string]tokens.Secret{
		"nothing": {}, "garbage": secret.NewSecret("hello"), "a service token": svc.Secret, "a service token renamed": renamed,
		"wrong secret": wrong, "unknown id": unknown, "too long": secret.NewSecret(strings.Repeat("x", 300)),
		"padded": secret.NewSecret(m.Secret.Reveal() + " "), "the public id": secret.NewSecret(m.Token.ID.String()),
	} {
		h.wants(s, tokens.NotFound, name)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestUsersComeAndGo(t *testing.T) {
	h := newHouse(t)
	if _, err := h.ResumeUser(ctx, admin, "u1", ""); reason(err) != "NOT_FOUND" {
		t.Errorf("resume an unknown user: %v", err)
	}
	h.give("u1", "a")
	m := h.mint("u1", "n", "a")
	for range 2 {
		if u, err := h.SuspendUser(ctx, admin, "u1", "audit"); err != nil || u.State != tokens.UserSuspended {
			t.Fatalf("%+v, %v", u, err)
		}
	}
	h.wants(m.Secret, tokens.UserIsSuspended, "suspended")
	if _, err := h.Authenticate(ctx, m.Secret, tokens.Peer{}); reason(err) != "USER_SUSPENDED" {
		t.Errorf("authenticate: %v", err)
	}
	_, err := h.Mint(ctx, admin, tokens.MintRequest{User: "u1", Name: "n2", Scopes: []string{"a"}})
	wantReason(t, err, "USER_SUSPENDED", "mint for a suspended user")
	if _, err := h.ResumeUser(ctx, admin, "u1", ""); err != nil {
		t.Fatal(err)
	}
	h.wants(m.Secret, tokens.Allow, "resumed")

	if n, err := h.DeleteUser(ctx, admin, "u1", ""); n != 1 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	if _, err := h.User(ctx, admin, "u1"); reason(err) != "NOT_FOUND" {
		t.Errorf("a deleted user: %v", err)
	}
	h.wants(m.Secret, tokens.Revoked, "a deleted user's token")
	if f, err := h.UserFeatures(ctx, admin, "u1"); len(f.Features) != 0 || err != nil {
		t.Errorf("features of a deleted user: %v, %v", f, err)
	}
	h.give("u1", "b")
	if u, err := h.User(ctx, admin, "u1"); err != nil || u.State != tokens.UserActive {
		t.Errorf("%+v, %v", u, err)
	}
	h.wants(m.Secret, tokens.Revoked, "the token of the user that was deleted")
	if list, _, err := h.Tokens(
		ctx,
		admin,
		tokens.TokenFilter{User: "u1"},
		tokens.Page{},
	); len(list) != 0 ||
		err != nil {
		t.Errorf("the new user has %d tokens, %v", len(list), err)
	}
	if _, err := h.Token(ctx, admin, "u1", m.Token.ID.String()); reason(err) != "NOT_FOUND" {
		t.Errorf("the old user's token under the new user: %v", err)
	}
	if _, err := h.SuspendUser(ctx, admin, "u9", ""); err != nil {
		t.Errorf("suspend a user before it is met: %v", err)
	}
}

func TestSignedInUserReachesOnlyItsOwn(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a")
	h.give("u2", "a")
	theirs := h.mint("u2", "n", "a").Token.ID.String()
	u1 := tokens.Actor{Kind: tokens.UserActor, User: "u1"}
	mine, err := h.Mint(ctx, u1, tokens.MintRequest{User: "me", Name: "n", Scopes: []string{"a"}})
	if err != nil || mine.Token.User != "u1" {
		t.Fatalf("%+v, %v", mine, err)
	}
	if _, err := h.Token(ctx, u1, "me", theirs); reason(err) != "NOT_FOUND" {
		t.Errorf("another user's token id under me: %v", err)
	}
	bearer := tokens.Actor{Kind: tokens.TokenActor, User: "u2", TokenID: mine.Token.ID}
	for name, a := range map[string]tokens.Actor{"signed in as u1": u1, "bearer of u2's": bearer, "nobody": {}} {
		for _, user := range []string{"u2", "nobody-here"} {
			_, e1 := h.Mint(ctx, a, tokens.MintRequest{User: user, Name: "x", Scopes: []string{"a"}})
			_, e2 := h.Token(ctx, a, user, theirs)
			_, _, e3 := h.Tokens(ctx, a, tokens.TokenFilter{User: user}, tokens.Page{})
			_, e4 := h.UpdateToken(ctx, a, user, theirs, tokens.TokenChange{})
			_, e5 := h.Rotate(ctx, a, tokens.RotateRequest{User: user, TokenID: theirs})
			_, e6 := h.Revoke(ctx, a, user, theirs, "")
			_, e7 := h.RevokeAll(ctx, a, user, "")
			_, e8 := h.SuspendUser(ctx, a, user, "")
			_, e9 := h.SetUserFeatures(ctx, a, user, []string{"z"})
			_, e10 := h.UserFeatures(ctx, a, user)
			_, e11 := h.CreateService(ctx, a, tokens.ServiceRequest{Name: "s", Permissions: []string{"admin"}})
			_, _, e12 := h.Events(ctx, a, tokens.EventFilter{}, tokens.Page{})
			for i, err := range []error{e1, e2, e3, e4, e5, e6, e7, e8, e9, e10, e11, e12} {
				wantReason(t, err, "PERMISSION_DENIED", name+" on "+user+", call "+string(rune('a'+i)))
			}
		}
	}
	if _, err := h.Token(ctx, admin, "u2", theirs); err != nil {
		t.Errorf("u2's token: %v", err)
	}
	if _, err := h.Mint(
		ctx,
		admin,
		tokens.MintRequest{User: "me", Name: "n", Scopes: []string{"a"}},
	); reason(
		err,
	) != "USER_INVALID" {
		t.Errorf("me, by a service: %v", err)
	}
}

func TestAudiencesAndAddresses(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a")
	m, err := h.Mint(ctx, admin, tokens.MintRequest{
		User: "u1", Name: "n", Scopes: []string{"a"}, Audiences: []string{"api", "https://b.example"},
		CIDRs: []string{"192.0.2.0/24", "2001:db8::/32", "::ffff:198.51.100.0/120", "203.0.113.9"},
	})
	if err != nil {
		t.Fatal(err)
	}
	free := h.mint("u1", "free", "a")
	bound, other := h.bound("api"), h.bound("other")
	ip := netip.MustParseAddr
	for _, c := range []struct {
		a        tokens.Actor
		s        tokens.Secret
		audience string
		from     netip.Addr
		want     tokens.Decision
	}{
		{gw, m.Secret, "", ip("192.0.2.7"), tokens.Allow},
		{gw, m.Secret, "api", ip("::ffff:192.0.2.7"), tokens.Allow},
		{gw, m.Secret, "api", ip("198.51.100.77"), tokens.Allow},
		{gw, m.Secret, "api", ip("2001:db8::1%eth0"), tokens.Allow},
		{gw, m.Secret, "api", ip("203.0.113.9"), tokens.Allow},
		{gw, m.Secret, "api", ip("203.0.113.10"), tokens.IPNotAllowed},
		{gw, m.Secret, "api", ip("2001:db9::1"), tokens.IPNotAllowed},
		{gw, m.Secret, "api", netip.Addr{}, tokens.IPNotAllowed},
		{gw, m.Secret, "other", ip("192.0.2.7"), tokens.AudienceMismatch},
		{gw, m.Secret, "other", ip("203.0.113.10"), tokens.AudienceMismatch},
		{bound, m.Secret, "", ip("192.0.2.7"), tokens.Allow},
		{bound, m.Secret, "https://b.example", ip("192.0.2.7"), tokens.Allow},
		{bound, m.Secret, "other", ip("192.0.2.7"), tokens.AudienceMismatch},
		{other, m.Secret, "", ip("192.0.2.7"), tokens.AudienceMismatch},
		{other, m.Secret, "api", ip("192.0.2.7"), tokens.AudienceMismatch},
		{bound, free.Secret, "", netip.Addr{}, tokens.Allow},
		{bound, free.Secret, "anything", netip.Addr{}, tokens.Allow},
	} {
		in, err := h.Introspect(ctx, c.a, tokens.IntrospectRequest{Secret: c.s, Audience: c.audience, ClientIP: c.from})
		if err != nil || in.Decision != c.want {
			t.Errorf(
				"bound to %q, for %q, from %v: %v, %v; want %v",
				c.a.Audience,
				c.audience,
				c.from,
				in.Decision,
				err,
				c.want,
			)
		}
	}
}

func TestOnlyAllowMovesLastUsed(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a")
	m := h.mint("u1", "n", "a")
	from := netip.MustParseAddr("192.0.2.1")
	_, err := h.Introspect(
		ctx,
		gw,
		tokens.IntrospectRequest{Secret: m.Secret, ClientIP: netip.MustParseAddr("::ffff:192.0.2.1")},
	)
	if err != nil {
		t.Fatal(err)
	}
	h.wait(time.Minute)
	if in := h.ask(m.Secret, "b"); in.Decision != tokens.InsufficientScope {
		t.Fatal(in.Decision)
	}
	if _, err := h.SuspendUser(ctx, admin, "u1", ""); err != nil {
		t.Fatal(err)
	}
	h.wants(m.Secret, tokens.UserIsSuspended, "suspended")
	h.reopen()
	got, err := h.Token(ctx, admin, "u1", m.Token.ID.String())
	if err != nil || got.LastUsed != (tokens.Use{Time: noon, IP: from}) {
		t.Errorf("last used %+v, %v", got.LastUsed, err)
	}
}

// source is a feature source that the test controls.
type source struct {
	features map[string][]string
	err      error
	fresh    int
}

func (s *source) Features(_ context.Context, u tokens.User, fresh bool) (tokens.Held, error) {
	if fresh {
		s.fresh++
	}
	return tokens.Held{Features: s.features[u.ID]}, s.err
}

func (*source) Local() bool { return false }

func TestOutageOfTheSourceIsNoAnswer(t *testing.T) {
	src := &source{features: map[string][]string{"u1": {"a"}}}
	h := newHouse(t, func(c *tokens.Config) { c.Features = src })
	req := tokens.MintRequest{User: "u1", Name: "n", Scopes: []string{"a"}, IdempotencyKey: strings.Repeat("k", 16)}
	m, err := h.Mint(ctx, admin, req)
	if err != nil || src.fresh != 1 {
		t.Fatalf("%v, asked afresh %d times", err, src.fresh)
	}
	gone := h.mint("u1", "gone", "a")
	if _, err := h.Revoke(ctx, admin, "u1", gone.Token.ID.String(), ""); err != nil {
		t.Fatal(err)
	}
	src.err = tokens.FeaturesUnavailable("ask", errors.New("connection refused"))
	for name, call := range map[string]func() error{
		"introspect": func() error {
			in, err := h.Introspect(ctx, gw, tokens.IntrospectRequest{Secret: m.Secret})
			if in.Decision != 0 {
				t.Errorf("decided %v", in.Decision)
			}
			return err
		},
		"batch": func() error {
			_, err := h.decideAll(gw, tokens.IntrospectRequest{Secret: gone.Secret}, tokens.IntrospectRequest{Secret: m.Secret})
			return err
		},
		"mint": func() error {
			_, err := h.Mint(ctx, admin, tokens.MintRequest{User: "u1", Name: "n2", Scopes: []string{"a"}})
			return err
		},
		"features": func() error { _, err := h.UserFeatures(ctx, admin, "u1"); return err },
	} {
		wantReason(t, call(), "FEATURES_UNAVAILABLE", name)
	}
	h.wants(gone.Secret, tokens.Revoked, "a revoked token needs no source")
	if again, err := h.Mint(
		ctx,
		admin,
		req,
	); err != nil || !again.Replayed ||
		again.Secret.Reveal() != m.Secret.Reveal() {
		t.Errorf("a replay needs no source: %v", err)
	}
	_, err = h.SetUserFeatures(ctx, admin, "u1", []string{"b"})
	wantReason(t, err, "FEATURES_READ_ONLY", "write to another source")
}

func TestAServiceMadeAfterTheClockWasSetBackCanBeRevoked(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	r := tokens.ServiceRequest{Name: "gate", Permissions: []string{"introspect"}}
	if _, err := h.CreateService(ctx, admin, r); err != nil {
		t.Fatal(err)
	}
	if _, err := h.RevokeService(ctx, admin, "gate", ""); err != nil {
		t.Fatal(err)
	}
	h.wait(-time.Hour)
	again, err := h.CreateService(ctx, admin, r)
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.CreateService(ctx, admin, r)
	wantReason(t, err, "NAME_TAKEN", "a third of that name")
	self, err := h.Authenticate(ctx, again.Secret, home)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Introspect(ctx, self, tokens.IntrospectRequest{}); err != nil {
		t.Errorf("the service introspects: %v", err)
	}
	if v, err := h.RevokeService(ctx, admin, "gate", ""); err != nil || v.ID != again.Service.ID {
		t.Errorf("revoked %s, want %s: %v", v.ID, again.Service.ID, err)
	}
	if h.authenticates(again.Secret) {
		t.Error("it is good after its revocation")
	}
}

// TestAForeignServiceLearnsNoInstants introspects a token that has ended by services that are bound to its audience, to
// another one and to none: each gets the decision, and the foreign one nothing else.
func TestAForeignServiceLearnsNoInstants(t *testing.T) {
	h := newHouse(t)
	h.give("u1", "a")
	m, err := h.Mint(
		ctx,
		admin,
		tokens.MintRequest{User: "u1", Name: "n", Scopes: []string{"a"}, Audiences: []string{"api"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	foreign := func(want tokens.Decision) {
		t.Helper()
		in, err := h.Introspect(ctx, h.bound("other"), tokens.IntrospectRequest{Secret: m.Secret})
		if err != nil || in.Decision != want || in.Ended == nil {
			t.Fatalf("%v, %v", in.Decision, err)
		}
		if r := in.Ended.Refusal; !r.Since.IsZero() || !r.ExpireTime.IsZero() || r.RenewURL != "" {
			t.Errorf("%v: a foreign service learns %+v", in.Decision, r)
		}
	}
	foreign(tokens.AudienceMismatch)
	if _, err := h.Revoke(ctx, admin, "u1", m.Token.ID.String(), ""); err != nil {
		t.Fatal(err)
	}
	foreign(tokens.Revoked)
	for _, a := range []tokens.Actor{gw, h.bound("api")} {
		in, err := h.Introspect(ctx, a, tokens.IntrospectRequest{Secret: m.Secret})
		if err != nil || in.Decision != tokens.Revoked || !in.Ended.Refusal.Since.Equal(noon) ||
			!in.Ended.Refusal.ExpireTime.Equal(m.Token.ExpireTime) {
			t.Errorf("%v %+v, %v", in.Decision, in.Ended, err)
		}
	}
}
