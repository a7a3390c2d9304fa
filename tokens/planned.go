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

// Bounds of the work on the tokens of a plan.
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

// PlanKey names work on the tokens of a plan: the digest of the plan.
type PlanKey [32]byte

// Work is what a revocation and a narrowing of the tokens of a plan have in common. The tokens are fixed when it
// begins.
type Work struct {
	Key       PlanKey
	Actor     string // who began it
	PeerIP    netip.Addr
	Count     int64 // tokens of the plan
	BeginTime time.Time
	WorkTime  time.Time // of the last progress
	EndTime   time.Time // zero: under way
}

// BulkPart is a part of the tokens of a plan that are still to be changed.
type BulkPart struct {
	Number int
	IDs    []ID
}

// planned is one kind of work on the tokens of a plan: a pointer to a BulkRevocation or to a Narrowing.
type planned interface {
	work() *Work
	// another returns a value of the same kind, without any work.
	another() planned
	// read reads the work of a plan, and changes nothing where there is none: ErrNotFound.
	read(tx ReadTx, key PlanKey) error
	// readAbandoned reads work under way whose WorkTime is before a time. ErrNotFound.
	readAbandoned(tx ReadTx, before time.Time) error
	// next reads the first of the parts that are left. ErrNotFound.
	next(tx ReadTx) (BulkPart, error)
	// insert adds the work with its parts. ErrTaken when the plan has one.
	insert(tx Tx, parts []BulkPart) error
	// update writes the progress, and removes the part with that number.
	update(tx Tx, part int) error
	// change changes tokens, counts them, and returns an event for each that was changed.
	change(tx Tx, ids []ID, now time.Time) ([]Event, error)
	// begun and ended return the action of the event of the begin and of the end, and what its detail says besides.
	begun() (Action, string)
	ended() (Action, string)
}

var _, _ planned = (*BulkRevocation)(nil), (*Narrowing)(nil)

func (w *Work) work() *Work { return w }

func (w *Work) event(now time.Time, action Action) Event {
	return Event{Time: now, Actor: w.Actor, Action: action, PeerIP: w.PeerIP, Outcome: OutcomeSuccess}
}

var errPlanOutdated = Fail(
	CodeAborted,
	"PLAN_OUTDATED",
	"the tokens that the filter selects are not those of the plan any more, or the plan is over an hour old; make a new plan",
)

// Plan says what a revocation would do.
type Plan struct {
	Count      int64
	Plan       string
	ExpireTime time.Time
}

// plans makes and reads the texts of plans: they are authenticated, as page tokens are, together with what the request
// says.
type plans lister

// readPlan is what the text of a plan says.
type readPlan struct {
	key      PlanKey
	made     time.Time
	count    int64  // tokens to be changed
	selected string // what else it says of the selection
}

func (l plans) text(found selection, count int64, selected string) string {
	return lister(
		l,
	).next(strings.Join([]string{strconv.FormatInt(found.now.UnixMicro(), 10), strconv.FormatInt(count, 10), selected}, "."))
}

func (l plans) read(plan string) (readPlan, error) {
	text, _, err := lister(l).page(Page{Token: plan})
	if part := strings.SplitN(text, ".", 3); err == nil && plan != "" && len(part) == 3 {
		made, timeErr := strconv.ParseInt(part[0], 10, 64)
		count, countErr := strconv.ParseInt(part[1], 10, 64)
		if timeErr == nil && countErr == nil {
			return readPlan{PlanKey(sha256.Sum256([]byte(plan))), time.UnixMicro(made).UTC(), count, part[2]}, nil
		}
	}
	return readPlan{}, Invalid(
		"PLAN_INVALID",
		"plan",
		"not a plan of this request; ask with dry_run first, and give the plan of the answer",
	)
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
				return Invalid(
					"TOO_MANY_TOKENS",
					"filter",
					fmt.Sprintf("selects more than %d tokens; narrow it, for instance with created_before", MaxPlanned),
				)
			}
			q.After, more = page.Next, page.More
		}
		return ctx.Err()
	})
	slices.Sort(out.ids)
	return out, err
}

// digest is of the tokens that are selected.
func (v selection) digest() string {
	h := sha256.New()
	for _, id := range v.ids {
		h.Write([]byte(id.String()))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// text is how many tokens are selected, and which.
func (v selection) text() string { return strconv.Itoa(len(v.ids)) + "." + v.digest() }

// beginPlanned begins the work of a plan whose filter selects what it did, or returns with that which has begun.
func (s *Service) beginPlanned(ctx context.Context, a Actor, w planned, f Filter, p readPlan) error {
	for range planTries {
		err := s.store.View(ctx, func(tx ReadTx) error { return w.read(tx, p.key) })
		if err == nil || !errors.Is(err, ErrNotFound) {
			return err
		}
		if err := expectCount(ctx, p.count); err != nil {
			return err
		}
		found, err := s.selected(ctx, f)
		if err != nil {
			return err
		}
		if found.now.After(p.made.Add(planLife)) || p.selected != found.text() {
			return errPlanOutdated
		}
		*w.work() = Work{Key: p.key, Actor: a.String(), PeerIP: a.Peer.IP, Count: p.count}
		err = s.fix(ctx, a, w, found)
		if err == nil || !errors.Is(err, errSelectAgain) {
			return err
		}
	}
	return errPlanOutdated // it changes all the time
}

var errSelectAgain = errors.New("too much has happened since the tokens were selected")

// fix begins work: in one transaction, in which the selection is compared with what has happened since it was read.
func (s *Service) fix(ctx context.Context, a Actor, w planned, found selection) error {
	return s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		if err := found.stands(tx, now); err != nil {
			return nil, err
		}
		w.work().BeginTime, w.work().WorkTime = now, now
		switch err := w.insert(tx, found.parts()); {
		case errors.Is(err, ErrTaken):
			return nil, errSelectAgain // the same call was made twice
		case err != nil:
			return nil, fmt.Errorf("begin the work of a plan: %w", err)
		}
		action, more := w.begun()
		e := a.event(now, action)
		e.Detail = fmt.Sprintf("%d tokens: %s", w.work().Count, found.filter)
		if more != "" {
			e.Detail += ": " + more
		}
		return []Event{e}, nil
	})
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

// workOn carries out for a call what has begun. What it does not come to is carried on behind it.
func (s *Service) workOn(ctx context.Context, w planned) error {
	within, cancel := context.WithTimeout(ctx, bulkCall)
	defer cancel()
	err := s.carryOut(ctx, within, w)
	left := w.another() // w is the caller's
	left.work().Key = w.work().Key
	if err != nil || w.work().EndTime.IsZero() {
		select {
		case s.unfinished <- left:
		default: // it is found by looking
		}
	}
	return err
}

// carryOut changes batch after batch, with a pause for other writers between two, until all tokens are changed, one
// fails, or within is over.
func (s *Service) carryOut(ctx, within context.Context, w planned) error {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		if err := s.step(ctx, w); err != nil || !w.work().EndTime.IsZero() {
			return err
		}
		pause.Reset(bulkPause)
		select {
		case <-pause.C:
		case <-within.Done():
			return nil
		}
	}
}

// step changes the tokens of the next part in one transaction. The caller's authority counted when the work began.
func (s *Service) step(ctx context.Context, w planned) error {
	key := w.work().Key
	return s.ledger.carryOn(ctx, func(tx Tx, now time.Time) ([]Event, error) {
		if err := w.read(tx, key); err != nil || !w.work().EndTime.IsZero() {
			return nil, err
		}
		w.work().WorkTime = now
		var events []Event
		for len(events) == 0 {
			part, err := w.next(tx)
			if errors.Is(err, ErrNotFound) {
				w.work().EndTime = now
				action, detail := w.ended()
				e := w.work().event(now, action)
				e.Detail = detail
				return []Event{e}, w.update(tx, -1)
			}
			if err != nil {
				return nil, fmt.Errorf("read the tokens to change: %w", err)
			}
			if events, err = w.change(tx, part.IDs, now); err != nil {
				return nil, err
			}
			if err := w.update(tx, part.Number); err != nil {
				return nil, fmt.Errorf("note the progress of a plan: %w", err)
			}
		}
		return events, nil
	})
}

// CarryOutRevocations carries out revocations and narrowings that no server is carrying out, until ctx ends: those
// whose call here ended before them at once, and those whose server ended when it has looked for them, which it does
// every 5 s. report receives the errors; nil: they are dropped. It also removes scopes for good that were paused for
// too long.
func (s *Service) CarryOutRevocations(ctx context.Context, report func(error)) {
	every := time.NewTicker(bulkPoll)
	defer every.Stop()
	abandoned := func(ctx context.Context) error {
		return errors.Join(s.carryOutAbandoned(ctx, new(BulkRevocation)), s.carryOutAbandoned(ctx, new(Narrowing)),
			s.RemovePausedScopes(ctx))
	}
	work := abandoned
	for {
		if err := unharmed(ctx, work); err != nil && ctx.Err() == nil && report != nil {
			report(err)
		}
		work = abandoned
		select {
		case w := <-s.unfinished:
			work = func(ctx context.Context) error { return s.carryOut(ctx, ctx, w) }
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

// carryOutAbandoned carries out what no server is carrying out, of one kind.
func (s *Service) carryOutAbandoned(ctx context.Context, kind planned) error {
	for ctx.Err() == nil {
		w := kind.another()
		err := s.store.View(ctx, func(tx ReadTx) error { return w.readAbandoned(tx, s.Now().Add(-bulkIdle)) })
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err == nil {
			err = s.carryOut(ctx, ctx, w)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
