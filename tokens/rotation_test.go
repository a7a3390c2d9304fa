package tokens_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"patd/internal/longtest"
	"patd/tokens"
)

// turn rotates a token of u1.
func (h *house) turn(m tokens.Minted, r tokens.RotateRequest) (tokens.Rotated, error) {
	r.User, r.TokenID = "u1", m.Token.ID.String()
	return h.Rotate(ctx, admin, r)
}

func (h *house) mustTurn(m tokens.Minted, r tokens.RotateRequest) tokens.Rotated {
	h.t.Helper()
	out, err := h.turn(m, r)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

func (h *house) cancel(m tokens.Minted) (tokens.Token, error) {
	return h.CancelRotation(ctx, admin, "u1", m.Token.ID.String())
}

// stored is a token as it is now.
func (h *house) stored(m tokens.Minted) tokens.Token {
	h.t.Helper()
	t, err := h.Token(ctx, admin, "u1", m.Token.ID.String())
	if err != nil {
		h.t.Fatal(err)
	}
	return t
}

func days(n int) *time.Duration {
	d := time.Duration(n) * tokens.Day
	return &d
}

func TestARenewalGivesTheSameLifetimeAgain(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *tokens.Config) { c.Policy.AllowNever = true })
	h.give("u1", "a")
	m, err := h.Mint(
		ctx,
		admin,
		tokens.MintRequest{User: "u1", Name: "n", Scopes: []string{"a"}, Lifetime: tokens.Lifetime{TTL: days(90)}},
	)
	noError(t, err)
	for range 3 {
		h.wait(80 * tokens.Day)
		before := h.stored(m).ExpireTime
		r := h.mustTurn(m, tokens.RotateRequest{})
		if r.Change != tokens.ExpiryKept || !r.Token.ExpireTime.Equal(before) {
			t.Errorf("a rotation made %d of the expiry, %s; it was %s", r.Change, r.Token.ExpireTime, before)
		}
		h.wait(2 * tokens.Day)
		r = h.mustTurn(m, tokens.RotateRequest{Renew: true})
		if want := h.now().Add(90 * tokens.Day); r.Change != tokens.ExpiryRenewed || !r.Token.ExpireTime.Equal(want) {
			t.Errorf("renewed (%d) until %s, want %s", r.Change, r.Token.ExpireTime, want)
		}
		h.wait(2 * tokens.Day)
	}
	r := h.mustTurn(m, tokens.RotateRequest{Lifetime: tokens.Lifetime{TTL: days(7)}})
	if r.Change != tokens.ExpirySet || !r.Token.ExpireTime.Equal(h.now().Add(7*tokens.Day)) {
		t.Errorf("set (%d) to %s", r.Change, r.Token.ExpireTime)
	}
	h.wait(2 * tokens.Day)
	if r = h.mustTurn(m, tokens.RotateRequest{Renew: true}); !r.Token.ExpireTime.Equal(h.now().Add(7 * tokens.Day)) {
		t.Errorf("renewed until %s, a week from now is %s", r.Token.ExpireTime, h.now().Add(7*tokens.Day))
	}
	h.wait(2 * tokens.Day)
	h.mustTurn(m, tokens.RotateRequest{Lifetime: tokens.Lifetime{Never: true}})
	h.wait(2 * tokens.Day)
	if r = h.mustTurn(
		m,
		tokens.RotateRequest{Renew: true},
	); r.Change != tokens.ExpiryKept ||
		!r.Token.ExpireTime.IsZero() {
		t.Errorf("a token that never expires: %d, %s", r.Change, r.Token.ExpireTime)
	}
	h.wait(2 * tokens.Day)
	_, err = h.turn(m, tokens.RotateRequest{Renew: true, Lifetime: tokens.Lifetime{TTL: days(1)}})
	wantReason(t, err, "LIFETIME_AMBIGUOUS", "renew and a lifetime")
}

func TestARenewalIsRefusedAsAMintWouldBe(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a", "b", "c")
	m := h.mint("u1", "n", "a", "b", "c")
	h.wait(tokens.Day)
	h.give("u1", "a")
	_, err := h.turn(m, tokens.RotateRequest{Renew: true})
	wantReason(t, err, "SCOPE_NOT_HELD", "renew with scopes not held")
	if got := domainError(t, err).Metadata["scopes"]; got != "b c" {
		t.Errorf("not held: %q", got)
	}
	r := h.mustTurn(m, tokens.RotateRequest{Renew: true, DropUnheld: true, IdempotencyKey: idem})
	if d := cmp.Diff(
		[][]string{{"a"}, {"b", "c"}},
		[][]string{r.Token.Scopes, r.Dropped},
	); d != "" ||
		r.Change != tokens.ExpiryRenewed {
		t.Errorf("narrowed: %d %s", r.Change, d)
	}
	again := h.mustTurn(m, tokens.RotateRequest{Renew: true, DropUnheld: true, IdempotencyKey: idem})
	if d := cmp.Diff(
		r.Dropped,
		again.Dropped,
	); d != "" || !again.Replayed || again.Change != r.Change ||
		again.Retire != r.Retire {
		t.Errorf("the replay says %d and dropped %s", again.Change, d)
	}
	h.give("u1", "b", "c", "a")
	if in := h.ask(r.Secret); len(in.Effective) != 1 {
		t.Errorf("dropped scopes came back: %v", in.Effective)
	}
	h.wait(2 * tokens.Day)
	h.give("u1", "x")
	_, err = h.turn(m, tokens.RotateRequest{DropUnheld: true})
	wantReason(t, err, "SCOPE_NOT_HELD", "nothing would be left")
	if got := domainError(t, err).Metadata["scopes"]; got != "a" {
		t.Errorf("not held: %q", got)
	}
	h.reopen(func(c *tokens.Config) { c.Policy.MaxTTL = 30 * tokens.Day })
	h.give("u1", "a")
	_, err = h.turn(m, tokens.RotateRequest{Renew: true})
	wantReason(t, err, "TTL_ABOVE_MAXIMUM", "the policy is stricter now")
	if v := domainError(t, err).Violations; len(v) != 1 || v[0].Field != "renew" {
		t.Errorf("the error is about %+v", v)
	}
	h.mustTurn(m, tokens.RotateRequest{}) // the expiry stays, so nothing is granted
}

func TestASecondRotationDoesNotEndADeployedSecret(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a")
	m := h.mint("u1", "n", "a")
	first := h.mustTurn(m, tokens.RotateRequest{Grace: days(7)})
	for _, r := range []tokens.RotateRequest{{}, {Renew: true}, {Retire: tokens.OnFirstUse}, {Grace: new(time.Duration)}} {
		_, err := h.turn(m, r)
		wantReason(t, err, "ROTATION_IN_PROGRESS", "a second rotation")
		if got, want := domainError(t, err).Metadata["previous_secret_expire_time"], first.PreviousUntil.Format(
			time.RFC3339Nano,
		); got != want {
			t.Errorf("until %q, want %q", got, want)
		}
	}
	h.wants(m.Secret, tokens.Allow, "the deployed secret")
	second := h.mustTurn(m, tokens.RotateRequest{Force: true, Grace: days(1)})
	h.wants(m.Secret, tokens.Superseded, "the deployed secret, after a forced rotation")
	h.wants(first.Secret, tokens.Allow, "the secret before")
	h.wait(tokens.Day)
	third := h.mustTurn(m, tokens.RotateRequest{})
	h.wants(first.Secret, tokens.Superseded, "a secret whose grace is over")
	h.wants(second.Secret, tokens.Allow, "the one before")
	h.wants(third.Secret, tokens.Allow, "the newest")
}

func TestACanceledRotationLeavesTheTokenAsItWas(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a", "b")
	h.api("api")
	m := h.mintFor("n", "api")
	grants := h.exchange(m.Secret, offline)
	before := h.stored(m)
	_, err := h.cancel(m)
	wantReason(t, err, "ROTATION_NOT_IN_PROGRESS", "a token that was never rotated")
	h.wait(time.Minute)
	h.give("u1", "a")
	r := h.mustTurn(m, tokens.RotateRequest{Renew: true, DropUnheld: true, IdempotencyKey: idem})
	if r.Token.ETag() == before.ETag() || len(r.Token.Scopes) != 1 {
		t.Fatalf("the rotation changed nothing: %+v", r.Token)
	}
	h.wait(time.Minute)
	got, err := h.cancel(m)
	noError(t, err)
	for what, now := range map[string]tokens.Token{"answered": got, "stored": h.stored(m)} {
		now.Rotations, now.Rotation, now.LastUsed = before.Rotations, before.Rotation, before.LastUsed
		now.EndSetTime = before.EndSetTime                                           // the end is the same, and was set again
		now.InEffect, now.Uses, now.AsOf = before.InEffect, before.Uses, before.AsOf // not the token's own
		if d := cmp.Diff(before, now, cmpopts.EquateComparable(netip.Addr{})); d != "" {
			t.Errorf("%s: the token is not what it was:\n%s", what, d)
		}
	}
	h.give("u1", "a", "b")
	h.wants(r.Secret, tokens.Superseded, "the secret that was taken back")
	h.wants(m.Secret, tokens.Allow, "the secret before")
	h.wants(grants.Access, tokens.Allow, "an access token from before the rotation")
	if in := h.ask(m.Secret); len(in.Effective) != 2 || !in.ExpireTime.Equal(before.ExpireTime) {
		t.Errorf("effective %v until %s", in.Effective, in.ExpireTime)
	}
	if _, err := h.Refresh(ctx, tokens.RefreshRequest{Token: grants.Refresh, Peer: home}); err != nil {
		t.Errorf("a refresh token from before the rotation: %v", err)
	}
	again, err := h.cancel(m)
	if noError(t, err); again.ETag() != got.ETag() {
		t.Error("a second cancellation changed the token")
	}
	replay := h.mustTurn(m, tokens.RotateRequest{Renew: true, DropUnheld: true, IdempotencyKey: idem})
	if !replay.Replayed || replay.Secret.Reveal() != "" {
		t.Error("the replay of a canceled rotation has a secret")
	}
	last := h.mustTurn(m, tokens.RotateRequest{})
	h.wants(last.Secret, tokens.Allow, "rotated again")
	h.wants(m.Secret, tokens.Allow, "the first secret, in its grace again")
	h.wait(tokens.Day)
	h.wants(m.Secret, tokens.Superseded, "the first secret after its grace")
	_, err = h.cancel(m)
	wantReason(t, err, "ROTATION_NOT_IN_PROGRESS", "after the grace")
}

func TestACancellationBringsBackNothingThatWasTakenAwaySince(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a", "b", "c")
	m := h.mint("u1", "n", "a", "b", "c")
	h.wait(time.Hour)
	h.give("u1", "a", "b")
	h.mustTurn(m, tokens.RotateRequest{Renew: true, DropUnheld: true})
	soon := h.now().Add(tokens.Day)
	_, err := h.UpdateToken(
		ctx,
		admin,
		"u1",
		m.Token.ID.String(),
		tokens.TokenChange{Scopes: &[]string{"b"}, ExpireTime: &soon},
	)
	noError(t, err)
	got, err := h.cancel(m)
	noError(t, err)
	if d := cmp.Diff([]string{"b", "c"}, got.Scopes); d != "" || !got.ExpireTime.Equal(soon) {
		t.Errorf("until %s, want %s; scopes %s", got.ExpireTime, soon, d)
	}
}

func TestASecretInUseIsNotTakenBack(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	for name, use := range map[string]func(*house, tokens.Secret){
		"introspected":       func(h *house, s tokens.Secret) { h.wants(s, tokens.Allow, "use") },
		"exchanged":          func(h *house, s tokens.Secret) { h.exchange(s) },
		"with a lost scope":  func(h *house, s tokens.Secret) { h.ask(s, "nope") },
		"by its bearer":      func(h *house, s tokens.Secret) { h.bearer(s) },
		"not at all":         func(*house, tokens.Secret) {},
		"in a batch":         func(h *house, s tokens.Secret) { h.batch(s) },
		"by an access token": func(h *house, s tokens.Secret) { h.wants(h.exchange(s).Access, tokens.Allow, "use") },
	} {
		h := newHouse(t)
		h.give("u1", "a", "b")
		h.api("api")
		m := h.mintFor("n", "api")
		r := h.mustTurn(m, tokens.RotateRequest{Retire: tokens.OnFirstUse})
		use(h, r.Secret)
		used := !h.stored(m).Rotation.FirstUse.IsZero()
		counts := name != "with a lost scope" && name != "by its bearer" && name != "not at all"
		if used != counts {
			t.Errorf("%s: counted as the first use: %v", name, used)
		}
		if !used {
			h.wants(m.Secret, tokens.Allow, name+": the previous secret")
			_, err := h.cancel(m)
			noError(t, err)
			continue
		}
		h.wants(m.Secret, tokens.Superseded, name+": the previous secret")
		_, err := h.cancel(m)
		wantReason(t, err, "ROTATION_NOT_IN_PROGRESS", name)
		h = newHouse(t)
		h.give("u1", "a", "b")
		h.api("api")
		m = h.mintFor("n", "api")
		r = h.mustTurn(m, tokens.RotateRequest{})
		use(h, r.Secret)
		h.wants(m.Secret, tokens.Allow, name+": the previous secret in its grace")
		_, err = h.cancel(m)
		wantReason(t, err, "SECRET_IN_USE", name)
	}
}

// bearer asks as the bearer of a secret what it is.
func (h *house) bearer(s tokens.Secret) {
	h.t.Helper()
	a, err := h.Authenticate(ctx, s, home)
	if err == nil {
		_, err = h.Self(ctx, a)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) batch(s tokens.Secret) {
	h.t.Helper()
	in, err := h.decideAll(
		gw,
		tokens.IntrospectRequest{},
		tokens.IntrospectRequest{Secret: s},
		tokens.IntrospectRequest{Secret: s},
	)
	if err != nil || in[1] != tokens.Allow || in[2] != tokens.Allow {
		h.t.Fatalf("%v, %v", in, err)
	}
}

// TestTheFirstUseIsNeverServedFromACache holds what a client that answers from its memory rests on: a secret whose
// first use is not recorded has no answer that may be kept.
func TestTheFirstUseIsNeverServedFromACache(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *tokens.Config) { c.CacheFor = time.Minute })
	h.give("u1", "a", "b")
	m := h.mint("u1", "n", "a", "b")
	if in := h.ask(m.Secret); in.CacheFor != time.Minute {
		t.Errorf("an ordinary token may be cached for %s", in.CacheFor)
	}
	r := h.mustTurn(m, tokens.RotateRequest{Retire: tokens.OnFirstUse})
	if in := h.ask(m.Secret); in.CacheFor != time.Minute {
		t.Errorf("the previous secret may be cached for %s", in.CacheFor)
	}
	if in := h.ask(
		r.Secret,
		"a",
		"nope",
	); in.Decision != tokens.InsufficientScope || in.CacheFor != 0 ||
		in.Sequence != 0 {
		t.Errorf("%v may be cached for %s", in.Decision, in.CacheFor)
	}
	if in := h.ask(r.Secret, "a"); in.Decision != tokens.Allow || in.CacheFor != 0 || in.Sequence != 0 {
		t.Errorf("the first use: %v may be cached for %s", in.Decision, in.CacheFor)
	}
	if in := h.ask(r.Secret, "a"); in.Decision != tokens.Allow || in.CacheFor != time.Minute || in.Sequence == 0 {
		t.Errorf("the second use: %v may be cached for %s", in.Decision, in.CacheFor)
	}
	events, _, err := h.Events(ctx, admin, tokens.EventFilter{Action: "token.first_use"}, tokens.Page{})
	if noError(
		t,
		err,
	); len(events) != 1 || events[0].TokenID != m.Token.ID ||
		!strings.Contains(events[0].Detail, "ended") {
		t.Errorf("events %+v", events)
	}
}

// TestItIsKnownWhenASecretStopped holds the one function that says until when a secret works, for every way to end.
func TestItIsKnownWhenASecretStopped(t *testing.T) {
	t.Parallel()
	zero := time.Duration(0)
	for name, c := range map[string]struct {
		r     tokens.RotateRequest
		after func(h *house, m tokens.Minted, r tokens.Rotated)
		which int           // of the secrets, the newest first
		want  time.Duration // after the rotation
	}{
		"without grace":   {r: tokens.RotateRequest{Grace: &zero}, which: 1},
		"after the grace": {r: tokens.RotateRequest{Grace: days(2)}, which: 1, want: 2 * tokens.Day},
		"rotated again": {r: tokens.RotateRequest{Grace: days(2)}, after: func(h *house, m tokens.Minted, _ tokens.Rotated) {
			h.wait(tokens.Day * 3)
			h.mustTurn(m, tokens.RotateRequest{})
		}, which: 2, want: 2 * tokens.Day},
		"forced": {r: tokens.RotateRequest{Grace: days(2)}, after: func(h *house, m tokens.Minted, _ tokens.Rotated) {
			h.wait(tokens.Day)
			h.mustTurn(m, tokens.RotateRequest{Force: true})
		}, which: 2, want: tokens.Day},
		"the first use":   {r: tokens.RotateRequest{Retire: tokens.OnFirstUse}, after: func(h *house, _ tokens.Minted, r tokens.Rotated) { h.wait(time.Hour); h.ask(r.Secret) }, which: 1, want: time.Hour},
		"canceled":        {r: tokens.RotateRequest{}, after: func(h *house, m tokens.Minted, _ tokens.Rotated) { h.wait(time.Hour); _, _ = h.cancel(m) }, which: 1, want: time.Hour},
		"its own end":     {r: tokens.RotateRequest{Lifetime: tokens.Lifetime{TTL: days(1)}, Grace: days(2)}, which: 1, want: tokens.Day},
		"the current one": {r: tokens.RotateRequest{}, which: 0, want: tokens.DefaultTTL},
		"shortened anyway": {r: tokens.RotateRequest{Grace: days(2)}, after: func(h *house, m tokens.Minted, _ tokens.Rotated) {
			at := h.now().Add(time.Hour)
			_, _ = h.UpdateToken(ctx, admin, "u1", m.Token.ID.String(), tokens.TokenChange{ExpireTime: &at})
		}, which: 1, want: time.Hour},
	} {
		h := newHouse(t)
		h.give("u1", "a")
		m := h.mint("u1", "n", "a")
		at := h.now()
		r := h.mustTurn(m, c.r)
		if c.after != nil {
			c.after(h, m, r)
		}
		cred, err := h.store.Lookup(ctx, m.Token.ID)
		noError(t, err)
		if got := cred.AcceptedUntil(&cred.Secrets[c.which]); !got.Equal(at.Add(c.want)) {
			t.Errorf("%s: until %s, want %s", name, got, at.Add(c.want))
		}
	}
}
