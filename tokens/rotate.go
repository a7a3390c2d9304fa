package tokens

import (
	"context"
	"fmt"
	"time"
)

// Rotate gives an active token a new secret under the same id. The one that was current is accepted for the grace,
// and never past its own expiry; one that was in its grace already stops at once, so that at most two are live.
//
// Reasons: TOKEN_NOT_ACTIVE, USER_SUSPENDED, GRACE_OUT_OF_RANGE, those of a lifetime, and outages.
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
	grace := DefaultGrace
	if r.Grace != nil {
		grace = *r.Grace
	}
	if grace < 0 || grace > MaxGrace {
		return Rotated{}, Invalid("GRACE_OUT_OF_RANGE", "grace", "must be from 0s to "+FormatDuration(MaxGrace))
	}
	now, keys := s.Now(), s.keys.Get()
	var c checker
	if c.lifetime(r.Lifetime); c.err() != nil {
		return Rotated{}, c.err()
	}
	var out Rotated
	err = s.store.Update(ctx, func(tx Tx) ([]Event, error) {
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
			return nil, Fail(CodePrecondition, "USER_SUSPENDED", "the user is suspended")
		}
		until := earliest(now.Add(grace), t.ExpireTime)
		if !r.Lifetime.isZero() {
			policy, err := s.policyFor(tx, t.Audiences)
			if err != nil {
				return nil, err
			}
			if t.ExpireTime, err = policy.Expiry(r.Lifetime, now); err != nil {
				return nil, err
			}
			until = earliest(until, t.ExpireTime)
			if err := s.unblock(tx, &t, now); err != nil {
				return nil, err
			}
		}
		secret, err := Mint(s.prefixes.Load().Personal(), t.ID, s.rand)
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
		e := a.event(now, ActionTokenRotate)
		e.User, e.TokenID, e.Detail = t.User, t.ID, "previous secret until "+until.Format(time.RFC3339)
		return []Event{e}, nil
	})
	return out, err
}

// earliest is the earlier of an instant and a limit; zero is never.
func earliest(at, limit time.Time) time.Time {
	if at.IsZero() || !limit.IsZero() && limit.Before(at) {
		return limit
	}
	return at
}
