package tokens

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// BulkRevocation is the revocation of the tokens of a plan. They are fixed when it begins.
type BulkRevocation struct {
	Work

	Reason  string
	Revoked int64 // so far; without those that another call has revoked meanwhile
}

// BulkRequest asks for the revocation of all tokens that a filter selects.
type BulkRequest struct {
	Filter Filter
	Reason string
	// Plan is what PlanRevocation returned.
	Plan string
}

// PlanRevocation counts the tokens that a filter selects and that are not revoked, and returns a plan with which
// BulkRevoke ends exactly these. It changes nothing.
//
// Reasons: FILTER_REQUIRED for an empty filter, FILTER_INVALID, TOO_MANY_TOKENS past MaxPlanned.
func (s *Service) PlanRevocation(ctx context.Context, a Actor, f Filter) (Plan, error) {
	f, err := s.bulkFilter(a, f)
	if err != nil {
		return Plan{}, s.refused(ctx, a, Refusal{Action: ActionTokenRevokeMatching}, err)
	}
	found, err := s.selected(ctx, f)
	if err != nil {
		return Plan{}, err
	}
	return Plan{
		Count: int64(len(found.ids)), ExpireTime: found.now.Add(planLife),
		Plan: s.revocationPlans(f).text(found, int64(len(found.ids)), found.digest()),
	}, nil
}

// revocationPlans makes and reads plans: they are authenticated together with their filter, as page tokens are.
func (s *Service) revocationPlans(f Filter) plans {
	return plans{keys: s.keys.Get(), query: framed("revocation plan", f.key())}
}

func (s *Service) bulkFilter(a Actor, f Filter) (Filter, error) {
	if err := s.manager(a); err != nil {
		return f, err
	}
	if f.Empty() {
		return f, Invalid(
			"FILTER_REQUIRED",
			"filter",
			"say which tokens: an empty filter would end all of them; state ACTIVE names all that are active",
		)
	}
	if f.State == StateRevoked {
		return f, Invalid("FILTER_INVALID", "filter.state", "revoked tokens cannot be revoked again")
	}
	var c checker
	f = c.filter("filter.", f)
	f.Unrevoked = true
	return f, c.err()
}

// BulkRevoke ends the tokens of a plan for good. From when it has begun, it is carried out even if this call, or the
// server, ends: then by any server on the store. The call returns after some seconds at the latest, and says how far it
// is. Repeating it with the same plan continues the same revocation. Each token has its own event, and the revocation
// one with the filter.
//
// Reasons: PLAN_OUTDATED if the filter does not select exactly the tokens of the plan any more, PLAN_INVALID for a plan
// of another filter, and those of PlanRevocation.
func (s *Service) BulkRevoke(ctx context.Context, a Actor, r BulkRequest) (BulkRevocation, error) {
	b, err := s.beginBulk(ctx, a, r)
	if err != nil {
		return BulkRevocation{}, s.refused(ctx, a, Refusal{Action: ActionTokenRevokeMatching}, err)
	}
	err = s.workOn(ctx, b)
	return *b, err
}

func (s *Service) beginBulk(ctx context.Context, a Actor, r BulkRequest) (*BulkRevocation, error) {
	f, err := s.bulkFilter(a, r.Filter)
	if err != nil {
		return nil, err
	}
	var c checker
	if c.reason(r.Reason); c.err() != nil {
		return nil, c.err()
	}
	p, err := s.revocationPlans(f).read(r.Plan)
	if err != nil {
		return nil, err
	}
	p.selected = strconv.FormatInt(p.count, 10) + "." + p.selected // all that are selected are revoked
	b := &BulkRevocation{Reason: r.Reason}
	return b, s.beginPlanned(ctx, a, b, f, p)
}

func (b *BulkRevocation) another() planned { return new(BulkRevocation) }

func (b *BulkRevocation) read(tx ReadTx, key PlanKey) error {
	found, err := tx.BulkRevocation(key)
	if err == nil {
		*b = found
	}
	return err
}

func (b *BulkRevocation) readAbandoned(tx ReadTx, before time.Time) error {
	found, err := tx.AbandonedBulkRevocation(before)
	if err == nil {
		*b = found
	}
	return err
}

func (b *BulkRevocation) next(tx ReadTx) (BulkPart, error) { return tx.NextBulkPart(b.Key) }
func (b *BulkRevocation) insert(tx Tx, parts []BulkPart) error {
	return tx.InsertBulkRevocation(*b, parts)
}
func (b *BulkRevocation) update(tx Tx, part int) error { return tx.UpdateBulkRevocation(*b, part) }

func (b *BulkRevocation) begun() (Action, string) { return ActionTokenRevokeMatching, b.Reason }

func (b *BulkRevocation) ended() (Action, string) {
	return ActionTokenRevokeEnd, fmt.Sprintf("%d of %d tokens revoked", b.Revoked, b.Count)
}

// change revokes those of the tokens that are not revoked, and returns an event for each.
func (b *BulkRevocation) change(tx Tx, ids []ID, now time.Time) ([]Event, error) {
	var events []Event
	for _, id := range ids {
		t, err := tx.Token(id)
		if toEnd(err) != nil {
			return nil, fmt.Errorf("read token %s: %w", id, err)
		}
		if t.Revocation != nil {
			continue
		}
		t.Revocation = &Revocation{Time: now, By: b.Actor, Reason: b.Reason}
		if err := tx.UpdateToken(t); err != nil {
			return nil, fmt.Errorf("revoke token %s: %w", id, err)
		}
		if err := tx.ForgetSealed(id); err != nil {
			return nil, fmt.Errorf("forget the requests of token %s: %w", id, err)
		}
		e := b.event(now, ActionTokenRevoke)
		e.User, e.TokenID, e.Detail = t.User, id, b.Reason
		events = append(events, e)
	}
	b.Revoked += int64(len(events))
	return events, nil
}

// BulkReader reads revocations of many tokens.
type BulkReader interface {
	// BulkRevocation reads a revocation by its plan. ErrNotFound.
	BulkRevocation(key PlanKey) (BulkRevocation, error)
	// AbandonedBulkRevocation reads a revocation under way whose WorkTime is before a time. ErrNotFound.
	AbandonedBulkRevocation(before time.Time) (BulkRevocation, error)
	// NextBulkPart reads the part with the lowest number of those that are left. ErrNotFound.
	NextBulkPart(key PlanKey) (BulkPart, error)
}

// BulkWriter writes revocations of many tokens. It revokes no token.
type BulkWriter interface {
	// InsertBulkRevocation adds a revocation with its parts. ErrTaken when the plan has one.
	InsertBulkRevocation(b BulkRevocation, parts []BulkPart) error
	// UpdateBulkRevocation writes Revoked, WorkTime and EndTime, and removes the part with that number. ErrNotFound.
	UpdateBulkRevocation(b BulkRevocation, part int) error
}
