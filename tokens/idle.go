package tokens

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"patd/tokens/refusal"
	"patd/tokens/secret"
)

// Whether a token is used changes with every use, so that no index can say which tokens are not. Each has a check
// instead: the first some time after its issue, and the next when it could be due at the earliest by the last use that
// the check has seen. So a token is looked at about as often as it could have become unused, and at no other time.

// idleMark begins the line of BlockedBy that says since when a token is paused, because it was not used. The other
// lines are audiences, which have no space. An earlier version takes it for an audience, and the token for a blocked
// one.
const idleMark = "idle since "

// blockedBy reports what the lines of BlockedBy are: audiences, the pause of a token that was not used, or both.
func blockedBy(text string) (policy, idle bool) {
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, idleMark) {
			idle = true
		} else {
			policy = true
		}
	}
	return policy, idle
}

// Blockers lists the audiences that block the token.
func (t Token) Blockers() []string {
	var list []string
	for line := range strings.SplitSeq(t.BlockedBy, "\n") {
		if line != "" && !strings.HasPrefix(line, idleMark) {
			list = append(list, line)
		}
	}
	return list
}

// IdleTime returns since when the token is paused, because it was not used; zero: it is not.
func (t Token) IdleTime() time.Time {
	for line := range strings.SplitSeq(t.BlockedBy, "\n") {
		if text, ok := strings.CutPrefix(line, idleMark); ok {
			at, err := time.Parse(time.RFC3339Nano, text)
			if err != nil {
				return time.UnixMicro(0).UTC() // the line says that it is paused, whatever else it says
			}
			return at
		}
	}
	return time.Time{}
}

// Pause pauses the token since an instant, because it was not used. A zero time ends a pause.
func (t *Token) Pause(since time.Time) { t.BlockedBy = blockLines(t.Blockers(), since) }

// setBlockers replaces the audiences that block the token. A pause stays.
func (t *Token) setBlockers(audiences []string) { t.BlockedBy = blockLines(audiences, t.IdleTime()) }

// blockLines writes BlockedBy.
func blockLines(audiences []string, idle time.Time) string {
	lines := append([]string{}, audiences...)
	if !idle.IsZero() {
		lines = append(lines, idleMark+idle.UTC().Format(time.RFC3339Nano))
	}
	return strings.Join(lines, "\n")
}

// idleLead is how long before a pause it is announced.
func (n Notices) idleLead() time.Duration { return min(IdleNotice, n.Idle/2) }

// lateness is for how long a use may not be known here yet: services report theirs once a minute, and servers write
// theirs as often.
func lateness(d time.Duration) time.Duration { return min(d/10, 5*time.Minute) }

// firstCheck is how long after its issue a token is first looked at; 0: never.
func (n Notices) firstCheck() time.Duration {
	first := time.Duration(math.MaxInt64)
	if n.Unused > 0 {
		first = n.Unused + lateness(n.Unused)
	}
	if n.Idle > 0 {
		first = min(first, n.Idle-n.idleLead()+lateness(n.Idle))
	}
	if first == math.MaxInt64 {
		return 0
	}
	return first
}

// idleStep is what a check found.
type idleStep struct {
	next     IdleCheck
	unused   bool      // a token.unused is due
	announce time.Time // a token.idle is due, which announces a pause then; zero: none is
	pause    bool      // the token is to be paused
	used     time.Time // the last use, or what counts as one
}

// check decides about a token that is active.
func (n Notices) check(t Token, c IdleCheck, now time.Time) idleStep {
	used := latest(t.IssueTime, t.LastUsed.Time, c.ResumeTime)
	step := idleStep{next: c, used: used}
	if c.AnnounceTime.After(now) { // the clock was set back
		step.next.AnnounceTime = now
	}
	// A use right now would make it due then.
	step.next.Due = now.Add(n.firstCheck())
	sooner := func(at time.Time) { step.next.Due = earliest(step.next.Due, at) }
	if n.Unused > 0 && !c.Unused.Equal(used) {
		if at := used.Add(n.Unused + lateness(n.Unused)); at.After(now) {
			sooner(at)
		} else {
			step.unused, step.next.Unused = true, used
		}
	}
	if n.Idle == 0 || !t.IdleTime().IsZero() {
		return step
	}
	lead, late := n.idleLead(), lateness(n.Idle)
	if !c.Announced.Equal(used) {
		at := used.Add(n.Idle - lead + late)
		if at.After(now) {
			sooner(at)
			return step
		}
		step.next.Announced, step.next.AnnounceTime = used, now
		step.announce = latest(used.Add(n.Idle+late), now.Add(lead))
		sooner(step.announce)
		return step
	}
	if at := latest(used.Add(n.Idle+late), step.next.AnnounceTime.Add(lead)); at.After(now) {
		sooner(at)
	} else {
		step.pause = true
	}
	return step
}

func latest(at time.Time, others ...time.Time) time.Time {
	for _, other := range others {
		if other.After(at) {
			at = other
		}
	}
	return at
}

// unused writes the notices of tokens that are not used, and pauses those that it is time to. It reports whether some
// are left to the next pass.
func (p *noticePass) unused(ctx context.Context) (left bool, err error) {
	first := p.notices.firstCheck()
	if first == 0 {
		return false, nil
	}
	begun := p.Now()
	walks, err := p.walk(ctx, first, begun.Add(unusedAtOnce/2)) // and leaves time for the checks that it has begun
	if err != nil {
		return false, fmt.Errorf("begin to look for unused tokens: %w", err)
	}
	for until := begun.Add(unusedAtOnce); ; p.rest(ctx) {
		due, err := p.saveDue(ctx)
		if err != nil || !due {
			return walks, err
		}
		left, err = inBatches(ctx, p, until, p.checks)
		if err != nil {
			return false, fmt.Errorf("look for unused tokens: %w", err)
		}
		if left || !p.Now().Before(until) {
			return true, nil
		}
	}
}

// saveDue has the uses of tokens saved whose check is due, and of no others, which are written evenly by
// themselves. It reports whether there are any.
func (p *noticePass) saveDue(ctx context.Context) (due bool, err error) {
	var list []IdleCheck
	err = p.store.View(ctx, func(tx ReadTx) (err error) {
		list, err = tx.DueIdleChecks(p.now, savedAtOnce)
		return err
	})
	if err != nil || len(list) == 0 {
		return false, err
	}
	p.saved = make([]ID, len(list))
	for i, c := range list {
		p.saved[i] = c.TokenID
	}
	slices.Sort(p.saved)
	return true, p.saveUses(ctx, p.saved)
}

// walk begins the checks of tokens, in the order of ids, which is that of issue. Where the durations are others than
// before, or the clock was set back, it begins anew. How far it got is in its mark, from which the next pass goes on.
// Earlier versions went by the microsecond of issue and by ids within one, as the end of their note says after one
// slash; after such a mark the walk goes on from the start of its millisecond. To them a note with two slashes, as this
// version writes it, says the same.
func (p *noticePass) walk(ctx context.Context, first time.Duration, until time.Time) (left bool, err error) {
	note := FormatDuration(p.notices.Unused) + " " + FormatDuration(p.notices.Idle)
	upTo := p.now.Add(-first)
	return inBatches(ctx, p, until, func(tx Tx, begun bool) (_ bool, _ []Event, more bool, err error) {
		m, err := noticeMark(tx, idleWalk)
		if err != nil {
			return false, nil, false, err
		}
		settings, at, _ := strings.Cut(m.Note, "/")
		after := max(secret.FirstID(m.Time), 1) - 1
		if settings != note || p.back != never && !begun {
			after = 0
		} else if at, exact := strings.CutPrefix(at, "/"); exact {
			if after, err = secret.ParseID(at); err != nil {
				after = 0 // it is no mark of this program's
			}
		}
		last, n, err := tx.BeginIdleChecks(after, upTo, p.now, noticeBatch)
		if err != nil {
			return false, nil, false, err
		}
		if n == 0 {
			last = after
		}
		if more = n == noticeBatch; !more && settings == note && n == 0 {
			return true, nil, false, nil // nothing to keep
		}
		return true, nil, more, tx.PutNoticeMark(
			NoticeMark{Name: idleWalk, Time: last.Time(), Note: note + "//" + last.String()},
		)
	})
}

// checks looks at some tokens whose check is due. Those whose last use may not be saved have their turn later.
func (p *noticePass) checks(tx Tx, _ struct{}) (_ struct{}, events []Event, more bool, err error) {
	list, err := tx.DueIdleChecks(p.now, noticeBatch)
	if err != nil {
		return struct{}{}, nil, false, err
	}
	looked := 0
	for _, c := range list {
		if _, saved := slices.BinarySearch(p.saved, c.TokenID); !saved {
			continue
		}
		made, err := p.checkOne(tx, c)
		if err != nil {
			return struct{}{}, nil, false, err
		}
		events = append(events, made...)
		looked++
	}
	return struct{}{}, events, looked == noticeBatch, nil
}

func (p *noticePass) checkOne(tx Tx, c IdleCheck) ([]Event, error) {
	t, err := tx.Token(c.TokenID)
	switch {
	case errors.Is(err, ErrRecordInvalid): // it is refused already, and may be revoked and nothing else
		c.Due = p.now.Add(p.notices.firstCheck())
		return nil, tx.PutIdleCheck(c)
	case errors.Is(err, ErrNotFound):
		return nil, tx.DeleteIdleCheck(c.TokenID)
	case err != nil:
		return nil, fmt.Errorf("read token %s: %w", c.TokenID, err)
	}
	if t.Status(p.now) != StateActive { // for good: neither becomes active again
		return nil, tx.DeleteIdleCheck(t.ID)
	}
	step := p.notices.check(t, c, p.now)
	if err := tx.PutIdleCheck(step.next); err != nil {
		return nil, fmt.Errorf("write the check of token %s: %w", t.ID, err)
	}
	event := func(action Action, n Notice) Event {
		e := Actor{}.event(p.now, action)
		n.LastUsedTime, n.ExpireTime = t.LastUsed.Time, t.ExpireTime
		e.User, e.TokenID, e.Detail = t.User, t.ID, n.detail()
		return e
	}
	var events []Event
	if step.unused {
		events = append(events, event(ActionTokenUnused, Notice{Threshold: p.notices.Unused}))
	}
	if !step.announce.IsZero() {
		events = append(events, event(ActionTokenIdle, Notice{Threshold: p.notices.Idle, PauseTime: step.announce}))
	}
	if step.pause {
		t.Pause(p.now)
		if err := tx.SetBlocked(t.ID, t.BlockedBy); err != nil {
			return nil, fmt.Errorf("pause token %s: %w", t.ID, err)
		}
		e := event(ActionTokenPause, Notice{Threshold: p.notices.Idle, PauseTime: p.now})
		e.Reason = refusal.Idle
		events = append(events, e)
	}
	return events, nil
}

// ResumeToken ends the pause of a token that was not used (TOKEN_IDLE). From then on the token counts as used then. One
// that is not paused stays as it is.
//
// Reasons: TOKEN_NOT_ACTIVE, and outages.
func (s *Service) ResumeToken(ctx context.Context, a Actor, user, id string) (Token, error) {
	t, err := s.resume(ctx, a, user, id)
	if err != nil {
		return Token{}, s.refused(ctx, a, Refusal{Action: ActionTokenIdleEnd, User: user, TokenID: id}, err)
	}
	return t, nil
}

func (s *Service) resume(ctx context.Context, a Actor, user, id string) (Token, error) {
	user, err := s.owner(a, user)
	if err != nil {
		return Token{}, err
	}
	var t Token
	err = s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		if _, t, err = ownedActive(ctx, tx, user, id, now); err != nil {
			return nil, err
		}
		since := t.IdleTime()
		if since.IsZero() {
			return nil, nil
		}
		t.Pause(time.Time{})
		if err := tx.SetBlocked(t.ID, t.BlockedBy); err != nil {
			return nil, fmt.Errorf("resume token %s: %w", t.ID, err)
		}
		c := IdleCheck{TokenID: t.ID, ResumeTime: now, Due: now.Add(s.notices.firstCheck())}
		if err := tx.PutIdleCheck(c); err != nil {
			return nil, fmt.Errorf("write the check of token %s: %w", t.ID, err)
		}
		e := a.event(now, ActionTokenIdleEnd)
		e.User, e.TokenID, e.Detail = t.User, t.ID, "paused since "+since.UTC().Format(time.RFC3339)
		return []Event{e}, nil
	})
	return t, err
}
