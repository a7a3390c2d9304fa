package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Narrowing is the narrowing of the tokens of a plan. They are fixed when it begins, and so is what counts as unused; a
// scope that is used meanwhile is left alone.
type Narrowing struct {
	Work

	Cutoff   time.Time // scopes that were used since are left alone; zero: those that were ever used
	Unscoped bool      // tokens with uses whose service did not say what it required are narrowed too
	Narrowed int64     // so far
	Scopes   int64     // paused so far
}

// NarrowManyRequest asks for the narrowing of all tokens that a filter selects.
type NarrowManyRequest struct {
	Filter Filter
	Unused Unused
	// Unscoped has tokens narrowed too that were used where the service did not say what it required: their scopes may
	// be in use without a record of it.
	Unscoped bool
	// Plan is what PlanNarrowing returned.
	Plan string
}

// NarrowingPlan says what a narrowing would do.
type NarrowingPlan struct {
	Plan
	Scopes int64 // to be paused, in all tokens together
	// Tokens that the filter selects and that are left alone: since their uses are not known for long enough; and since
	// they have uses whose service did not say what it required.
	NotRecorded, HasUnscoped int64
}

// PlanNarrowing counts the active tokens that a filter selects and their unused scopes, and returns a plan with which
// NarrowMany pauses no others. It changes nothing.
//
// Reasons: those of PlanRevocation, and UNUSED_FOR_INVALID.
func (s *Service) PlanNarrowing(ctx context.Context, a Actor, r NarrowManyRequest) (NarrowingPlan, error) {
	f, err := s.narrowFilter(a, r)
	if err != nil {
		return NarrowingPlan{}, s.refused(ctx, a, Refusal{Action: ActionTokenNarrowMatching}, err)
	}
	if err := s.saveUses(ctx, nil); err != nil {
		return NarrowingPlan{}, err
	}
	found, err := s.selected(ctx, f)
	if err != nil {
		return NarrowingPlan{}, err
	}
	out := NarrowingPlan{Plan: Plan{ExpireTime: found.now.Add(planLife)}}
	cutoff := r.Unused.cutoff(found.now)
	for ids := range slices.Chunk(found.ids, planPage) {
		if err := s.countUnused(ctx, ids, cutoff, r.Unscoped, &out); err != nil {
			return NarrowingPlan{}, err
		}
	}
	out.Plan.Plan = s.narrowingPlans(f, r).text(found, out.Count, found.text())
	return out, nil
}

// countUnused adds what a narrowing would do to some tokens.
func (s *Service) countUnused(
	ctx context.Context,
	ids []ID,
	cutoff time.Time,
	unscoped bool,
	out *NarrowingPlan,
) error {
	return s.store.View(ctx, func(tx ReadTx) error {
		err := eachUnused(tx, ids, cutoff, func(t *Token, known ScopeUses, scopes []string) error {
			switch {
			case !known.covers(*t, cutoff):
				out.NotRecorded++
			case !unscoped && !known.Unscoped.before(cutoff):
				out.HasUnscoped++
			default:
				out.Count++
				out.Scopes += int64(len(scopes))
			}
			return nil
		})
		if err != nil {
			return err
		}
		return ctx.Err()
	})
}

// eachUnused calls visit for each of some tokens that has scopes without a use since cutoff, with what is known of
// their uses. Tokens that are gone or were edited outside patd are passed over.
func eachUnused(
	tx ReadTx,
	ids []ID,
	cutoff time.Time,
	visit func(t *Token, known ScopeUses, scopes []string) error,
) error {
	uses, err := tx.ScopeUses(ids)
	if err != nil {
		return fmt.Errorf("read the uses of scopes: %w", err)
	}
	began, err := tx.UsesSince()
	if err != nil {
		return fmt.Errorf("read since when uses are recorded: %w", err)
	}
	for _, id := range ids {
		t, err := tx.Token(id)
		if errors.Is(err, ErrNotFound) || errors.Is(err, ErrRecordInvalid) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read token %s: %w", id, err)
		}
		known := uses[id].withSince(t, began)
		if scopes := known.unusedScopes(t, cutoff); len(scopes) > 0 {
			if err := visit(&t, known, scopes); err != nil {
				return err
			}
		}
	}
	return nil
}

// narrowingPlans makes and reads plans of narrowings, which are authenticated with all that the request says.
func (s *Service) narrowingPlans(f Filter, r NarrowManyRequest) plans {
	return plans{
		keys:  s.keys.Get(),
		query: framed("narrowing plan", f.key(), r.Unused.For.String(), strconv.FormatBool(r.Unscoped)),
	}
}

func (s *Service) narrowFilter(a Actor, r NarrowManyRequest) (Filter, error) {
	f := r.Filter
	if err := s.manager(a); err != nil {
		return f, err
	}
	if f.Empty() {
		return f, Invalid("FILTER_REQUIRED", "filter", "say which tokens; state ACTIVE names all that are active")
	}
	if f.State != StateAny && f.State != StateActive {
		return f, Invalid("FILTER_INVALID", "filter.state", "only active tokens can be narrowed")
	}
	f.State = StateActive
	var c checker
	c.unused(r.Unused)
	f = c.filter("filter.", f)
	return f, c.err()
}

// NarrowMany pauses the unused scopes of the tokens of a plan. From when it has begun, it is carried out even if this
// call, or the server, ends, as BulkRevoke is. Repeating it with the same plan continues the same narrowing. Each token
// has its own event, and the narrowing one with the filter.
//
// Reasons: PLAN_OUTDATED if the filter does not select exactly the tokens of the plan any more, PLAN_INVALID for a plan
// of another request, and those of PlanNarrowing.
func (s *Service) NarrowMany(ctx context.Context, a Actor, r NarrowManyRequest) (Narrowing, error) {
	n, err := s.beginNarrowing(ctx, a, r)
	if err != nil {
		return Narrowing{}, s.refused(ctx, a, Refusal{Action: ActionTokenNarrowMatching}, err)
	}
	err = s.workOn(ctx, n)
	return *n, err
}

func (s *Service) beginNarrowing(ctx context.Context, a Actor, r NarrowManyRequest) (*Narrowing, error) {
	f, err := s.narrowFilter(a, r)
	if err != nil {
		return nil, err
	}
	p, err := s.narrowingPlans(f, r).read(r.Plan)
	if err != nil {
		return nil, err
	}
	if err := s.saveUses(ctx, nil); err != nil {
		return nil, err
	}
	n := &Narrowing{Cutoff: r.Unused.cutoff(p.made), Unscoped: r.Unscoped}
	return n, s.beginPlanned(ctx, a, n, f, p)
}

func (n *Narrowing) another() planned { return new(Narrowing) }

func (n *Narrowing) read(tx ReadTx, key PlanKey) error {
	found, err := tx.Narrowing(key)
	if err == nil {
		*n = found
	}
	return err
}

func (n *Narrowing) readAbandoned(tx ReadTx, before time.Time) error {
	found, err := tx.AbandonedNarrowing(before)
	if err == nil {
		*n = found
	}
	return err
}

func (n *Narrowing) next(tx ReadTx) (BulkPart, error)     { return tx.NextNarrowingPart(n.Key) }
func (n *Narrowing) insert(tx Tx, parts []BulkPart) error { return tx.InsertNarrowing(*n, parts) }
func (n *Narrowing) update(tx Tx, part int) error         { return tx.UpdateNarrowing(*n, part) }

func (n *Narrowing) begun() (Action, string) { return ActionTokenNarrowMatching, "" }

func (n *Narrowing) ended() (Action, string) {
	return ActionTokenNarrowEnd, fmt.Sprintf("%d scopes of %d tokens paused", n.Scopes, n.Narrowed)
}

// change pauses the unused scopes of active tokens, and returns an event for each that has any.
func (n *Narrowing) change(tx Tx, ids []ID, now time.Time) ([]Event, error) {
	var events []Event
	err := eachUnused(tx, ids, n.Cutoff, func(t *Token, known ScopeUses, scopes []string) error {
		if t.Status(now) != StateActive || !known.covers(*t, n.Cutoff) ||
			!n.Unscoped && !known.Unscoped.before(n.Cutoff) {
			return nil
		}
		e, err := pause(tx, t, scopes, now)
		if err != nil {
			return err
		}
		e.Actor, e.PeerIP = n.Actor, n.PeerIP
		events = append(events, e)
		n.Narrowed++
		n.Scopes += int64(len(scopes))
		return nil
	})
	return events, err
}

// NarrowingReader reads narrowings of many tokens.
type NarrowingReader interface {
	// Narrowing reads a narrowing by its plan. ErrNotFound.
	Narrowing(key PlanKey) (Narrowing, error)
	// AbandonedNarrowing reads a narrowing under way whose WorkTime is before a time. ErrNotFound.
	AbandonedNarrowing(before time.Time) (Narrowing, error)
	// NextNarrowingPart reads the part with the lowest number of those that are left. ErrNotFound.
	NextNarrowingPart(key PlanKey) (BulkPart, error)
}

// NarrowingWriter writes narrowings of many tokens. It narrows no token.
type NarrowingWriter interface {
	// InsertNarrowing adds a narrowing with its parts. ErrTaken when the plan has one.
	InsertNarrowing(n Narrowing, parts []BulkPart) error
	// UpdateNarrowing writes Narrowed, Scopes, WorkTime and EndTime, and removes the part with that number.
	// ErrNotFound.
	UpdateNarrowing(n Narrowing, part int) error
}
