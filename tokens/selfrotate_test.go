package tokens_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"patd/tokens"
)

// rotateSelf presents a secret to rotate its token.
func (h *house) rotateSelf(s tokens.Secret, r tokens.RotateSelfRequest) (tokens.Rotated, error) {
	return h.rotateSelfFrom(home, s, r)
}

func (h *house) rotateSelfFrom(peer tokens.Peer, s tokens.Secret, r tokens.RotateSelfRequest) (tokens.Rotated, error) {
	a, err := h.Authenticate(ctx, s, peer)
	if err != nil {
		return tokens.Rotated{}, err
	}
	return h.RotateSelf(ctx, a, r)
}

// selfTurning mints a token for u1, who holds a and b, that lives for 30 days and may rotate itself.
func (h *house) selfTurning(name string, with ...func(*tokens.MintRequest)) tokens.Minted {
	h.t.Helper()
	r := tokens.MintRequest{
		User:       "u1",
		Name:       name,
		Scopes:     []string{"a", "b"},
		Lifetime:   tokens.Lifetime{TTL: days(30)},
		SelfRotate: true,
	}
	for _, f := range with {
		f(&r)
	}
	m, err := h.Mint(ctx, admin, r)
	if err != nil {
		h.t.Fatal(err)
	}
	return m
}

// renewable lets a token renew itself for a while.
func (h *house) renewable(d time.Duration) func(*tokens.MintRequest) {
	return func(r *tokens.MintRequest) { r.RenewableUntil = h.now().Add(d) }
}

func TestATokenRotatesItself(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a", "b")
	m := h.selfTurning("n")
	h.wait(tokens.Day)
	minute := time.Minute
	r, err := h.rotateSelf(m.Secret, tokens.RotateSelfRequest{Grace: &minute})
	noError(t, err)
	if r.Token.ID != m.Token.ID || !r.Token.ExpireTime.Equal(m.Token.ExpireTime) || r.Change != tokens.ExpiryKept ||
		fmt.Sprint(r.Token.Scopes) != "[a b]" || !r.PreviousUntil.Equal(h.now().Add(minute)) {
		t.Errorf("rotated to %+v", r)
	}
	h.wants(r.Secret, tokens.Allow, "the new secret")
	h.wants(m.Secret, tokens.Allow, "the presented secret in its grace")
	h.wait(minute)
	h.wants(r.Secret, tokens.Allow, "the new secret")
	h.wants(m.Secret, tokens.Superseded, "the presented secret after its grace")
	events, _, err := h.Events(ctx, admin, tokens.EventFilter{Action: "token.rotate"}, tokens.Page{})
	noError(t, err)
	if len(events) != 1 || events[0].Actor != "token:"+m.Token.ID.String() || events[0].User != "u1" ||
		events[0].TokenID != m.Token.ID ||
		events[0].PeerIP != home.IP ||
		events[0].Outcome != tokens.OutcomeSuccess {
		t.Errorf("events %+v", events)
	}
}

func TestATokenRenewsItselfWithinWhatItsOwnerSet(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a", "b")
	m := h.selfTurning("n", h.renewable(70*tokens.Day))
	end, s := h.now().Add(70*tokens.Day), m.Secret
	for _, c := range []struct {
		at, want time.Time
		change   tokens.ExpiryChange
	}{
		{noon.Add(25 * tokens.Day), noon.Add(55 * tokens.Day), tokens.ExpiryRenewed},
		{noon.Add(50 * tokens.Day), end, tokens.ExpiryRenewed},
		{noon.Add(60 * tokens.Day), end, tokens.ExpiryKept},
	} {
		h.wait(c.at.Sub(h.now()))
		r, err := h.rotateSelf(s, tokens.RotateSelfRequest{Renew: true})
		noError(t, err)
		if !r.Token.ExpireTime.Equal(c.want) || r.Change != c.change {
			t.Errorf("at %s: renewed (%d) until %s, want (%d) %s", c.at, r.Change, r.Token.ExpireTime, c.change, c.want)
		}
		s = r.Secret
	}
	// What was cut is not lost: with more time, the token gets the whole lifetime again.
	more := h.now().Add(200 * tokens.Day)
	_, err := h.UpdateToken(ctx, admin, "u1", m.Token.ID.String(), tokens.TokenChange{RenewableUntil: &more})
	noError(t, err)
	h.wait(2 * tokens.Day)
	r, err := h.rotateSelf(s, tokens.RotateSelfRequest{Renew: true})
	noError(t, err)
	if want := h.now().Add(30 * tokens.Day); !r.Token.ExpireTime.Equal(want) {
		t.Errorf("renewed until %s, want %s", r.Token.ExpireTime, want)
	}
}

// TestWhatATokenMayNotDoToItself is the table of refusals.
func TestWhatATokenMayNotDoToItself(t *testing.T) {
	t.Parallel()
	second, month := time.Second, 31*tokens.Day
	elsewhere := tokens.Peer{IP: netip.MustParseAddr("203.0.113.9")}
	off := false
	plain := func(r *tokens.MintRequest) { r.SelfRotate = false }
	update := func(c tokens.TokenChange) func(*house, tokens.Minted) {
		return func(h *house, m tokens.Minted) {
			_, err := h.UpdateToken(ctx, admin, "u1", m.Token.ID.String(), c)
			noError(t, err)
		}
	}
	for name, c := range map[string]struct {
		with  func(*tokens.MintRequest)
		first func(*house, tokens.Minted)
		peer  *tokens.Peer
		r     tokens.RotateSelfRequest
		want  string
	}{
		"not allowed":             {with: plain, want: "SELF_ROTATE_NOT_ALLOWED"},
		"no longer allowed":       {first: update(tokens.TokenChange{SelfRotate: &off}), want: "SELF_ROTATE_NOT_ALLOWED"},
		"no renewal":              {r: tokens.RotateSelfRequest{Renew: true}, want: "RENEWAL_NOT_ALLOWED"},
		"without grace":           {r: tokens.RotateSelfRequest{Grace: new(time.Duration)}, want: "GRACE_OUT_OF_RANGE"},
		"too short a grace":       {r: tokens.RotateSelfRequest{Grace: &second}, want: "GRACE_OUT_OF_RANGE"},
		"too long a grace":        {r: tokens.RotateSelfRequest{Grace: &month}, want: "GRACE_OUT_OF_RANGE"},
		"a bad key":               {r: tokens.RotateSelfRequest{IdempotencyKey: "short"}, want: "IDEMPOTENCY_KEY_INVALID"},
		"another network":         {with: func(r *tokens.MintRequest) { r.CIDRs = []string{"10.0.0.0/8"} }, peer: &elsewhere, want: "IP_NOT_ALLOWED"},
		"a suspended user":        {first: func(h *house, _ tokens.Minted) { _, _ = h.SuspendUser(ctx, admin, "u1", "") }, want: "USER_SUSPENDED"},
		"a deleted user":          {first: func(h *house, _ tokens.Minted) { _, _ = h.DeleteUser(ctx, admin, "u1", "") }, want: "TOKEN_REVOKED"},
		"revoked":                 {first: func(h *house, m tokens.Minted) { _, _ = h.Revoke(ctx, admin, "u1", m.Token.ID.String(), "") }, want: "TOKEN_REVOKED"},
		"expired":                 {first: func(h *house, _ tokens.Minted) { h.wait(31 * tokens.Day) }, want: "TOKEN_EXPIRED"},
		"blocked":                 {first: func(h *house, m tokens.Minted) { h.block(m) }, want: "POLICY_BLOCKED"},
		"in the owner's rotation": {first: func(h *house, m tokens.Minted) { h.mustTurn(m, tokens.RotateRequest{}) }, want: "ROTATION_IN_PROGRESS"},
		"after a rotation": {first: func(h *house, m tokens.Minted) {
			h.mustTurn(m, tokens.RotateRequest{Grace: new(time.Duration)})
		}, want: "TOKEN_SUPERSEDED"},
		"a renewal without the feature": {with: func(r *tokens.MintRequest) { r.RenewableUntil = noon.Add(90 * tokens.Day) }, first: func(h *house, _ tokens.Minted) {
			h.wait(tokens.Day)
			h.give("u1", "a")
		}, r: tokens.RotateSelfRequest{Renew: true}, want: "SCOPE_NOT_HELD"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.give("u1", "a", "b")
			h.api("api")
			m := h.selfTurning("n", func(r *tokens.MintRequest) {
				if r.Audiences = []string{"api"}; c.with != nil {
					c.with(r)
				}
			})
			if c.first != nil {
				c.first(h, m)
			}
			before := h.row(m)
			peer := home
			if c.peer != nil {
				peer = *c.peer
			}
			out, err := h.rotateSelfFrom(peer, m.Secret, c.r)
			wantReason(t, err, c.want, name)
			if !out.Secret.IsEmpty() || h.row(m).ETag() != before.ETag() {
				t.Error("the token was changed")
			}
		})
	}
}

// strict limits how long tokens of the audience live that are minted or renewed from now on.
func (h *house) strict(limit time.Duration) {
	h.t.Helper()
	if _, err := h.ReplaceAudience(
		ctx,
		admin,
		tokens.AudienceEntry{ID: "api", DefaultTTL: limit, MaxTTL: limit},
	); err != nil {
		h.t.Fatal(err)
	}
}

// block has the operator block the tokens of an audience that live for longer than a day.
func (h *house) block(m tokens.Minted) {
	h.t.Helper()
	h.strict(tokens.Day)
	if _, _, err := h.BlockTokens(ctx, admin, "api", ""); err != nil || h.stored(m).BlockedBy == "" {
		h.t.Fatalf("blocked: %v", err)
	}
}

// row is a token as it is stored, also one whose user is deleted.
func (h *house) row(m tokens.Minted) (t tokens.Token) {
	h.t.Helper()
	err := h.store.View(ctx, func(tx tokens.ReadTx) (err error) {
		t, err = tx.Token(m.Token.ID)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return t
}

// TestATokenDoesNotRenewItselfWherePatdKnowsNoFeatures: they are in its user's credential only.
func TestATokenDoesNotRenewItselfWherePatdKnowsNoFeatures(t *testing.T) {
	t.Parallel()
	src := &fixed{held: tokens.Held{Features: []string{"a", "b"}}}
	h := newHouse(t, func(c *tokens.Config) { c.Features = src })
	m := h.selfTurning("n", h.renewable(300*tokens.Day))
	h.wait(tokens.Day)
	src.held = tokens.Held{AsGranted: true}
	_, err := h.rotateSelf(m.Secret, tokens.RotateSelfRequest{Renew: true})
	wantReason(t, err, "RENEWAL_NOT_ALLOWED", "a renewal")
	if r, err := h.rotateSelf(m.Secret, tokens.RotateSelfRequest{}); err != nil || len(r.Token.Scopes) != 2 {
		t.Errorf("without a renewal: %v", err)
	}
}

func TestARenewalOfItselfKeepsToThePolicy(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a", "b")
	h.api("api")
	m := h.selfTurning("n", h.renewable(300*tokens.Day), func(r *tokens.MintRequest) { r.Audiences = []string{"api"} })
	h.strict(10 * tokens.Day)
	h.wait(25 * tokens.Day)
	_, err := h.rotateSelf(m.Secret, tokens.RotateSelfRequest{Renew: true})
	wantReason(t, err, "TTL_ABOVE_MAXIMUM", "a renewal over the policy")
	if _, err := h.rotateSelf(m.Secret, tokens.RotateSelfRequest{}); err != nil {
		t.Errorf("without a renewal: %v", err)
	}
}

// TestALostAnswerOfASelfRotationIsNotLost repeats it with the secret that is being rotated away, which is all that the
// program has.
func TestALostAnswerOfASelfRotationIsNotLost(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a", "b")
	m := h.selfTurning("n", h.renewable(300*tokens.Day))
	h.wait(tokens.Day)
	minute := tokens.MinSelfGrace
	r := tokens.RotateSelfRequest{
		Grace:          &minute,
		Renew:          true,
		Retire:         tokens.OnFirstUse,
		IdempotencyKey: "a key that nobody guesses",
	}
	first, err := h.rotateSelf(m.Secret, r)
	noError(t, err)
	h.wait(minute - time.Microsecond)
	for range 2 {
		again, err := h.rotateSelf(m.Secret, r)
		noError(t, err)
		if !again.Replayed || again.Secret.Reveal() != first.Secret.Reveal() ||
			!again.Token.ExpireTime.Equal(first.Token.ExpireTime) ||
			!again.PreviousUntil.Equal(first.PreviousUntil) ||
			again.Change != first.Change ||
			again.Retire != first.Retire {
			t.Errorf("repeated: %+v, first %+v", again, first)
		}
	}
	other := r
	other.Renew = false
	_, err = h.rotateSelf(m.Secret, other)
	wantReason(t, err, "IDEMPOTENCY_KEY_REUSED", "another request with the key")
	if again, err := h.rotateSelf(first.Secret, r); err != nil || again.Secret.Reveal() != first.Secret.Reveal() {
		t.Errorf("repeated with the new secret: %v", err)
	}
	events, _, err := h.Events(ctx, admin, tokens.EventFilter{Action: "token.rotate"}, tokens.Page{})
	noError(t, err)
	if done := slices.DeleteFunc(
		events,
		func(e tokens.Event) bool { return e.Outcome != tokens.OutcomeSuccess },
	); len(
		done,
	) != 1 {
		t.Errorf("%d rotations", len(done))
	}
	h.wants(first.Secret, tokens.Allow, "the new secret")
	_, err = h.rotateSelf(m.Secret, r)
	wantReason(t, err, "TOKEN_SUPERSEDED", "repeated after the first use of the new secret")
}

// TestOneOfTwoSelfRotationsIsMade, whichever comes first, and both programs end up with a secret that works.
func TestOneOfTwoSelfRotationsIsMade(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a", "b")
	m := h.selfTurning("n")
	var (
		wait sync.WaitGroup
		out  [4]tokens.Rotated
		errs [4]error
	)
	for i := range out {
		wait.Go(func() {
			key := "key of an instance " + fmt.Sprint(i%2) // 0 and 2 are one program that repeats its call
			out[i], errs[i] = h.rotateSelf(m.Secret, tokens.RotateSelfRequest{IdempotencyKey: key})
		})
	}
	wait.Wait()
	secrets := map[string]bool{}
	for i := range out {
		switch {
		case errs[i] == nil:
			secrets[out[i].Secret.Reveal()] = true
			h.wants(out[i].Secret, tokens.Allow, "a new secret")
		case reason(errs[i]) != "ROTATION_IN_PROGRESS":
			t.Errorf("call %d: %v", i, errs[i])
		}
	}
	if len(secrets) != 1 || (errs[0] == nil) != (errs[2] == nil) || (errs[1] == nil) != (errs[3] == nil) {
		t.Errorf("%d new secrets; errors %v", len(secrets), errs)
	}
	h.wants(m.Secret, tokens.Allow, "the presented secret in its grace")
}

// TestOnlyItsOwnerLetsATokenRotateItself holds who switches that on, and that whatever takes lifetime away also bounds
// the renewals.
func TestOnlyItsOwnerLetsATokenRotateItself(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a", "b")
	m := h.selfTurning("n", func(r *tokens.MintRequest) { r.SelfRotate = false })
	id := m.Token.ID.String()
	on, off, never, until := true, false, time.Time{}, h.now().Add(90*tokens.Day)
	person := tokens.Actor{Kind: tokens.OperatorActor, User: "op", Permissions: tokens.PermTokens}
	update := func(a tokens.Actor, c tokens.TokenChange) (tokens.Token, error) {
		return h.UpdateToken(ctx, a, "u1", id, c)
	}
	bearer, err := h.Authenticate(ctx, m.Secret, home)
	noError(t, err)
	_, err = update(bearer, tokens.TokenChange{SelfRotate: &on})
	wantReason(t, err, "PERMISSION_DENIED", "the token itself")
	_, err = update(person, tokens.TokenChange{SelfRotate: &on})
	wantReason(t, err, "PERMISSION_DENIED", "an operator")
	_, err = update(admin, tokens.TokenChange{RenewableUntil: &until})
	wantReason(t, err, "RENEWABLE_UNTIL_INVALID", "renewals alone")
	past := h.now()
	_, err = update(admin, tokens.TokenChange{SelfRotate: &on, RenewableUntil: &past})
	wantReason(t, err, "RENEWABLE_UNTIL_INVALID", "renewals that are over")
	_, err = h.Mint(ctx, admin, tokens.MintRequest{User: "u1", Name: "x", Scopes: []string{"a"}, RenewableUntil: until})
	wantReason(t, err, "RENEWABLE_UNTIL_INVALID", "minted for renewals alone")
	if h.stored(m).SelfRotate {
		t.Fatal("the token rotates itself")
	}
	owner := tokens.Actor{Kind: tokens.UserActor, User: "u1"}
	tag := h.stored(m).ETag()
	got, err := update(owner, tokens.TokenChange{SelfRotate: &on, RenewableUntil: &until})
	if noError(t, err); !got.SelfRotate || !got.RenewableUntil.Equal(until) || got.ETag() == tag {
		t.Errorf("switched on: %+v", got)
	}
	later := until.Add(tokens.Day)
	_, err = update(person, tokens.TokenChange{RenewableUntil: &later})
	wantReason(t, err, "PERMISSION_DENIED", "an operator lengthens it")
	end := h.now().Add(5 * tokens.Day)
	got, err = update(person, tokens.TokenChange{ExpireTime: &end})
	if noError(t, err); !got.RenewableUntil.Equal(end) {
		t.Errorf("the token ends at %s and may renew itself until %s", end, got.RenewableUntil)
	}
	got, err = update(owner, tokens.TokenChange{RenewableUntil: &never})
	if noError(t, err); !got.SelfRotate || !got.RenewableUntil.IsZero() {
		t.Errorf("no renewals: %+v", got)
	}
	_, err = update(owner, tokens.TokenChange{RenewableUntil: &until})
	noError(t, err)
	got, err = update(person, tokens.TokenChange{SelfRotate: &off})
	if noError(t, err); got.SelfRotate || !got.RenewableUntil.IsZero() {
		t.Errorf("switched off: %+v", got)
	}
	var did []string
	events, _, err := h.Events(ctx, admin, tokens.EventFilter{Action: "token.update"}, tokens.Page{})
	noError(t, err)
	for _, e := range slices.Backward(events) {
		if e.Outcome == tokens.OutcomeSuccess {
			did = append(did, e.Detail)
		}
	}
	want := "self_rotate on, renewable_until; expire_time " + got.ExpireTime.Format(
		time.RFC3339Nano,
	) + ", renewable_until earlier; renewable_until earlier; renewable_until; self_rotate off, renewable_until earlier"
	if strings.Join(did, "; ") != want {
		t.Errorf("events %q", did)
	}
}

// TestTheOperatorCanForbidSelfRotation: nobody mints such a token, none is made one, and those that are do not rotate.
func TestTheOperatorCanForbidSelfRotation(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a", "b")
	m, plain := h.selfTurning(
		"n",
		h.renewable(90*tokens.Day),
	), h.selfTurning(
		"m",
		func(r *tokens.MintRequest) { r.SelfRotate = false },
	)
	_ = h.store.Close()
	h.open(func(c *tokens.Config) { c.ForbidSelfRotate = true })
	_, err := h.rotateSelf(m.Secret, tokens.RotateSelfRequest{})
	wantReason(t, err, "SELF_ROTATE_DISABLED", "a token rotates itself")
	_, err = h.Mint(ctx, admin, tokens.MintRequest{User: "u1", Name: "x", Scopes: []string{"a"}, SelfRotate: true})
	wantReason(t, err, "SELF_ROTATE_DISABLED", "minted")
	on, off, later := true, false, h.now().Add(91*tokens.Day)
	_, err = h.UpdateToken(ctx, admin, "u1", plain.Token.ID.String(), tokens.TokenChange{SelfRotate: &on})
	wantReason(t, err, "SELF_ROTATE_DISABLED", "switched on")
	_, err = h.UpdateToken(ctx, admin, "u1", m.Token.ID.String(), tokens.TokenChange{RenewableUntil: &later})
	wantReason(t, err, "SELF_ROTATE_DISABLED", "more renewals")
	if got, err := h.UpdateToken(
		ctx,
		admin,
		"u1",
		m.Token.ID.String(),
		tokens.TokenChange{SelfRotate: &off},
	); err != nil ||
		got.SelfRotate {
		t.Errorf("switched off: %v", err)
	}
}
