package tokens

import (
	"context"
	"fmt"
	"time"
)

// CancelRotation puts a token back as it was before its newest rotation: its secret, expiry, blocks, and the scopes
// that the rotation took away. The new secret ends at once. What an update has taken away since stays away. That is
// possible while the previous secret is accepted and the new one was never used. A second call changes nothing.
//
// Reasons: TOKEN_NOT_ACTIVE, USER_SUSPENDED, ROTATION_NOT_IN_PROGRESS, SECRET_IN_USE, and outages.
func (s *Service) CancelRotation(ctx context.Context, a Actor, user, id string) (Token, error) {
	t, err := s.cancelRotation(ctx, a, user, id)
	if err != nil {
		return Token{}, s.refused(ctx, a, Refusal{Action: ActionTokenCancel, User: user, TokenID: id}, err)
	}
	return t, nil
}

func (s *Service) cancelRotation(ctx context.Context, a Actor, user, id string) (Token, error) {
	user, err := s.owner(a, user)
	if err != nil {
		return Token{}, err
	}
	var t Token
	err = s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		var u User
		if u, t, err = ownedActive(ctx, tx, user, id, now); err != nil {
			return nil, err
		}
		if u.State != UserActive {
			return nil, errUserSuspended
		}
		r := t.Rotation
		if r != nil && r.Change == ExpiryRestored {
			return nil, nil // it was canceled before
		}
		if err := r.mayBeCanceled(now); err != nil {
			return nil, err
		}
		r.undo(&t, now)
		if err := tx.UpdateToken(t); err != nil {
			return nil, fmt.Errorf("write token %s: %w", t.ID, err)
		}
		if err := tx.RestoreSecret(t.ID, now); err != nil {
			return nil, fmt.Errorf("restore the secret of token %s: %w", t.ID, err)
		}
		if err := tx.ForgetSealed(t.ID); err != nil {
			return nil, fmt.Errorf("forget the requests of token %s: %w", t.ID, err)
		}
		if t, err = tx.Token(t.ID); err != nil {
			return nil, fmt.Errorf("read token %s: %w", id, err)
		}
		t.AsOf = now
		e := a.event(now, ActionTokenCancel)
		e.User, e.TokenID = t.User, t.ID
		return []Event{e}, nil
	})
	return t, err
}

// Cancelable reports whether CancelRotation can put the token back as it was before its newest rotation.
func (t Token) Cancelable(now time.Time) bool {
	return t.Status(now) == StateActive && t.Rotation != nil && t.Rotation.Change != ExpiryRestored &&
		t.Rotation.mayBeCanceled(now) == nil
}

// mayBeCanceled refuses the cancellation of a rotation that is over, or whose new secret is in use.
func (r *Rotation) mayBeCanceled(now time.Time) error {
	switch {
	case !r.inProgress(now):
		return Fail(
			CodePrecondition,
			"ROTATION_NOT_IN_PROGRESS",
			"the token has no secret before the present one that works",
		)
	case r.Time.IsZero():
		return Fail(
			CodePrecondition,
			"ROTATION_NOT_IN_PROGRESS",
			"an earlier version of patd rotated the token, and did not store what was before",
		)
	case !r.FirstUse.IsZero():
		return Fail(
			CodePrecondition,
			"SECRET_IN_USE",
			"the new secret has been in use since "+r.FirstUse.Format(time.RFC3339)+"; rotate again to replace it",
		)
	}
	return nil
}
