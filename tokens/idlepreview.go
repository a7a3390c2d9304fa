package tokens

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// IdlePreviewRequest asks what the idle pause would do.
type IdlePreviewRequest struct {
	Idle  time.Duration // as Notices.Idle; 0: the one that this Service has
	Limit int           // tokens to name: 0: 50; 200 at most
}

// IdlePreview says what the idle pause would do to the active tokens if it began now, or goes on. Nothing was changed.
type IdlePreview struct {
	Idle   time.Duration
	Active int64 // tokens that were looked at
	// Announce are those that would be announced at once, Waiting those that are announced and not to be paused yet,
	// and Pause those that are announced, and would be paused at once. Users are those of all three.
	Announce, Waiting, Pause, Users int64
	Paused                          int64 // paused already
	// Longest are some of the three, those first that were not used for the longest time.
	Longest []IdleToken
}

// IdleToken is a token that would be paused.
type IdleToken struct {
	ID        ID
	User      string
	Name      string
	LastUsed  time.Time // zero: never
	PauseTime time.Time // when, unless it is used before
	since     time.Time // the last use, or what counts as one
}

// PreviewIdle says what the idle pause would do, and changes nothing. It reads one snapshot, holds little of it at
// once, and ends with ctx. It waits for impacts under way, as they do for it.
//
// Reasons: IDLE_TTL_REQUIRED where neither the request nor the server has a time, and DURATION_OUT_OF_RANGE.
func (s *Service) PreviewIdle(ctx context.Context, a Actor, r IdlePreviewRequest) (IdlePreview, error) {
	if err := s.manager(a); err != nil {
		return IdlePreview{}, err
	}
	if r.Idle == 0 {
		r.Idle = s.notices.Idle
	}
	switch {
	case r.Idle == 0:
		return IdlePreview{}, Invalid(
			"IDLE_TTL_REQUIRED",
			"idle_ttl",
			"say for how long a token is not used; this server has no --idle-ttl",
		)
	case r.Idle < time.Second || r.Idle > MaxNotice:
		return IdlePreview{}, Invalid(
			"DURATION_OUT_OF_RANGE",
			"idle_ttl",
			"must be from 1s to "+FormatDuration(MaxNotice),
		)
	}
	_, limit, err := (&lister{keys: s.keys.Get()}).page(Page{Size: r.Limit})
	if err != nil {
		return IdlePreview{}, err
	}
	done, err := s.scan(ctx)
	if err != nil {
		return IdlePreview{}, err
	}
	defer done()
	if err := s.saveUses(ctx, nil); err != nil {
		return IdlePreview{}, err
	}
	var out IdlePreview
	err = s.store.View(ctx, func(tx ReadTx) error {
		out = IdlePreview{Idle: r.Idle}
		return out.read(ctx, tx, s.Now(), limit)
	})
	return out, err
}

// scan waits until few others read all tokens. The caller calls done after it.
func (s *Service) scan(ctx context.Context) (done func(), err error) {
	select {
	case s.scans <- struct{}{}:
		return func() { <-s.scans }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for others that read all tokens: %w", ctx.Err())
	}
}

// read looks at every active token.
func (p *IdlePreview) read(ctx context.Context, tx ReadTx, now time.Time, limit int) error {
	q := GrantedQuery{Now: now, Limit: impactBatch}
	user := int64(0) // counted already
	for {
		batch, err := tx.Granted(q)
		if err != nil {
			return fmt.Errorf("read the active tokens: %w", err)
		}
		for i := range batch {
			found, err := p.look(tx, &batch[i], now)
			if err != nil {
				return err
			}
			if found && batch[i].UserKey != user {
				user = batch[i].UserKey
				p.Users++
			}
		}
		p.cut(limit)
		if len(batch) < q.Limit {
			return nil
		}
		q.AfterUser, q.AfterID = batch[len(batch)-1].UserKey, batch[len(batch)-1].ID
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("look for unused tokens: %w", err)
		}
	}
}

// look reports whether a token would be paused, now or later.
func (p *IdlePreview) look(tx ReadTx, t *Token, now time.Time) (bool, error) {
	p.Active++
	if !t.IdleTime().IsZero() {
		p.Paused++
		return false, nil
	}
	n := Notices{Idle: p.Idle}
	if step := n.check(*t, IdleCheck{}, now); step.announce.IsZero() {
		return false, nil // no check could say otherwise: what it knows counts as a use, or comes after an announcement
	}
	c, err := tx.IdleCheck(t.ID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false, fmt.Errorf("read the check of token %s: %w", t.ID, err)
	}
	one := IdleToken{ID: t.ID, User: t.User, Name: t.Name, LastUsed: t.LastUsed.Time}
	step := n.check(*t, c, now)
	one.since = step.used
	switch {
	case step.pause:
		p.Pause++
		one.PauseTime = now
	case !step.announce.IsZero():
		p.Announce++
		one.PauseTime = step.announce
	case c.Announced.Equal(step.used):
		p.Waiting++
		one.PauseTime = step.next.Due
	default:
		return false, nil // a pause of it ended lately
	}
	p.Longest = append(p.Longest, one)
	return true, nil
}

// cut leaves the longest unused of those that were found.
func (p *IdlePreview) cut(limit int) {
	slices.SortFunc(
		p.Longest,
		func(a, b IdleToken) int { return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.ID, b.ID)) },
	)
	p.Longest = p.Longest[:min(limit, len(p.Longest))]
}
