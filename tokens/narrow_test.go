package tokens_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"patd/tokens"
)

// unused narrows a token of u1 by what was not used.
func (h *house) unused(m tokens.Minted, since time.Duration) ([]string, error) {
	got, err := h.Narrow(
		ctx,
		admin,
		tokens.NarrowRequest{User: "u1", TokenID: m.Token.ID.String(), Unused: tokens.Unused{For: since}, DryRun: true},
	)
	return got.Scopes, err
}

func TestUnusedIsWhatWasNotUsedSinceADay(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a", "b", "c")
	m := h.mint("u1", "n", "a", "b", "c")
	h.ask(m.Secret, "a")
	h.ask(m.Secret, "a", "x") // refused: x was never granted, and counts for neither
	h.wait(10 * tokens.Day)
	h.ask(m.Secret, "b", "a")
	h.ask(m.Secret)
	h.wait(5 * tokens.Day)
	for since, want := range map[time.Duration][]string{0: {"c"}, 4 * tokens.Day: {"a", "b", "c"}, 7 * tokens.Day: {"c"}, 15 * tokens.Day: {"c"}} {
		got, err := h.unused(m, since)
		noError(t, err)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("not used for %v:\n%s", since, d)
		}
	}
	_, err := h.unused(m, 16*tokens.Day)
	wantReason(t, err, "USES_NOT_RECORDED", "the token is younger")
	_, err = h.unused(m, time.Hour)
	wantReason(t, err, "UNUSED_FOR_INVALID", "an hour")
	day := func(n int) time.Time { return noon.AddDate(0, 0, n).Truncate(tokens.Day) }
	want := &tokens.ScopeUses{
		Scopes:   []tokens.ScopeUse{{Scope: "a", Day: day(10), Count: 2}, {Scope: "b", Day: day(10), Count: 1}},
		Unscoped: tokens.ScopeUse{Day: day(10), Count: 1},
		Sources:  []tokens.UseSource{{Service: gw.Name, Time: noon.AddDate(0, 0, 10)}},
	}
	if d := cmp.Diff(
		want,
		h.stored(m).Uses,
		cmpopts.IgnoreUnexported(tokens.UseSource{}),
		cmpopts.EquateComparable(want.Sources[0].IP),
	); d != "" {
		t.Errorf("the uses:\n%s", d)
	}
}

func TestJWTsCountAsUsesOfTheirScopes(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.api("api", func(e *tokens.AudienceEntry) { e.AccessFormat = tokens.AccessJWT })
	h.api("opaque")
	h.give("u1", "a", "b", "c")
	m := h.mint("u1", "n", "a", "b", "c")
	h.exchange(m.Secret, func(r *tokens.ExchangeRequest) { r.Audiences, r.Scopes = []string{"api"}, []string{"a"} })
	access := h.exchange(
		m.Secret,
		func(r *tokens.ExchangeRequest) { r.Audiences, r.Scopes = []string{"opaque"}, []string{"b", "c"} },
	)
	in, err := h.Introspect(ctx, gw, tokens.IntrospectRequest{Secret: access.Access, Required: []string{"b"}})
	noError(t, err)
	if in.Decision != tokens.Allow {
		t.Fatal(in.Decision)
	}
	got, err := h.unused(m, 0)
	noError(t, err)
	if !slices.Equal(got, []string{"c"}) {
		t.Errorf("unused: %v, want c", got)
	}
	// What is paused is in effect in the access token no more.
	_, err = h.Narrow(ctx, admin, tokens.NarrowRequest{User: "u1", TokenID: m.Token.ID.String()})
	noError(t, err)
	in, err = h.Introspect(ctx, gw, tokens.IntrospectRequest{Secret: access.Access, Required: []string{"c"}})
	noError(t, err)
	if in.Decision != tokens.InsufficientScope || !slices.Equal(in.Paused, []string{"c"}) ||
		!slices.Equal(in.Granted, []string{"b", "c"}) {
		t.Errorf("the access token: %v, paused %v of %v", in.Decision, in.Paused, in.Granted)
	}
}

func TestOnlyTheOwnerResumes(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a", "b")
	m := h.mint("u1", "n", "a", "b")
	id := m.Token.ID.String()
	person := tokens.Actor{Kind: tokens.OperatorActor, User: "ops", Permissions: tokens.PermTokens}
	_, err := h.Narrow(ctx, person, tokens.NarrowRequest{User: "u1", TokenID: id})
	noError(t, err)
	_, err = h.ResumeScopes(ctx, person, "u1", id, nil)
	wantReason(t, err, "PERMISSION_DENIED", "an operator resumes")
	other := tokens.Actor{Kind: tokens.UserActor, User: "u2"}
	_, err = h.ResumeScopes(ctx, other, "u1", id, nil)
	wantReason(t, err, "PERMISSION_DENIED", "another user resumes")
	owner := tokens.Actor{Kind: tokens.UserActor, User: "u1"}
	h.give("u1", "a")
	_, err = h.ResumeScopes(ctx, owner, "me", id, []string{"b"})
	wantReason(t, err, "SCOPE_NOT_HELD", "the owner resumes what it does not hold")
	got, err := h.ResumeScopes(ctx, owner, "me", id, []string{"a"})
	noError(t, err)
	if !slices.Equal(got.Scopes, []string{"a"}) || len(got.Paused) != 1 {
		t.Errorf("resumed: %v, paused %v", got.Scopes, got.Paused)
	}
	h.wait(tokens.PauseLife)
	h.give("u1", "a", "b")
	_, err = h.ResumeScopes(ctx, owner, "me", id, []string{"b"})
	wantReason(t, err, "SCOPES_NOT_PAUSED", "30 days later")
	_, err = h.Narrow(ctx, owner, tokens.NarrowRequest{User: "me", TokenID: id, Scopes: []string{"a", "b"}})
	wantReason(t, err, "SCOPES_NOT_GRANTED", "pause again what is gone, and was not removed yet")
	if left := h.stored(m); !left.PausedUntil(h.now()).IsZero() {
		t.Errorf("what is gone can be resumed until %s", left.PausedUntil(h.now()))
	}
	noError(t, h.RemovePausedScopes(ctx))
	if left := h.stored(m); len(left.Paused) != 0 || !slices.Equal(left.Scopes, []string{"a"}) {
		t.Errorf("removed for good: %v, paused %v", left.Scopes, left.Paused)
	}
	events, _, err := h.Events(ctx, admin, tokens.EventFilter{TokenID: id}, tokens.Page{Size: 1})
	noError(t, err)
	if events[0].Action != tokens.ActionTokenScopesRemoved || events[0].Detail != "scopes -b" {
		t.Errorf("the event: %+v", events[0])
	}
}
