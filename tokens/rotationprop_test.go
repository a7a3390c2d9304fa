package tokens_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"patd/internal/longtest"
	"patd/tokens"
)

// turnstile is a model of one token's rotations: what each caller was told, and what was done since.
type turnstile struct {
	*house
	m       tokens.Minted
	secrets []*told // all that were ever made, the oldest first
	current *told
	before  *told // the one before current; nil: there is none that matters
	expires time.Time
	used    bool // current, while before was accepted
	retire  tokens.RetirePrevious
	life    time.Duration // the lifetime that the token was given last
	undo    func()        // puts the model back as it was before the rotation; nil: there is none to cancel
	keyed   *keyedCall
	keys    int
	// renewable is until when the token may renew itself.
	renewable time.Time
}

// told is a secret and until when its callers were told that it works, as a part of the token's life.
type told struct {
	secret tokens.Secret
	until  time.Time // zero: as long as the token
}

// keyedCall is a rotation that can be repeated.
type keyedCall struct {
	again   func() (tokens.Rotated, error)
	answer  tokens.Rotated
	by      *told // the secret that the token presented to rotate itself; nil: its owner rotated it
	current bool  // no other rotation or cancellation came after it
}

// rememberedSecrets is how many secrets of a token that were rotated away are remembered.
const rememberedSecrets = 32

func (s *turnstile) works(one *told) bool {
	return one != nil && s.now().Before(s.expires) && (one.until.IsZero() || s.now().Before(one.until))
}

// inProgress reports whether the secret before the current one was promised to work now.
func (s *turnstile) inProgress() bool { return s.works(s.before) }

func (s *turnstile) rotateOne(t *rapid.T) {
	grace := rapid.SampledFrom([]time.Duration{0, time.Minute, time.Hour, tokens.Day}).Draw(t, "grace")
	r := tokens.RotateRequest{
		Grace: &grace, Renew: rapid.Bool().Draw(t, "renew"), Force: rapid.IntRange(0, 3).Draw(t, "force") == 0,
		Retire: rapid.SampledFrom([]tokens.RetirePrevious{0, tokens.AfterGrace, tokens.OnFirstUse}).Draw(t, "retire"),
	}
	if !r.Renew && rapid.IntRange(0, 3).Draw(t, "ttl") == 0 {
		ttl := rapid.SampledFrom([]time.Duration{time.Hour, 2 * tokens.Day, 30 * tokens.Day}).Draw(t, "ttl")
		r.Lifetime.TTL = &ttl
	}
	if rapid.Bool().Draw(t, "keyed") {
		s.keys++
		r.IdempotencyKey = fmt.Sprintf("key of rotation %04d", s.keys)
	}
	busy, alive := s.inProgress(), s.now().Before(s.expires)
	got, err := s.turn(s.m, r)
	switch {
	case !alive:
		wantReason(t, err, "TOKEN_NOT_ACTIVE", "rotate an expired token")
		return
	case busy && !r.Force:
		wantReason(t, err, "ROTATION_IN_PROGRESS", "rotate while a secret is in its grace")
		return
	case err != nil:
		t.Fatal(err)
	}
	at, life := s.expires, s.life
	switch {
	case r.Renew:
		at, life = s.now().Add(s.life), s.life
	case r.Lifetime.TTL != nil:
		at, life = s.now().Add(*r.Lifetime.TTL), *r.Lifetime.TTL
	}
	s.rotated(t, got, grace, at, life)
	if r.IdempotencyKey != "" {
		s.keyed = &keyedCall{
			again:   func() (tokens.Rotated, error) { return s.turn(s.m, r) },
			answer:  got,
			current: true,
		}
	}
}

// rotateItself presents any secret that ever was, to rotate the token.
func (s *turnstile) rotateItself(t *rapid.T) {
	grace := rapid.SampledFrom([]time.Duration{time.Minute, time.Hour, tokens.Day}).Draw(t, "grace")
	r := tokens.RotateSelfRequest{
		Grace: &grace, Renew: rapid.Bool().Draw(t, "renew"),
		Retire: rapid.SampledFrom([]tokens.RetirePrevious{0, tokens.AfterGrace, tokens.OnFirstUse}).Draw(t, "retire"),
	}
	if rapid.Bool().Draw(t, "keyed") {
		s.keys++
		r.IdempotencyKey = fmt.Sprintf("key of rotation %04d", s.keys)
	}
	one := s.current
	if rapid.IntRange(0, 3).Draw(t, "any secret") == 0 {
		one = rapid.SampledFrom(s.secrets).Draw(t, "secret")
	}
	busy := s.inProgress()
	got, err := s.rotateSelf(one.secret, r)
	switch {
	case !s.now().Before(s.expires):
		wantReason(t, err, "TOKEN_EXPIRED", "a token that has expired rotates itself")
		return
	case !s.works(one):
		wantReason(t, err, "TOKEN_SUPERSEDED", "a secret that has ended rotates the token")
		return
	case busy:
		wantReason(t, err, "ROTATION_IN_PROGRESS", "a token rotates itself while a secret is in its grace")
		return
	case one != s.current:
		t.Fatal("a secret that is neither current nor in its grace works")
	case err != nil:
		t.Fatal(err)
	}
	at := s.expires
	if r.Renew {
		if at = s.now().Add(s.life); s.renewable.Before(at) {
			at = s.renewable
		}
		if at.Before(s.expires) {
			at = s.expires
		}
	}
	s.rotated(t, got, grace, at, s.life)
	if r.IdempotencyKey != "" {
		s.keyed = &keyedCall{
			again:   func() (tokens.Rotated, error) { return s.rotateSelf(one.secret, r) },
			answer:  got,
			by:      one,
			current: true,
		}
	}
}

// rotated notes a rotation, after which the token is to expire at an instant.
func (s *turnstile) rotated(t *rapid.T, got tokens.Rotated, grace time.Duration, at time.Time, life time.Duration) {
	if !got.Token.ExpireTime.Equal(at) {
		t.Fatalf("expires %s, want %s", got.Token.ExpireTime, at)
	}
	until := s.now().Add(grace)
	for _, limit := range []time.Time{s.expires, at} {
		if limit.Before(until) {
			until = limit
		}
	}
	if !got.PreviousUntil.Equal(until) {
		t.Fatalf("told %s, want %s", got.PreviousUntil, until)
	}
	s.end(s.before) // a forced rotation ends it
	was := *s
	s.undo = func() { s.current, s.expires, s.life, s.before = was.current, was.expires, was.life, nil }
	s.current.until = until
	s.before, s.current = s.current, &told{secret: got.Secret}
	s.secrets = append(s.secrets, s.current)
	s.expires, s.life, s.used, s.retire = at, life, false, got.Retire
	if s.keyed != nil {
		s.keyed.current = false
	}
}

// end notes that a secret works no more.
func (s *turnstile) end(one *told) {
	if s.works(one) {
		one.until = s.now()
	}
}

func (s *turnstile) repeatOne(t *rapid.T) {
	if s.keyed == nil || s.now().Sub(s.keyed.answer.Token.Rotation.Time) >= tokens.IdempotencyWindow {
		t.Skip("no rotation to repeat")
	}
	got, err := s.keyed.again()
	if one := s.keyed.by; one != nil && !s.works(one) {
		if reason(err) != "TOKEN_SUPERSEDED" && reason(err) != "TOKEN_EXPIRED" {
			t.Fatalf("a secret that has ended repeats its rotation: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatalf("repeat: %v", err)
	}
	want := s.keyed.answer
	if !got.Replayed || s.keyed.current != (got.Secret.Reveal() == want.Secret.Reveal()) ||
		!s.keyed.current && got.Secret.Reveal() != "" {
		t.Fatalf("repeated: replayed %v; still the newest rotation %v", got.Replayed, s.keyed.current)
	}
	if s.keyed.current &&
		(got.Change != want.Change || got.Retire != want.Retire || !got.PreviousUntil.Equal(want.PreviousUntil)) {
		t.Fatalf("the answer changed from %+v to %+v", want, got)
	}
}

func (s *turnstile) useOne(t *rapid.T) {
	one := rapid.SampledFrom(s.secrets).Draw(t, "secret")
	scope := rapid.SampledFrom([]string{"a", "nope"}).Draw(t, "scope")
	works, in := s.works(one), s.ask(one.secret, scope)
	if in.Decision.Active() != works {
		t.Fatalf(
			"a secret is %v; it was promised until %s, the token expires %s, now %s",
			in.Decision,
			one.until,
			s.expires,
			s.now(),
		)
	}
	if in.Decision == tokens.Allow && one == s.current && s.inProgress() && !s.used {
		if s.used = true; s.retire == tokens.OnFirstUse {
			s.end(s.before)
		}
	}
}

func (s *turnstile) cancelOne(t *rapid.T) {
	possible := s.undo != nil && s.inProgress() && !s.used
	_, err := s.cancel(s.m)
	switch {
	case !s.now().Before(s.expires):
		wantReason(t, err, "TOKEN_NOT_ACTIVE", "cancel the rotation of an expired token")
	case possible && err != nil:
		t.Fatal(err)
	case possible:
		s.end(s.current)
		s.undo()
		s.current.until, s.undo, s.used = time.Time{}, nil, false
		if s.keyed != nil {
			s.keyed.current = false
		}
	case s.inProgress() && s.used:
		wantReason(t, err, "SECRET_IN_USE", "cancel a rotation whose secret is in use")
	case err != nil:
		wantReason(t, err, "ROTATION_NOT_IN_PROGRESS", "cancel")
	}
}

func (s *turnstile) shortenOne(t *rapid.T) {
	at := s.now().Add(rapid.SampledFrom([]time.Duration{time.Minute, time.Hour, 10 * tokens.Day}).Draw(t, "expire"))
	_, err := s.UpdateToken(ctx, admin, "u1", s.m.Token.ID.String(), tokens.TokenChange{ExpireTime: &at})
	if err != nil || !at.Before(s.expires) {
		return
	}
	s.life -= s.expires.Sub(at)
	s.expires = at
	if at.Before(s.renewable) {
		s.renewable = at
	}
	if before := s.undo; before != nil { // what an update takes away stays away
		s.undo = func() {
			if before(); at.Before(s.expires) {
				s.life -= s.expires.Sub(at)
				s.expires = at
			}
		}
	}
}

// check holds each secret against what its caller was told.
func (s *turnstile) check(t *rapid.T) {
	live := 0
	for i, one := range s.secrets {
		// Required scopes that are not held: an answer that is active, and no use.
		in := s.ask(one.secret, "nope")
		if in.Decision.Active() != s.works(one) {
			t.Fatalf(
				"secret %d of %d is %v; it was promised until %s, the token expires %s, now %s",
				i,
				len(s.secrets),
				in.Decision,
				one.until,
				s.expires,
				s.now(),
			)
		}
		if in.Decision.Active() {
			live++
		}
	}
	if live > 2 {
		t.Fatalf("%d secrets are live", live)
	}
	stored := s.stored(s.m)
	if !stored.RenewableUntil.Equal(s.renewable) {
		t.Fatalf("the token renews itself until %s, want %s", stored.RenewableUntil, s.renewable)
	}
	if !stored.ExpireTime.Equal(s.expires) {
		t.Fatalf("the token expires %s, want %s", stored.ExpireTime, s.expires)
	}
	if shown := stored.InProgress(s.now()) != nil; shown != s.inProgress() {
		t.Fatalf("a rotation is shown %v; one is in progress %v", shown, s.inProgress())
	}
	cred, err := s.store.Lookup(ctx, s.m.Token.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range s.secrets {
		at := slices.IndexFunc(cred.Secrets, func(st tokens.StoredSecret) bool {
			ok, err := s.ring.Get().Match(one.secret, st.Hash)
			return err == nil && ok
		})
		if at < 0 && len(cred.Secrets) > rememberedSecrets {
			continue // it is too long ago
		}
		if at < 0 {
			t.Fatalf("a secret that stopped at %s is not known", one.until)
		}
		until := cred.AcceptedUntil(&cred.Secrets[at])
		if !one.until.IsZero() && !until.Equal(one.until) && !until.Equal(s.expires) {
			t.Fatalf("a secret stopped at %s; known is %s", one.until, until)
		}
	}
}

// TestRotationKeepsWhatItSaid drives random rotations, repetitions, uses, cancellations and updates of one token, and
// holds every secret against what the callers were told: at most two are live, and none ends before its time unless a
// caller asked for that, by force, by a cancellation, or by a first use.
func TestRotationKeepsWhatItSaid(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := &turnstile{house: newHouseIn(t, tempDir(t)), life: 30 * tokens.Day}
		s.give("u1", "a")
		var err error
		s.renewable = s.now().Add(40 * tokens.Day)
		s.m, err = s.Mint(ctx, admin, tokens.MintRequest{
			User:           "u1",
			Name:           "n",
			Scopes:         []string{"a"},
			Lifetime:       tokens.Lifetime{TTL: &s.life},
			SelfRotate:     true,
			RenewableUntil: s.renewable,
		})
		if err != nil {
			t.Fatal(err)
		}
		s.current, s.expires = &told{secret: s.m.Secret}, s.m.Token.ExpireTime
		s.secrets = []*told{s.current}
		t.Repeat(map[string]func(*rapid.T){
			"": s.check, "rotate": s.rotateOne, "rotate more": s.rotateOne, "repeat": s.repeatOne, "use": s.useOne,
			"cancel": s.cancelOne, "shorten": s.shortenOne, "rotate itself": s.rotateItself,
			"wait": func(t *rapid.T) {
				s.wait(
					rapid.SampledFrom([]time.Duration{time.Microsecond, time.Minute, time.Hour, tokens.Day}).
						Draw(t, "d"),
				)
			},
		})
	})
}
