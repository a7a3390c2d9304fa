package tokens

import (
	"context"
	"fmt"
	"time"
)

// MinSelfGrace is the least grace of a token that rotates itself. If its new secret gets lost on the way, the presented
// one is all that it has to ask again with.
const MinSelfGrace = time.Minute

// Changes of a token that take something away, as events name them.
const (
	changedSelfOff     = "self_rotate off"
	changedRenewalLess = "renewable_until earlier"
)

// RotateSelfRequest asks for a new secret for the presented token.
type RotateSelfRequest struct {
	Grace  *time.Duration // at least MinSelfGrace; nil: 24 h
	Retire RetirePrevious // zero: AfterGrace
	// Renew gives the token the lifetime that it had, again from now, but not past its RenewableUntil. It never makes
	// the expiry earlier.
	Renew bool
	// IdempotencyKey, 16 to 255 characters, makes the request safe to repeat; empty: it is not.
	IdempotencyKey string
}

// RotateSelf is Rotate by the bearer of the token. The token must be minted for that, with SelfRotate, and the caller
// present its current secret from an allowed address. A secret in its grace rotates nothing; it only repeats the
// request that it made. A rotation that is not over is never forced.
//
// Reasons: SELF_ROTATE_DISABLED, SELF_ROTATE_NOT_ALLOWED, RENEWAL_NOT_ALLOWED, IP_NOT_ALLOWED, POLICY_BLOCKED, and
// those of Rotate.
func (s *Service) RotateSelf(ctx context.Context, a Actor, r RotateSelfRequest) (Rotated, error) {
	if a.Kind != TokenActor {
		return Rotated{}, denied("only the bearer of a personal access token can do this")
	}
	out, err := s.rotateSelf(ctx, a, r)
	if err != nil {
		return Rotated{}, s.refused(
			ctx,
			a,
			Refusal{Action: ActionTokenRotate, User: a.User, TokenID: a.TokenID.String()},
			err,
		)
	}
	return out, nil
}

func (s *Service) rotateSelf(ctx context.Context, a Actor, r RotateSelfRequest) (Rotated, error) {
	if !s.selfRotate {
		return Rotated{}, errSelfRotateDisabled
	}
	if r.Grace != nil && (*r.Grace < MinSelfGrace || *r.Grace > MaxGrace) {
		return Rotated{}, Invalid(
			"GRACE_OUT_OF_RANGE",
			"grace",
			"must be from "+FormatDuration(MinSelfGrace)+" to "+FormatDuration(MaxGrace)+
				": the presented secret is needed to repeat a call whose answer was lost",
		)
	}
	rotate := RotateRequest{
		User: a.User, TokenID: a.TokenID.String(), Grace: r.Grace, Retire: r.Retire, Renew: r.Renew,
		IdempotencyKey: r.IdempotencyKey, self: true,
	}
	return s.rotateOf(ctx, a, rotate, func(tx ReadTx, now time.Time) (User, Token, error) {
		c, err := tx.Credential(a.TokenID)
		if err != nil {
			return User{}, Token{}, fmt.Errorf("read token %s: %w", a.TokenID, err)
		}
		p := presentedBy(c, a.Serial, now)
		if d := p.decidedFrom(a.Peer); d != Allow {
			return User{}, Token{}, s.ended(&p, d).public(CodeUnauthenticated)
		}
		t, err := tx.Token(a.TokenID)
		if err != nil {
			return User{}, Token{}, fmt.Errorf("read token %s: %w", a.TokenID, err)
		}
		switch {
		case !t.SelfRotate:
			return User{}, Token{}, Fail(CodeDenied, "SELF_ROTATE_NOT_ALLOWED",
				"this token may not rotate itself; its owner rotates it, or allows that by self_rotate")
		case r.Renew && t.RenewableUntil.IsZero():
			return User{}, Token{}, Fail(CodePrecondition, "RENEWAL_NOT_ALLOWED",
				"this token may not renew itself; its owner renews it, or sets renewable_until")
		}
		return c.User, t, nil
	}, "self")
}

var errSelfRotateDisabled = Fail(
	CodePrecondition,
	"SELF_ROTATE_DISABLED",
	"the operator does not allow that tokens rotate themselves",
)

// maySelfRotate refuses a draft that could rotate itself where that is forbidden, or could renew itself only.
func (s *Service) maySelfRotate(t Token) error {
	switch {
	case t.SelfRotate && !s.selfRotate:
		return errSelfRotateDisabled
	case !t.SelfRotate && !t.RenewableUntil.IsZero():
		return errRenewsItself
	}
	return nil
}

var errRenewsItself = Invalid(
	"RENEWABLE_UNTIL_INVALID",
	"renewable_until",
	"only a token with self_rotate can renew itself",
)

// renewableAfter refuses a RenewableUntil that is over at now.
func (t Token) renewableAfter(now time.Time) error {
	if !t.RenewableUntil.IsZero() && !t.RenewableUntil.After(now) {
		return Invalid("RENEWABLE_UNTIL_INVALID", "renewable_until", "must be in the future")
	}
	return nil
}

// mayLetRotate refuses an update that lets a token do more by itself, if the caller or this server may not allow that.
func (s *Service) mayLetRotate(a Actor, before, after Token) error {
	more := after.SelfRotate && !before.SelfRotate || after.RenewableUntil.After(before.RenewableUntil)
	switch {
	case !more:
		return nil
	case a.person():
		return errActsAsUser
	case !s.selfRotate:
		return errSelfRotateDisabled
	}
	return nil
}

// applySelf makes the changes to what a token may do by itself, and returns which those are. A token whose expiry was
// made earlier does not renew itself past it.
func (c change) applySelf(t *Token, shortened bool, now time.Time) (changed []string, err error) {
	before := *t
	if c.SelfRotate != nil {
		t.SelfRotate = *c.SelfRotate
	}
	switch {
	case c.RenewableUntil != nil:
		t.RenewableUntil = *c.RenewableUntil
	case !t.SelfRotate:
		t.RenewableUntil = time.Time{}
	case shortened && !t.RenewableUntil.IsZero():
		t.RenewableUntil = earliest(t.RenewableUntil, t.ExpireTime)
	}
	if t.RenewableUntil != before.RenewableUntil {
		err = t.renewableAfter(now)
	}
	if !t.SelfRotate && !t.RenewableUntil.IsZero() {
		err = errRenewsItself
	}
	switch {
	case t.SelfRotate == before.SelfRotate:
	case t.SelfRotate:
		changed = append(changed, "self_rotate on")
	default:
		changed = append(changed, changedSelfOff)
	}
	switch was, is := before.RenewableUntil, t.RenewableUntil; {
	case is.After(was):
		changed = append(changed, "renewable_until")
	case is.Before(was):
		changed = append(changed, changedRenewalLess)
	}
	return changed, err
}
