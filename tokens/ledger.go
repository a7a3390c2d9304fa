package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// reader is the part of a Store that a Service uses directly. It reaches Store.Update only through its ledger.
type reader interface {
	CredentialReader
	View(ctx context.Context, fn func(ReadTx) error) error
	RecordUse(Usage)
	RecordVisit(ctx context.Context, key SessionKey, v Visit) error
}

// ledger is the only way a Service changes its store. It checks the caller's authority again in the transaction of each
// change, after what may have been a long wait for a feature source or for the writer.
type ledger struct {
	store Store
	now   func() time.Time
}

// do runs a change by a in one transaction, as Store.Update does. now is read when the transaction has begun, so that
// what expired during the wait for it is expired. A caller that lost its authority meanwhile is CodeUnauthenticated, or
// USER_SUSPENDED if its user is suspended; nothing is changed then.
func (l ledger) do(ctx context.Context, a Actor, fn func(tx Tx, now time.Time) ([]Event, error)) error {
	return l.store.Update(ctx, func(tx Tx) ([]Event, error) {
		now := l.now()
		if err := a.stillMay(tx, now); err != nil {
			return nil, err
		}
		return fn(tx, now)
	})
}

// carryOn is do for what was decided before: its caller may have lost its authority since.
func (l ledger) carryOn(ctx context.Context, fn func(tx Tx, now time.Time) ([]Event, error)) error {
	return l.store.Update(ctx, func(tx Tx) ([]Event, error) { return fn(tx, l.now()) })
}

// view reads in one transaction, as Store.View does. now is read when the transaction has begun, as that of a change.
func (s *Service) view(ctx context.Context, fn func(tx ReadTx, now time.Time) error) error {
	return s.store.View(ctx, func(tx ReadTx) error { return fn(tx, s.Now()) })
}

// record writes an event that changes nothing, such as a refusal. It does not check the caller's authority.
func (l ledger) record(ctx context.Context, e Event) error {
	return l.store.Update(ctx, func(Tx) ([]Event, error) { return []Event{e}, nil })
}

// stillMay checks the caller's authority again. Kinds of caller not listed here change nothing.
func (a Actor) stillMay(tx ReadTx, now time.Time) error {
	if a.presented {
		return nil
	}
	switch a.Kind {
	case OperatorActor:
		if !a.person() {
			return nil
		}
		return a.personStands(tx, now)
	case ServiceActor:
		return a.serviceStands(tx, now)
	case UserActor:
		return a.personStands(tx, now)
	case TokenActor:
		return a.tokenStands(tx, now)
	case IssuerActor: // it has no record: its signature was verified, and the configuration names it
		return nil
	default:
		return errCaller
	}
}

var errCaller = unauthenticated("the credential is no longer valid")

// serviceStands refuses a service that is revoked or expired, whose presented secret was rotated away, or whose rights
// are fewer than when it was authenticated.
func (a Actor) serviceStands(tx ReadTx, now time.Time) error {
	v, err := tx.Service(a.Name)
	switch {
	case errors.Is(err, ErrNotFound):
		return errCaller
	case err != nil:
		return fmt.Errorf("read the calling service: %w", err)
	case v.ID != a.TokenID, !v.accepts(a.Serial, now), a.Permissions&^v.Permissions != 0, v.Audience != a.Audience:
		return errCaller
	}
	return nil
}

// personStands refuses a person whose sign-in has ended, or who is suspended as a user.
func (a Actor) personStands(tx ReadTx, now time.Time) error {
	if !a.ExpireTime.IsZero() && !now.Before(a.ExpireTime) {
		return errCaller
	}
	if err := a.sessionStands(tx, now); err != nil {
		return err
	}
	return a.userStands(tx)
}

// sessionStands refuses a user whose session of the page has ended. Other users have none.
func (a Actor) sessionStands(tx ReadTx, now time.Time) error {
	if a.session == nil {
		return nil
	}
	v, err := tx.PageSession(*a.session)
	switch {
	case errors.Is(err, ErrNotFound):
		return errSessionEnded
	case err != nil:
		return fmt.Errorf("read the caller's session: %w", err)
	case !v.live(now):
		return errSessionEnded
	}
	return nil
}

// userStands refuses a signed-in user who is suspended. A user without a record is not.
func (a Actor) userStands(tx ReadTx) error {
	u, err := tx.User(a.User)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("read the calling user: %w", err)
	case u.State != UserActive:
		return errUserSuspended
	}
	return nil
}

// tokenStands refuses the bearer of a personal access token that is not active, or whose presented secret has ended.
func (a Actor) tokenStands(tx ReadTx, now time.Time) error {
	c, err := tx.Credential(a.TokenID)
	if errors.Is(err, ErrNotFound) {
		return errCaller
	}
	if err != nil {
		return fmt.Errorf("read the calling token: %w", err)
	}
	f := c.FactsAt(now)
	f.AudienceOK, f.IPOK, f.ScopesOK = true, true, true
	if _, inForce := c.secretOf(a.Serial, now); inForce {
		f.Match = MatchLive
	}
	if Decide(f) != Allow {
		return errCaller
	}
	return nil
}

var errUserSuspended = Fail(CodePrecondition, "USER_SUSPENDED", "the user is suspended")
