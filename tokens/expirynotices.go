package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Which notice of an end is due depends on the clock alone: the one with the shortest threshold that is past, if its
// end was set before that instant, and it was not written yet. So one that a server was down over is written later,
// unless a nearer one is past by then, and one that was past when the end was set never is. A mark for each threshold
// says how far the index of ends was gone through for it, and only saves work.

// endStep is the search for the notices of one threshold.
type endStep struct {
	kind   NoticeKind
	before time.Duration // 0: the end itself
	name   string        // of its mark
	// An end after nearer is more than the next shorter threshold away; one up to upTo is at most this one away.
	nearer, upTo time.Time
}

// endSteps lists the searches of a pass at now.
func (n Notices) endSteps(now time.Time) []endStep {
	var steps []endStep
	if len(n.Expiry) == 0 {
		return nil
	}
	for _, kind := range []NoticeKind{NoticeOfToken, NoticeOfService} {
		nearer, noun := now, "token"
		if kind == NoticeOfService {
			noun = "service"
		}
		if kind == NoticeOfToken {
			steps = append(steps, endStep{kind: kind, name: noun + " 0s", upTo: now})
		}
		for _, before := range n.Expiry {
			upTo := now.Add(before)
			steps = append(
				steps,
				endStep{
					kind:   kind,
					before: before,
					name:   noun + " " + FormatDuration(before),
					nearer: nearer,
					upTo:   upTo,
				},
			)
			nearer = upTo
		}
	}
	return steps
}

// query returns which ends to look at, by the mark of the step. False: none.
func (p *noticePass) query(e endStep, m NoticeMark) (EndQuery, bool) {
	from := e.nearer.Add(time.Microsecond)
	switch {
	case m.Name == "" && e.before == 0: // nothing is said of what expired before there were notices
		return EndQuery{}, false
	case m.Name != "":
		again := m.Time
		if p.back != never {
			again = earliest(again, time.UnixMicro(p.back).UTC().Add(e.before))
		}
		again = again.Add(-noticeOverlap)
		// Since the clock was set back behind the mark, the next shorter threshold is ahead again of ends that it was
		// past of. Those were left out then, and may have no notice of this one.
		behind := p.behind || m.Time.After(e.upTo)
		if e.before == 0 || !behind && again.After(from) {
			from = again
		}
	}
	if from.Before(p.floor) {
		from = p.floor // of those before it is not known any more what was written
	}
	return EndQuery{From: from, UpTo: e.upTo, Before: e.before, Limit: noticeBatch}, !from.After(e.upTo)
}

// ends writes the notices of ends.
func (p *noticePass) ends(ctx context.Context) error {
	steps := p.notices.endSteps(p.now)
	// Usually there is nothing to do, and no writer need wait for that.
	var due []endStep
	err := p.store.View(ctx, func(tx ReadTx) error {
		for _, e := range steps {
			m, err := noticeMark(tx, e.name)
			if err != nil {
				return err
			}
			q, some := p.query(e, m)
			if some {
				q.Limit = 1
				if some, err = someEnd(tx, e.kind, q); err != nil {
					return err
				}
			}
			// What was gone through is gone through again until the mark moves.
			if some || m.Name == "" || m.Time.After(e.upTo) || e.upTo.Sub(m.Time) > 10*p.notices.period() {
				due = append(due, e)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range due {
		if err := p.step(ctx, e); err != nil {
			return fmt.Errorf("write notices of %s: %w", e.name, err)
		}
	}
	return nil
}

func someEnd(tx ReadTx, kind NoticeKind, q EndQuery) (bool, error) {
	if kind == NoticeOfService {
		list, err := tx.EndingServices(q)
		return len(list) > 0, err
	}
	list, err := tx.EndingTokens(q)
	return len(list) > 0, err
}

// step writes the notices of a threshold, in as many transactions as it takes. Each moves the mark.
func (p *noticePass) step(ctx context.Context, e endStep) error {
	_, err := inBatches(
		ctx,
		p,
		time.Time{},
		func(tx Tx, done ended) (next ended, events []Event, more bool, err error) {
			m, err := noticeMark(tx, e.name)
			if err != nil {
				return next, nil, false, err
			}
			swept, err := noticeMark(tx, sweepMark)
			if err != nil {
				return next, nil, false, err
			}
			p.floor = swept.Time
			reached := e.upTo
			if q, some := p.query(e, m); some {
				if done.id != 0 {
					q.From, q.AfterID = done.end, done.id
				}
				if next, events, more, err = p.noticesOf(tx, e, q); err != nil {
					return next, nil, false, err
				}
				if more {
					reached = next.end.Add(-time.Microsecond) // others may end at that instant
				}
			}
			if err := tx.PutNoticeMark(NoticeMark{Name: e.name, Time: reached}); err != nil {
				return next, nil, false, err
			}
			return next, events, more, tx.PutNoticeMark(NoticeMark{Name: lastPass, Time: p.now})
		},
	)
	return err
}

// ended is the last credential that a transaction looked at.
type ended struct {
	end time.Time
	id  ID
}

// noticesOf writes the notices that a query finds, and returns the last credential that it looked at and whether more
// may follow.
func (p *noticePass) noticesOf(tx Tx, e endStep, q EndQuery) (out ended, events []Event, more bool, err error) {
	type credential struct {
		id            ID
		end           time.Time
		user, service string
	}
	var list []credential
	action := ActionTokenExpiring
	switch {
	case e.kind == NoticeOfService:
		action = ActionServiceExpiring
		found, err := tx.EndingServices(q)
		if err != nil {
			return out, nil, false, fmt.Errorf("read services: %w", err)
		}
		for _, v := range found {
			list = append(list, credential{id: v.ID, end: v.ExpireTime, service: v.Name})
		}
	default:
		if e.before == 0 {
			action = ActionTokenExpired
		}
		found, err := tx.EndingTokens(q)
		if err != nil {
			return out, nil, false, fmt.Errorf("read tokens: %w", err)
		}
		for _, t := range found {
			list = append(list, credential{id: t.ID, end: t.ExpireTime, user: t.User})
		}
	}
	for _, c := range list {
		out.end, out.id = c.end, c.id
		err := tx.PutNotice(e.kind, c.id, c.end, e.before)
		if errors.Is(err, ErrTaken) {
			continue
		}
		if err != nil {
			return out, nil, false, fmt.Errorf("record a notice of %s: %w", c.id, err)
		}
		event := Actor{}.event(p.now, action)
		event.User, event.Service, event.TokenID = c.user, c.service, c.id
		event.Detail = Notice{Threshold: e.before, ExpireTime: c.end}.detail()
		events = append(events, event)
	}
	return out, events, len(list) == q.Limit, nil
}
