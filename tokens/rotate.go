package tokens

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"patd/tokens/secret"
)

// RotateRequest asks for a new secret.
type RotateRequest struct {
	User, TokenID string
	Grace         *time.Duration // nil: 24 h
	Lifetime      Lifetime       // zero: the expiry stays
	// Renew gives the token the lifetime that it had, again from now. A token that never expires stays as it is.
	Renew bool
	// DropUnheld takes the scopes from the token that the user does not hold now.
	DropUnheld bool
	Retire     RetirePrevious // zero: AfterGrace
	// Force rotates a token whose previous secret is still accepted, which ends that one at once.
	Force bool
	// IdempotencyKey, 16 to 255 characters, makes the request safe to repeat; empty: it is not.
	IdempotencyKey string

	self bool // the token itself asks: it renews itself until its RenewableUntil
}

// Rotated is a token with its new secret.
type Rotated struct {
	Token Token
	// Secret is empty only in a replay whose token has been revoked or rotated since.
	Secret        Secret
	PreviousUntil time.Time // until when the previous secret is accepted; zero where Secret is empty
	// Change, Retire and Dropped say what the rotation did; zero where Secret is empty.
	Change   ExpiryChange
	Retire   RetirePrevious
	Dropped  []string
	Replayed bool
}

// Rotate gives an active token a new secret under the same id. The current secret is accepted for the grace, and never
// past its own expiry. While a secret is in its grace there is no other rotation, unless it is forced, so that at most
// two are live and none ends before its time.
//
// A later expiry is a grant: it passes the checks of minting, so the user must hold all scopes of the token. A repeated
// idempotent request gets the first result; the secret is left out once the token was rotated again or revoked.
//
// Reasons: TOKEN_NOT_ACTIVE, USER_SUSPENDED, ROTATION_IN_PROGRESS, GRACE_OUT_OF_RANGE, SCOPE_NOT_HELD,
// IDEMPOTENCY_KEY_REUSED, those of a lifetime, and outages.
func (s *Service) Rotate(ctx context.Context, a Actor, r RotateRequest) (Rotated, error) {
	out, err := s.rotate(ctx, a, r)
	if err != nil {
		return Rotated{}, s.refused(ctx, a, Refusal{Action: ActionTokenRotate, User: r.User, TokenID: r.TokenID}, err)
	}
	return out, nil
}

func (s *Service) rotate(ctx context.Context, a Actor, r RotateRequest) (Rotated, error) {
	if a.person() {
		return Rotated{}, errActsAsUser
	}
	user, err := s.owner(a, r.User)
	if err != nil {
		return Rotated{}, err
	}
	return s.rotateOf(
		ctx,
		a,
		r,
		func(tx ReadTx, _ time.Time) (User, Token, error) { return owned(tx, user, r.TokenID) },
		user,
	)
}

// checked fills in the defaults of a request, or returns what is wrong with it.
func (r RotateRequest) checked() (RotateRequest, time.Duration, error) {
	grace := defaultGrace
	if r.Grace != nil {
		grace = *r.Grace
	}
	if grace < 0 || grace > MaxGrace {
		return r, 0, Invalid("GRACE_OUT_OF_RANGE", "grace", "must be from 0s to "+FormatDuration(MaxGrace))
	}
	if r.Retire == 0 {
		r.Retire = AfterGrace
	}
	var c checker
	c.idempotencyKey(r.IdempotencyKey)
	if c.lifetime(r.Lifetime); r.Renew && !r.Lifetime.isZero() {
		c.add("renew", "LIFETIME_AMBIGUOUS", "give at most one of renew, expire_time, ttl and never_expires")
	}
	return r, grace, c.err()
}

// rotateOf rotates the token that read returns. about is what else the fingerprint of the request covers.
func (s *Service) rotateOf(
	ctx context.Context,
	a Actor,
	r RotateRequest,
	read func(ReadTx, time.Time) (User, Token, error),
	about string,
) (Rotated, error) {
	r, grace, err := r.checked()
	if err != nil {
		return Rotated{}, err
	}
	keys := s.keys.Get()
	seal, err := sealerFor(keys, a, r.IdempotencyKey, r.fingerprint(about, grace))
	if err != nil {
		return Rotated{}, err
	}
	var out Rotated
	// A caller who rotates a lost secret must not wait for a feature source: it is asked only for a later expiry, and
	// in order to drop scopes.
	before, err := s.askAhead(ctx, a, func(tx ReadTx, now time.Time) (_ User, done bool, err error) {
		if r.Lifetime.isZero() && !r.Renew && !r.DropUnheld {
			return User{}, true, nil
		}
		if out, err = replayRotation(tx, seal, now); err != nil || out.Replayed {
			return User{}, true, err
		}
		u, t, err := read(tx, now)
		if err != nil {
			return User{}, false, err
		}
		if err := r.mayBegin(u, t, now); err != nil {
			return User{}, false, err
		}
		life, err := s.extended(tx, t, r, now)
		return u, !life.extends && !r.DropUnheld, err
	})
	if err != nil || out.Replayed {
		return out, err
	}
	err = s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		if out, err = replayRotation(tx, seal, now); err != nil || out.Replayed {
			return nil, err
		}
		u, t, err := read(tx, now)
		if err != nil {
			return nil, err
		}
		if err := expectTag(ctx, t); err != nil {
			return nil, err
		}
		if err := r.mayBegin(u, t, now); err != nil {
			return nil, err
		}
		rot := Rotation{Time: now, PreviousUntil: earliest(now.Add(grace), t.ExpireTime), Retire: r.Retire}
		if err := s.alter(ctx, tx, u, &t, r, &rot, before); err != nil {
			return nil, err
		}
		if out, err = s.replace(tx, keys, t, rot); err != nil {
			return nil, err
		}
		if err := seal.keep(tx, t.ID, out.seal(), now, s.rand); err != nil {
			return nil, err
		}
		e := a.event(now, ActionTokenRotate)
		e.User, e.TokenID, e.Detail = t.User, t.ID, rot.detail()
		return []Event{e}, nil
	})
	return out, err
}

// fingerprint returns what a repeated request must have in common with the first one. What earlier versions did not
// know is left out where it is not asked for, so that their requests can be repeated.
func (r RotateRequest) fingerprint(user string, grace time.Duration) []any {
	parts := []any{"rotate", user, r.TokenID, grace, r.Lifetime}
	if r.Renew || r.DropUnheld || r.Force || r.Retire != AfterGrace {
		parts = append(parts, r.Renew, r.DropUnheld, r.Force, r.Retire)
	}
	return parts
}

// mayBegin refuses a rotation of a token that is not active, or is being rotated.
func (r RotateRequest) mayBegin(u User, t Token, now time.Time) error {
	if err := mustBeActive(t, now); err != nil {
		return err
	}
	if u.State != UserActive {
		return errUserSuspended
	}
	if t.Rotation.inProgress(now) && !r.Force {
		until := t.Rotation.PreviousUntil.Format(time.RFC3339Nano)
		do := ": wait for that, cancel that rotation, or say force: true"
		if r.self {
			do = ": wait for that; only the owner can cancel or force a rotation"
		}
		e := Fail(
			CodePrecondition,
			"ROTATION_IN_PROGRESS",
			"the secret before the present one works until "+until+", and would end now"+do,
		)
		e.Metadata = map[string]string{"previous_secret_expire_time": until}
		return e
	}
	return nil
}

// alter makes the changes to the token that come with a rotation, and notes in rot what was before.
func (s *Service) alter(
	ctx context.Context,
	tx ReadTx,
	u User,
	t *Token,
	r RotateRequest,
	rot *Rotation,
	before answered,
) error {
	life, err := s.extended(tx, *t, r, rot.Time)
	if err != nil {
		return err
	}
	rot.Before = BeforeRotation{
		ExpireTime:    t.ExpireTime,
		RenewTime:     t.RenewTime,
		BlockedBy:     t.BlockedBy,
		SetExpireTime: life.at,
	}
	rot.Change = life.change
	if life.extends || r.DropUnheld {
		held, err := s.heldFor(ctx, u, before)
		if err != nil {
			return err
		}
		if effective, gone := Effective(t.Scopes, held); r.DropUnheld && len(effective) > 0 {
			t.Scopes, rot.Dropped = effective, gone
		}
		if err := scopesHeld(t.Scopes, held); err != nil {
			return err
		}
	}
	if life.change == ExpiryKept {
		return nil
	}
	t.ExpireTime, t.RenewTime, t.EndSetTime = life.at, life.from, rot.Time
	rot.PreviousUntil = earliest(rot.PreviousUntil, t.ExpireTime)
	return s.unblock(tx, t, rot.Time)
}

// replace writes a token with a new secret, and returns both.
func (s *Service) replace(tx Tx, keys *Keys, t Token, rot Rotation) (Rotated, error) {
	text, err := secret.Mint(s.prefixes.Load().Current(), t.ID, s.rand)
	if err != nil {
		return Rotated{}, err
	}
	if err := tx.UpdateToken(t); err != nil {
		return Rotated{}, fmt.Errorf("write token %s: %w", t.ID, err)
	}
	if err := tx.ReplaceSecret(t.ID, keys.Digest(text), rot); err != nil {
		return Rotated{}, fmt.Errorf("replace the secret of token %s: %w", t.ID, err)
	}
	if err := tx.ForgetSealed(t.ID); err != nil {
		return Rotated{}, fmt.Errorf("forget the requests of token %s: %w", t.ID, err)
	}
	t.Rotations++
	t.Rotation, t.AsOf = &rot, rot.Time
	return Rotated{
		Token:         t,
		Secret:        text,
		PreviousUntil: rot.PreviousUntil,
		Change:        rot.Change,
		Retire:        rot.Retire,
		Dropped:       rot.Dropped,
	}, nil
}

// detail describes a rotation for the audit log.
func (r Rotation) detail() string {
	text := "previous secret until " + r.PreviousUntil.Format(time.RFC3339)
	if r.Retire == OnFirstUse {
		text += " or the first use of the new one"
	}
	switch r.Change {
	case ExpiryRenewed:
		text += ", renewed"
	case ExpirySet:
		text += ", expire_time"
	}
	if len(r.Dropped) > 0 {
		text += ", scopes -" + strings.Join(r.Dropped, " -")
	}
	return text
}

// newLife is what a rotation makes of the expiry.
type newLife struct {
	at      time.Time // zero: never
	change  ExpiryChange
	extends bool // at is later than before
	// from is the RenewTime of the token, which at and the lifetime that it had give.
	from time.Time
}

// extended returns when a token would expire after a rotation at now.
func (s *Service) extended(tx ReadTx, t Token, r RotateRequest, now time.Time) (newLife, error) {
	l, life := r.Lifetime, newLife{at: t.ExpireTime, change: ExpirySet, from: now}
	if r.Renew {
		ttl := t.lifetime()
		l, life.change = Lifetime{TTL: &ttl}, ExpiryRenewed
		if end := t.RenewableUntil; r.self && end.Before(now.Add(ttl)) {
			l, life.from = Lifetime{ExpireTime: &end}, end.Add(-ttl)
			if !later(end, t.ExpireTime) {
				l = Lifetime{} // nothing is left to give
			}
		}
	}
	if l.isZero() || r.Renew && t.ExpireTime.IsZero() {
		life.change = ExpiryKept
		return life, nil
	}
	policy, err := s.policyFor(tx, t.Audiences)
	if err != nil {
		return newLife{}, err
	}
	if life.at, err = policy.Expiry(l, now); err != nil {
		return newLife{}, renamed(err, r.Renew)
	}
	life.extends = later(life.at, t.ExpireTime)
	return life, nil
}

// renamed renames the field in an error about a renewal to the field of the request.
func renamed(err error, renew bool) error {
	var e *Error
	if !renew || !errors.As(err, &e) || len(e.Violations) != 1 {
		return err
	}
	return Invalid(e.Violations[0].Reason, "renew", e.Violations[0].Description)
}

// heldFor returns the features that a user holds, for a rotation that rests on them.
func (s *Service) heldFor(ctx context.Context, u User, before answered) ([]string, error) {
	if !s.features.Local() && !before.asked {
		return nil, Fail(
			CodeUnavailable,
			"TOKEN_CHANGED",
			"the token was changed while the call was under way; try again",
		)
	}
	return s.heldNow(ctx, u, before)
}

// seal encodes the stored part of a rotation: the secret, and until when the previous one is accepted.
func (r Rotated) seal() Secret {
	return secret.NewSecret(r.Secret.Reveal() + " " + strconv.FormatInt(r.PreviousUntil.UnixMicro(), 10))
}

// replayRotation returns the stored result of an idempotent request. A zero Rotated means that there is none. If the
// token was rotated again or revoked, the result holds only the token.
func replayRotation(tx ReadTx, seal *sealer, now time.Time) (Rotated, error) {
	r, found, err := seal.find(tx, now)
	if err != nil || !found {
		return Rotated{}, err
	}
	t, err := tx.Token(r.TokenID)
	if err != nil {
		return Rotated{}, fmt.Errorf("read token %s of a request: %w", r.TokenID, err)
	}
	t.AsOf = now
	out := Rotated{Token: t, Replayed: true}
	if r.Sealed == nil || t.Revocation != nil {
		return out, nil
	}
	kept, err := seal.open(r)
	if err != nil {
		return Rotated{}, err
	}
	if out.Secret, out.PreviousUntil, err = unsealRotation(kept); err != nil {
		return Rotated{}, fmt.Errorf("read the kept answer of a rotation of token %s: %w", t.ID, err)
	}
	// A secret that is still kept is of the newest rotation: whatever replaces it makes patd forget it.
	if rot := t.Rotation; rot != nil {
		out.Change, out.Retire, out.Dropped = rot.Change, rot.Retire, rot.Dropped
	}
	return out, nil
}

// unsealRotation reads what Rotated.seal wrote.
func unsealRotation(kept Secret) (Secret, time.Time, error) {
	s, until, _ := strings.Cut(kept.Reveal(), " ")
	us, err := strconv.ParseInt(until, 10, 64)
	if err != nil {
		return Secret{}, time.Time{}, err
	}
	return secret.NewSecret(s), time.UnixMicro(us).UTC(), nil
}

// later reports whether a token that expires at an instant outlives one that expires at another; zero is never.
func later(at, than time.Time) bool {
	return !than.IsZero() && (at.IsZero() || at.After(than))
}

// earliest returns the earlier of an instant and a limit; zero is never.
func earliest(at, limit time.Time) time.Time {
	if at.IsZero() || !limit.IsZero() && limit.Before(at) {
		return limit
	}
	return at
}
