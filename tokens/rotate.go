package tokens

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"patd/tokens/secret"
)

// Rotate gives an active token a new secret under the same id. The current secret is accepted for the grace, and never
// past its own expiry. A secret already in its grace stops at once, so that at most two are live.
//
// A later expiry is a grant: it passes the checks of minting, so the user must hold all scopes of the token. A repeated
// idempotent request gets the first result; the secret is left out once the token was rotated again or revoked.
//
// Reasons: TOKEN_NOT_ACTIVE, USER_SUSPENDED, GRACE_OUT_OF_RANGE, SCOPE_NOT_HELD, IDEMPOTENCY_KEY_REUSED, those of a
// lifetime, and outages.
func (s *Service) Rotate(ctx context.Context, a Actor, r RotateRequest) (Rotated, error) {
	out, err := s.rotate(ctx, a, r)
	if err != nil {
		return Rotated{}, s.refused(ctx, a, Refusal{Action: ActionTokenRotate, User: r.User, TokenID: r.TokenID}, err)
	}
	return out, nil
}

func (s *Service) rotate(ctx context.Context, a Actor, r RotateRequest) (Rotated, error) {
	user, err := s.owner(a, r.User)
	if err != nil {
		return Rotated{}, err
	}
	grace := defaultGrace
	if r.Grace != nil {
		grace = *r.Grace
	}
	if grace < 0 || grace > MaxGrace {
		return Rotated{}, Invalid("GRACE_OUT_OF_RANGE", "grace", "must be from 0s to "+FormatDuration(MaxGrace))
	}
	keys := s.keys.Get()
	var c checker
	c.idempotencyKey(r.IdempotencyKey)
	if c.lifetime(r.Lifetime); c.err() != nil {
		return Rotated{}, c.err()
	}
	seal, err := sealerFor(keys, a, r.IdempotencyKey, []any{"rotate", user, r.TokenID, grace, r.Lifetime})
	if err != nil {
		return Rotated{}, err
	}
	var out Rotated
	// A caller who rotates a lost secret must not wait for a feature source: it is asked only for a later expiry.
	before, err := s.askAhead(ctx, a, func(tx ReadTx) (_ User, done bool, err error) {
		if r.Lifetime.isZero() {
			return User{}, true, nil
		}
		if out, err = replayRotation(tx, seal, s.Now()); err != nil || out.Replayed {
			return User{}, true, err
		}
		u, t, err := owned(tx, user, r.TokenID)
		if err != nil {
			return User{}, false, err
		}
		_, extends, err := s.extended(tx, t, r.Lifetime, s.Now())
		return u, !extends, err
	})
	if err != nil || out.Replayed {
		return out, err
	}
	err = s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		if out, err = replayRotation(tx, seal, now); err != nil || out.Replayed {
			return nil, err
		}
		u, t, err := owned(tx, user, r.TokenID)
		if err != nil {
			return nil, err
		}
		if err := expectTag(ctx, t); err != nil {
			return nil, err
		}
		if err := mustBeActive(t, now); err != nil {
			return nil, err
		}
		if u.State != UserActive {
			return nil, errUserSuspended
		}
		until := earliest(now.Add(grace), t.ExpireTime)
		if !r.Lifetime.isZero() {
			at, extends, err := s.extended(tx, t, r.Lifetime, now)
			if err != nil {
				return nil, err
			}
			if extends {
				if err := s.holdsAll(ctx, u, t, before); err != nil {
					return nil, err
				}
			}
			t.ExpireTime = at
			until = earliest(until, t.ExpireTime)
			if err := s.unblock(tx, &t, now); err != nil {
				return nil, err
			}
		}
		secret, err := secret.Mint(s.prefixes.Load().Current(), t.ID, s.rand)
		if err != nil {
			return nil, err
		}
		if err := tx.UpdateToken(t); err != nil {
			return nil, fmt.Errorf("write token %s: %w", t.ID, err)
		}
		accepted := until
		if !accepted.After(now) {
			accepted = time.UnixMicro(0) // never again, even if the clock is set back
		}
		if err := tx.ReplaceSecret(t.ID, keys.Digest(secret), accepted); err != nil {
			return nil, fmt.Errorf("replace the secret of token %s: %w", t.ID, err)
		}
		if err := tx.ForgetSealed(t.ID); err != nil {
			return nil, fmt.Errorf("forget the requests of token %s: %w", t.ID, err)
		}
		t.Rotations++
		out = Rotated{Token: t, Secret: secret, PreviousUntil: until}
		if err := seal.keep(tx, t.ID, out.seal(), now, s.rand); err != nil {
			return nil, err
		}
		e := a.event(now, ActionTokenRotate)
		e.User, e.TokenID, e.Detail = t.User, t.ID, "previous secret until "+until.Format(time.RFC3339)
		return []Event{e}, nil
	})
	return out, err
}

// extended returns when a token would expire under a new lifetime, and whether that is later than now.
func (s *Service) extended(tx ReadTx, t Token, l Lifetime, now time.Time) (at time.Time, extends bool, err error) {
	policy, err := s.policyFor(tx, t.Audiences)
	if err != nil {
		return time.Time{}, false, err
	}
	at, err = policy.Expiry(l, now)
	return at, later(at, t.ExpireTime), err
}

// holdsAll returns an error if the user does not hold all scopes of a token that is to live longer.
func (s *Service) holdsAll(ctx context.Context, u User, t Token, before answered) error {
	if !s.features.Local() && !before.asked {
		return Fail(CodeUnavailable, "TOKEN_CHANGED", "the token was changed while the call was under way; try again")
	}
	held, err := s.heldNow(ctx, u, before)
	if err != nil {
		return err
	}
	return scopesHeld(t.Scopes, held)
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
