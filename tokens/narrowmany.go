package tokens

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Narrowing is the narrowing of the tokens of a plan. They are fixed when it begins, and so is what counts as unused; a
// scope that is used meanwhile is left alone.
type Narrowing struct {
	Key       PlanKey
	Actor     string // who began it
	PeerIP    netip.Addr
	Cutoff    time.Time // scopes that were used since are left alone; zero: those that were ever used
	Unscoped  bool      // tokens with uses whose service did not say what it required are narrowed too
	Count     int64     // tokens of the plan
	Narrowed  int64     // so far
	Scopes    int64     // paused so far
	BeginTime time.Time
	WorkTime  time.Time // of the last progress
	EndTime   time.Time // zero: under way
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
	if err := s.saveUses(ctx); err != nil {
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
	out.Plan.Plan = s.narrowPlanner(f, r).next(strings.Join([]string{
		strconv.FormatInt(found.now.UnixMicro(), 10), strconv.FormatInt(out.Count, 10), strconv.Itoa(len(found.ids)), digestOf(found.ids),
	}, "."))
	return out, nil
}

// countUnused adds what a narrowing would do to some tokens.
func (s *Service) countUnused(ctx context.Context, ids []ID, cutoff time.Time, unscoped bool, out *NarrowingPlan) error {
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

// eachUnused calls visit for each of some tokens that has scopes without a use since cutoff, with what is known of their
// uses. Tokens that are gone or were edited outside patd are passed over.
func eachUnused(tx ReadTx, ids []ID, cutoff time.Time, visit func(t *Token, known ScopeUses, scopes []string) error) error {
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

// narrowPlanner makes and reads plans of narrowings, which are authenticated with all that the request says.
func (s *Service) narrowPlanner(f Filter, r NarrowManyRequest) lister {
	return lister{keys: s.keys.Get(), query: framed("narrowing plan", f.key(), r.Unused.For.String(), strconv.FormatBool(r.Unscoped))}
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
	within, cancel := context.WithTimeout(ctx, bulkCall)
	defer cancel()
	return s.carryOutNarrowing(ctx, within, n.Key)
}

// readPlan reads a plan of a narrowing: when it was made, how many tokens it was to narrow, and what was selected.
func (s *Service) readPlan(f Filter, r NarrowManyRequest) (made time.Time, count int64, want string, err error) {
	text, _, err := s.narrowPlanner(f, r).page(Page{Token: r.Plan})
	part := strings.SplitN(text, ".", 3)
	if err == nil && r.Plan != "" && len(part) == 3 {
		us, timeErr := strconv.ParseInt(part[0], 10, 64)
		n, countErr := strconv.ParseInt(part[1], 10, 64)
		if timeErr == nil && countErr == nil {
			return time.UnixMicro(us).UTC(), n, part[2], nil
		}
	}
	return time.Time{}, 0, "", Invalid("PLAN_INVALID", "plan", "not a plan of this request; ask with dry_run first, and give the plan of the answer")
}

func (s *Service) beginNarrowing(ctx context.Context, a Actor, r NarrowManyRequest) (Narrowing, error) {
	f, err := s.narrowFilter(a, r)
	if err != nil {
		return Narrowing{}, err
	}
	made, planned, want, err := s.readPlan(f, r)
	if err != nil {
		return Narrowing{}, err
	}
	if err := s.saveUses(ctx); err != nil {
		return Narrowing{}, err
	}
	key := PlanKey(sha256.Sum256([]byte(r.Plan)))
	for range planTries {
		var n Narrowing
		err := s.store.View(ctx, func(tx ReadTx) (err error) {
			n, err = tx.Narrowing(key)
			return err
		})
		if err == nil || !errors.Is(err, ErrNotFound) {
			return n, err
		}
		if err := expectCount(ctx, planned); err != nil {
			return Narrowing{}, err
		}
		found, err := s.selected(ctx, f)
		if err != nil {
			return Narrowing{}, err
		}
		if found.now.After(made.Add(planLife)) || want != strconv.Itoa(len(found.ids))+"."+digestOf(found.ids) {
			return Narrowing{}, errPlanOutdated
		}
		n = Narrowing{
			Key: key, Actor: a.String(), PeerIP: a.Peer.IP, Cutoff: r.Unused.cutoff(made), Unscoped: r.Unscoped, Count: planned,
		}
		n, err = s.fixNarrowing(ctx, a, n, found)
		if err == nil || !errors.Is(err, errSelectAgain) {
			return n, err
		}
	}
	return Narrowing{}, errPlanOutdated // it changes all the time
}

// fixNarrowing begins a narrowing, as fix begins a revocation.
func (s *Service) fixNarrowing(ctx context.Context, a Actor, n Narrowing, found selection) (Narrowing, error) {
	err := s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		if err := found.stands(tx, now); err != nil {
			return nil, err
		}
		n.BeginTime, n.WorkTime = now, now
		switch err := tx.InsertNarrowing(n, found.parts()); {
		case errors.Is(err, ErrTaken):
			return nil, errSelectAgain // the same call was made twice
		case err != nil:
			return nil, fmt.Errorf("begin a narrowing: %w", err)
		}
		e := a.event(now, ActionTokenNarrowMatching)
		e.Detail = fmt.Sprintf("%d tokens: %s", n.Count, found.filter)
		return []Event{e}, nil
	})
	return n, err
}

// carryOutNarrowing narrows batch after batch until all tokens are narrowed or within is over.
func (s *Service) carryOutNarrowing(ctx, within context.Context, key PlanKey) (Narrowing, error) {
	return inSteps(within, func() (n Narrowing, done bool, err error) {
		n, err = s.narrowStep(ctx, key)
		return n, !n.EndTime.IsZero(), err
	})
}

// narrowStep narrows the tokens of the next part in one transaction. The caller's authority counted when the narrowing
// began.
func (s *Service) narrowStep(ctx context.Context, key PlanKey) (n Narrowing, err error) {
	err = s.ledger.carryOn(ctx, func(tx Tx, now time.Time) ([]Event, error) {
		if n, err = tx.Narrowing(key); err != nil || !n.EndTime.IsZero() {
			return nil, err
		}
		n.WorkTime = now
		var events []Event
		for len(events) == 0 {
			part, err := tx.NextNarrowingPart(key)
			if errors.Is(err, ErrNotFound) {
				n.EndTime = now
				e := n.event(now, ActionTokenNarrowEnd)
				e.Detail = fmt.Sprintf("%d scopes of %d tokens paused", n.Scopes, n.Narrowed)
				return []Event{e}, tx.UpdateNarrowing(n, -1)
			}
			if err != nil {
				return nil, fmt.Errorf("read the tokens to narrow: %w", err)
			}
			if events, err = n.narrow(tx, part.IDs, now); err != nil {
				return nil, err
			}
			if err := tx.UpdateNarrowing(n, part.Number); err != nil {
				return nil, fmt.Errorf("note the progress of a narrowing: %w", err)
			}
		}
		return events, nil
	})
	return n, err
}

func (n Narrowing) event(now time.Time, action Action) Event {
	return Event{Time: now, Actor: n.Actor, Action: action, PeerIP: n.PeerIP, Outcome: OutcomeSuccess}
}

// narrow pauses the unused scopes of active tokens, and returns an event for each that has any.
func (n *Narrowing) narrow(tx Tx, ids []ID, now time.Time) ([]Event, error) {
	var events []Event
	err := eachUnused(tx, ids, n.Cutoff, func(t *Token, known ScopeUses, scopes []string) error {
		if t.Status(now) != StateActive || !known.covers(*t, n.Cutoff) || !n.Unscoped && !known.Unscoped.before(n.Cutoff) {
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

// carryOutAbandonedNarrowings carries out what no server is carrying out.
func (s *Service) carryOutAbandonedNarrowings(ctx context.Context) error {
	for ctx.Err() == nil {
		var n Narrowing
		err := s.store.View(ctx, func(tx ReadTx) (err error) {
			n, err = tx.AbandonedNarrowing(s.Now().Add(-bulkIdle))
			return err
		})
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err == nil {
			_, err = s.carryOutNarrowing(ctx, ctx, n.Key)
		}
		if err != nil {
			return err
		}
	}
	return nil
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
	// UpdateNarrowing writes Narrowed, Scopes, WorkTime and EndTime, and removes the part with that number. ErrNotFound.
	UpdateNarrowing(n Narrowing, part int) error
}
