package tokens

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// maxFeatureChanges bounds the users whose answers wait to be compared. An answer that finds no room comes again.
	maxFeatureChanges = 4096
	// featureChangeEvery is how far apart the events about one user are at least, whatever the source says.
	featureChangeEvery = 5 * time.Second
	// featureChangePause is how far apart a server's events are at least, so that a change of all users is no flood.
	featureChangePause = 10 * time.Millisecond
	// featureChangeRetry is how long after a failure it is tried again, and featureChangeTimeout bounds one try.
	featureChangeRetry   = time.Second
	featureChangeTimeout = 5 * time.Second
	// maxFeatureTokens bounds the tokens of one user that are looked at.
	maxFeatureTokens = 1000
)

// SuspendedScopes are the scopes of a user's tokens that were in effect no more when a source of features was last
// found to say something else than before.
type SuspendedScopes struct {
	Scopes  []string // sorted
	AskTime time.Time
}

// featureChanges are the answers of a source that are to be compared with what was in effect before, the newest of each
// user.
type featureChanges struct {
	mu      sync.Mutex
	pending map[string]featureAnswer
	busy    int // answers that were taken and are being compared
	wake    chan struct{}
}

// featureAnswer is an answer about a user.
type featureAnswer struct {
	features []string // sorted
	asked    time.Time
	due      time.Time // when it is compared; zero: at once
}

// note keeps an answer until it is compared. It returns false if there is no room.
func (c *featureChanges) note(user string, features []string, asked time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, known := c.pending[user]
	if !known && len(c.pending) >= maxFeatureChanges {
		return false
	}
	c.pending[user] = featureAnswer{features: features, asked: asked.UTC().Truncate(time.Microsecond), due: before.due}
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return true
}

// take returns an answer that is due.
func (c *featureChanges) take(now time.Time) (user string, a featureAnswer, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for user, a := range c.pending {
		if !now.Before(a.due) {
			delete(c.pending, user)
			c.busy++
			return user, a, true
		}
	}
	return "", featureAnswer{}, false
}

// done ends what take began.
func (c *featureChanges) done() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy--
}

// put keeps an answer until a time, unless there is a newer one.
func (c *featureChanges) put(user string, a featureAnswer, due time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if newer, ok := c.pending[user]; ok {
		a = newer
	}
	a.due = due
	c.pending[user] = a
}

// RecordFeatureChanges writes, until ctx ends, an event for each answer of another system about a user's features that
// suspends or restores scopes of its live tokens. Servers on one store write it once together. report, which may be
// nil, gets failures, after which it is tried again.
func (s *Service) RecordFeatureChanges(ctx context.Context, report func(error)) {
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		wait := featureChangeRetry
		if user, a, ok := s.featureChanges.take(s.Now()); ok {
			wrote, err := s.recordFeatureChange(ctx, user, a)
			switch {
			case err != nil:
				s.featureChanges.put(user, a, s.Now().Add(featureChangeRetry))
				if report != nil && ctx.Err() == nil {
					report(fmt.Errorf("record a change of features: %w", err))
				}
			case wrote:
				wait = featureChangePause
			default:
				wait = 0
			}
			s.featureChanges.done()
		}
		again.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		case <-s.featureChanges.woken(wait):
		}
	}
}

// woken returns a channel on which a new answer is announced; nil where the wait is a pause.
func (c *featureChanges) woken(wait time.Duration) <-chan struct{} {
	if wait < featureChangeRetry {
		return nil
	}
	return c.wake
}

// recordFeatureChange compares an answer with what was in effect before, and writes an event if that differs.
func (s *Service) recordFeatureChange(ctx context.Context, user string, a featureAnswer) (wrote bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, featureChangeTimeout)
	defer cancel()
	var d featureDifference
	now := s.Now()
	err = s.store.View(ctx, func(tx ReadTx) error {
		d, err = a.compare(tx, user, now)
		return err
	})
	if err != nil || d.none() {
		return false, err
	}
	if !d.before.AskTime.IsZero() && now.Before(d.before.AskTime.Add(featureChangeEvery)) {
		s.featureChanges.put(user, a, now.Add(featureChangeEvery))
		return false, nil
	}
	// This server has the answer that the event tells of: it need not ask again when it receives the event's entry.
	withdraw := s.refreshes.expectOwn(user, s.features)
	err = s.ledger.carryOn(ctx, func(tx Tx, now time.Time) ([]Event, error) {
		wrote = false
		d, err := a.compare(tx, user, now)
		if err != nil || d.none() {
			return nil, err
		}
		if err := tx.PutSuspendedScopes(d.userKey, SuspendedScopes{Scopes: d.suspended, AskTime: a.asked}); err != nil {
			return nil, fmt.Errorf("write suspended scopes: %w", err)
		}
		wrote = true
		return []Event{{
			Time: now, Actor: actorSource, Action: ActionUserFeatures, User: user, Outcome: OutcomeSuccess,
			Detail: fmt.Sprintf("%s (%d tokens)", difference(d.lost, d.restored), d.tokens),
		}}, nil
	})
	if err != nil || !wrote {
		withdraw()
	}
	return wrote, err
}

// actorSource is the actor of what a source of features brought about.
const actorSource = "source"

// featureDifference is what an answer changes in a user's live tokens.
type featureDifference struct {
	userKey        int64
	before         SuspendedScopes
	suspended      []string // now
	lost, restored []string // sorted
	tokens         int      // that have any of them
}

func (d *featureDifference) none() bool { return len(d.lost)+len(d.restored) == 0 }

// compare finds out what an answer changes. An answer that is older than the one before changes nothing.
func (a featureAnswer) compare(tx ReadTx, user string, now time.Time) (d featureDifference, err error) {
	u, err := tx.User(user)
	switch {
	case errors.Is(err, ErrNotFound):
		return d, nil
	case toEnd(err) != nil:
		return d, fmt.Errorf("read user: %w", err)
	}
	if d.before, err = tx.SuspendedScopes(u.Key); err != nil {
		return d, fmt.Errorf("read suspended scopes: %w", err)
	}
	if a.asked.Before(d.before.AskTime) {
		return d, nil
	}
	live, err := liveScopes(tx, u.Key, now)
	if err != nil {
		return d, err
	}
	var granted []string
	for _, scopes := range live {
		granted = append(granted, scopes...)
	}
	granted = set(granted)
	d.userKey = u.Key
	_, d.suspended = Effective(granted, a.features)
	_, d.lost = Effective(d.suspended, d.before.Scopes)
	effective, _ := Effective(granted, a.features)
	d.restored, _ = Effective(d.before.Scopes, effective)
	for _, scopes := range live {
		lost, _ := Effective(d.lost, scopes)
		restored, _ := Effective(d.restored, scopes)
		if len(lost)+len(restored) > 0 {
			d.tokens++
		}
	}
	return d, nil
}

// liveScopes returns the scopes of each of a user's tokens that are neither revoked nor expired at now.
func liveScopes(tx ReadTx, userKey int64, now time.Time) ([][]string, error) {
	var all [][]string
	for q := (GrantedQuery{User: userKey, Now: now, Limit: MaxPageSize}); len(all) < maxFeatureTokens; {
		batch, err := tx.Granted(q)
		if err != nil {
			return nil, fmt.Errorf("read a user's tokens: %w", err)
		}
		for _, t := range batch {
			all = append(all, t.Scopes)
		}
		if len(batch) < q.Limit {
			break
		}
		q.AfterUser, q.AfterID = batch[len(batch)-1].UserKey, batch[len(batch)-1].ID
	}
	return all, nil
}
