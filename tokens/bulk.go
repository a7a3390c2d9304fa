package tokens

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of the revocation of many tokens.
const (
	// MaxPlanned is how many tokens one plan may select.
	MaxPlanned = 1_000_000

	planLife  = time.Hour
	planPage  = 10_000
	planTries = 3
	bulkBatch = 200                   // tokens a transaction
	bulkPause = 10 * time.Millisecond // between two, for other writers
	bulkCall  = 5 * time.Second       // how long the call that begins a revocation carries it out itself
	bulkIdle  = 5 * time.Second       // a revocation that made no progress for this long has no server
	bulkPoll  = 5 * time.Second
	bulkKnown = 64 // revocations whose call ended before them, and that this server carries on at once
)

// PlanKey names a revocation of many tokens: the digest of its plan.
type PlanKey [32]byte

// BulkRevocation is the revocation of the tokens of a plan. They are fixed when it begins.
type BulkRevocation struct {
	Key       PlanKey
	Actor     string // who began it
	PeerIP    netip.Addr
	Reason    string
	Count     int64 // tokens of the plan
	Revoked   int64 // so far; without those that another call has revoked meanwhile
	BeginTime time.Time
	WorkTime  time.Time // of the last progress
	EndTime   time.Time // zero: under way
}

// BulkPart is a part of the tokens that are still to be revoked.
type BulkPart struct {
	Number int
	IDs    []ID
}

// BulkRequest asks for the revocation of all tokens that a filter selects.
type BulkRequest struct {
	Filter Filter
	Reason string
	// Plan is what PlanRevocation returned.
	Plan string
}

// Plan says what a revocation would do.
type Plan struct {
	Count      int64
	Plan       string
	ExpireTime time.Time
}

var errPlanOutdated = Fail(CodeAborted, "PLAN_OUTDATED", "the tokens that the filter selects are not those of the plan any more, or the plan is over an hour old; make a new plan")

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
	list := s.planner(f)
	return Plan{
		Count: int64(len(found.ids)), ExpireTime: found.now.Add(planLife),
		Plan: list.next(strings.Join([]string{strconv.FormatInt(found.now.UnixMicro(), 10), strconv.Itoa(len(found.ids)), digestOf(found.ids)}, ".")),
	}, nil
}

// planner makes and reads plans: they are authenticated together with their filter, as page tokens are.
func (s *Service) planner(f Filter) lister {
	return lister{keys: s.keys.Get(), query: framed("revocation plan", f.key())}
}

func (s *Service) bulkFilter(a Actor, f Filter) (Filter, error) {
	if err := s.manager(a); err != nil {
		return f, err
	}
	if f.Empty() {
		return f, Invalid("FILTER_REQUIRED", "filter", "say which tokens: an empty filter would end all of them; state ACTIVE names all that are active")
	}
	if f.State == StateRevoked {
		return f, Invalid("FILTER_INVALID", "filter.state", "revoked tokens cannot be revoked again")
	}
	var c checker
	f = c.filter("filter.", f)
	f.Unrevoked = true
	return f, c.err()
}

// selection is what a filter selects at one instant.
type selection struct {
	filter Filter // resolved
	ids    []ID   // sorted
	now    time.Time
	seq    uint64 // of the newest event
}

func (s *Service) selected(ctx context.Context, f Filter) (selection, error) {
	var out selection
	err := s.store.View(ctx, func(tx ReadTx) error {
		out = selection{now: s.Now()}
		newest, err := tx.Events(EventQuery{Limit: 1})
		if err != nil {
			return fmt.Errorf("read the newest event: %w", err)
		}
		if len(newest) > 0 {
			out.seq = newest[0].Seq
		}
		if out.filter, err = resolved(tx, f); err != nil {
			return err
		}
		q := InventoryQuery{Filter: out.filter, Now: out.now, Order: OrderOldest, Limit: planPage, Within: time.Hour}
		for more := true; more; {
			page, err := tx.Inventory(q)
			if err != nil {
				return fmt.Errorf("select tokens: %w", err)
			}
			for _, t := range page.Tokens {
				out.ids = append(out.ids, t.ID)
			}
			if len(out.ids) > MaxPlanned {
				return Invalid("TOO_MANY_TOKENS", "filter", fmt.Sprintf("selects more than %d tokens; narrow it, for instance with created_before", MaxPlanned))
			}
			q.After, more = page.Next, page.More
		}
		return ctx.Err()
	})
	slices.Sort(out.ids)
	return out, err
}

func digestOf(ids []ID) string {
	h := sha256.New()
	for _, id := range ids {
		h.Write([]byte(id.String()))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
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
	within, cancel := context.WithTimeout(ctx, bulkCall)
	defer cancel()
	b, err = s.carryOut(ctx, within, b.Key)
	if err != nil || b.EndTime.IsZero() {
		select {
		case s.unfinished <- b.Key:
		default: // it is found by looking
		}
	}
	return b, err
}

func (s *Service) beginBulk(ctx context.Context, a Actor, r BulkRequest) (BulkRevocation, error) {
	f, err := s.bulkFilter(a, r.Filter)
	if err != nil {
		return BulkRevocation{}, err
	}
	var c checker
	if c.reason(r.Reason); c.err() != nil {
		return BulkRevocation{}, c.err()
	}
	text, _, err := s.planner(f).page(Page{Token: r.Plan})
	at, want, ok := strings.Cut(text, ".")
	made, timeErr := strconv.ParseInt(at, 10, 64)
	count, _, _ := strings.Cut(want, ".")
	planned, countErr := strconv.ParseInt(count, 10, 64)
	if err != nil || r.Plan == "" || !ok || timeErr != nil || countErr != nil {
		return BulkRevocation{}, Invalid("PLAN_INVALID", "plan", "not a plan of this filter; ask with dry_run first, and give the plan of the answer")
	}
	key := PlanKey(sha256.Sum256([]byte(r.Plan)))
	for range planTries {
		b, err := s.begun(ctx, key)
		if err == nil || !errors.Is(err, ErrNotFound) {
			return b, err
		}
		if err := expectCount(ctx, planned); err != nil {
			return BulkRevocation{}, err
		}
		found, err := s.selected(ctx, f)
		if err != nil {
			return BulkRevocation{}, err
		}
		if found.now.After(time.UnixMicro(made).Add(planLife)) || want != strconv.Itoa(len(found.ids))+"."+digestOf(found.ids) {
			return BulkRevocation{}, errPlanOutdated
		}
		b = BulkRevocation{Key: key, Actor: a.String(), PeerIP: a.Peer.IP, Reason: r.Reason, Count: int64(len(found.ids))}
		b, err = s.fix(ctx, a, b, found)
		if err == nil || !errors.Is(err, errSelectAgain) {
			return b, err
		}
	}
	return BulkRevocation{}, errPlanOutdated // it changes all the time
}

// begun reads a revocation that has begun.
func (s *Service) begun(ctx context.Context, key PlanKey) (b BulkRevocation, err error) {
	err = s.store.View(ctx, func(tx ReadTx) error {
		b, err = tx.BulkRevocation(key)
		return err
	})
	return b, err
}

var errSelectAgain = errors.New("too much has happened since the tokens were selected")

// fix begins a revocation: in one transaction, in which the selection is compared with what has happened since it was
// read.
func (s *Service) fix(ctx context.Context, a Actor, b BulkRevocation, found selection) (BulkRevocation, error) {
	err := s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		if err := found.stands(tx, now); err != nil {
			return nil, err
		}
		b.BeginTime, b.WorkTime = now, now
		switch err := tx.InsertBulkRevocation(b, found.parts()); {
		case errors.Is(err, ErrTaken):
			return nil, errSelectAgain // the same call was made twice
		case err != nil:
			return nil, fmt.Errorf("begin a revocation: %w", err)
		}
		e := a.event(now, ActionTokenRevokeMatching)
		e.Detail = fmt.Sprintf("%d tokens: %s", b.Count, found.filter)
		if b.Reason != "" {
			e.Detail += ": " + b.Reason
		}
		return []Event{e}, nil
	})
	return b, err
}

// parts are the batches in which the tokens of a selection are changed.
func (v selection) parts() []BulkPart {
	var parts []BulkPart
	for ids := range slices.Chunk(v.ids, bulkBatch) {
		parts = append(parts, BulkPart{Number: len(parts), IDs: ids})
	}
	return parts
}

// stands compares a selection with the changes since it was read.
func (v selection) stands(tx ReadTx, now time.Time) error {
	const most = 1000
	since, err := tx.Events(EventQuery{Limit: most})
	if err != nil {
		return fmt.Errorf("read the newest events: %w", err)
	}
	seen := map[ID]bool{}
	for _, e := range since {
		if e.Seq <= v.seq {
			return nil
		}
		if e.Outcome != OutcomeSuccess {
			continue
		}
		if e.TokenID == 0 && (e.Action == ActionUserDelete || e.Action == ActionTokenRevokeAll) {
			return errSelectAgain
		}
		if e.TokenID == 0 || seen[e.TokenID] {
			continue
		}
		seen[e.TokenID] = true
		t, err := tx.Token(e.TokenID)
		if errors.Is(err, ErrNotFound) {
			continue // it is a service's
		}
		if toEnd(err) != nil {
			return fmt.Errorf("read token %s: %w", e.TokenID, err)
		}
		if _, in := slices.BinarySearch(v.ids, t.ID); in != v.filter.Matches(t, now) {
			return errPlanOutdated
		}
	}
	if len(since) == most {
		return errSelectAgain
	}
	return nil
}

// carryOut revokes batch after batch until all tokens are revoked or within is over.
func (s *Service) carryOut(ctx, within context.Context, key PlanKey) (BulkRevocation, error) {
	return inSteps(within, func() (b BulkRevocation, done bool, err error) {
		b, err = s.bulkStep(ctx, key)
		return b, !b.EndTime.IsZero(), err
	})
}

// inSteps runs step after step, with a pause for other writers between two, until one is the last, one fails, or within
// is over. It returns what the last of them returned.
func inSteps[T any](within context.Context, step func() (progress T, done bool, err error)) (T, error) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		progress, done, err := step()
		if err != nil || done {
			return progress, err
		}
		pause.Reset(bulkPause)
		select {
		case <-pause.C:
		case <-within.Done():
			return progress, nil
		}
	}
}

// bulkStep revokes the tokens of the next part in one transaction. The caller's authority counted when the revocation
// began.
func (s *Service) bulkStep(ctx context.Context, key PlanKey) (b BulkRevocation, err error) {
	err = s.ledger.carryOn(ctx, func(tx Tx, now time.Time) ([]Event, error) {
		if b, err = tx.BulkRevocation(key); err != nil || !b.EndTime.IsZero() {
			return nil, err
		}
		b.WorkTime = now
		var events []Event
		for len(events) == 0 {
			part, err := tx.NextBulkPart(key)
			if errors.Is(err, ErrNotFound) {
				b.EndTime = now
				e := b.event(now, ActionTokenRevokeEnd)
				e.Detail = fmt.Sprintf("%d of %d tokens revoked", b.Revoked, b.Count)
				return []Event{e}, tx.UpdateBulkRevocation(b, -1)
			}
			if err != nil {
				return nil, fmt.Errorf("read the tokens to revoke: %w", err)
			}
			if events, err = b.revoke(tx, part.IDs, now); err != nil {
				return nil, err
			}
			b.Revoked += int64(len(events))
			if err := tx.UpdateBulkRevocation(b, part.Number); err != nil {
				return nil, fmt.Errorf("note the progress of a revocation: %w", err)
			}
		}
		return events, nil
	})
	return b, err
}

func (b BulkRevocation) event(now time.Time, action Action) Event {
	return Event{Time: now, Actor: b.Actor, Action: action, PeerIP: b.PeerIP, Outcome: OutcomeSuccess}
}

// revoke revokes those of the tokens that are not revoked, and returns an event for each.
func (b BulkRevocation) revoke(tx Tx, ids []ID, now time.Time) ([]Event, error) {
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
	return events, nil
}

// CarryOutRevocations carries out revocations that no server is carrying out, until ctx ends: those whose call here
// ended before them at once, and those whose server ended when it has looked for them, which it does every 5 s. report
// receives the errors; nil: they are dropped. It does the same for narrowings, and removes scopes for good that were paused
// for too long.
func (s *Service) CarryOutRevocations(ctx context.Context, report func(error)) {
	every := time.NewTicker(bulkPoll)
	defer every.Stop()
	abandoned := func(ctx context.Context) error {
		return errors.Join(s.carryOutAbandoned(ctx), s.carryOutAbandonedNarrowings(ctx), s.RemovePausedScopes(ctx))
	}
	work := abandoned
	for {
		if err := unharmed(ctx, work); err != nil && ctx.Err() == nil && report != nil {
			report(err)
		}
		work = abandoned
		select {
		case key := <-s.unfinished:
			work = func(ctx context.Context) error {
				_, err := s.carryOut(ctx, ctx, key)
				return err
			}
		case <-every.C:
		case <-ctx.Done():
			return
		}
	}
}

// unharmed does work. A panic ends neither the process nor the next try. Its value may hold a secret, so that the error
// leaves it out.
func unharmed(ctx context.Context, work func(context.Context) error) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("carry out a revocation of many tokens: panic")
		}
	}()
	return work(ctx)
}

// carryOutAbandoned carries out what no server is carrying out.
func (s *Service) carryOutAbandoned(ctx context.Context) error {
	for ctx.Err() == nil {
		var b BulkRevocation
		err := s.store.View(ctx, func(tx ReadTx) error {
			var err error
			b, err = tx.AbandonedBulkRevocation(s.Now().Add(-bulkIdle))
			return err
		})
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err == nil {
			_, err = s.carryOut(ctx, ctx, b.Key)
		}
		if err != nil {
			return err
		}
	}
	return nil
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
