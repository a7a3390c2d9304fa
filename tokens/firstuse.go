package tokens

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// firstUseWait is how long an introspection waits until the first use of a secret is on disk. A store that takes
	// longer, or takes no changes, does not hold up introspection.
	firstUseWait = time.Second
	// firstUseRetry is how long after a failure the next use is not recorded either.
	firstUseRetry = time.Second
	// maxFirstUses bounds the tokens whose failures are remembered.
	maxFirstUses = 10_000
)

// firstUses records the first use of a new secret while the previous one is still accepted. Tokens that are not in a
// rotation never come here.
//
// It is a change like any other, before the answer: so a rotation whose new secret was used is not canceled, and the
// previous secret of one that ends it on the first use works nowhere for longer than after a revocation. A second use
// finds the record in the store's cache.
type firstUses struct {
	mu    sync.Mutex
	until map[ID]time.Time // when a failed record is tried again
}

// failed reports whether recording failed for a token a moment ago.
func (f *firstUses) failed(id ID, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, ok := f.until[id]
	if ok && !now.Before(at) {
		delete(f.until, id)
		return false
	}
	return ok
}

func (f *firstUses) fail(id ID, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.until == nil || len(f.until) >= maxFirstUses {
		f.until = make(map[ID]time.Time)
	}
	f.until[id] = now.Add(firstUseRetry)
}

// errDecided says that another decision applies than the one that led to a first use.
var errDecided = errors.New("the token has changed since it was decided about")

// recordFirstUse records that the secret with a serial is in use, after an ALLOW result. If the store does not take the
// change, the result stands, but must not be cached: the next use is tried again. If the token has changed meanwhile so
// that the result does not stand, the present decision replaces it.
func (s *Service) recordFirstUse(ctx context.Context, a *Actor, serial int64, in *Introspection) {
	id, now := in.Token.ID, s.Now()
	if s.firstUses.failed(id, now) {
		return
	}
	wait, cancel := context.WithTimeout(ctx, firstUseWait)
	defer cancel()
	d := Allow
	err := s.ledger.do(wait, *a, func(tx Tx, now time.Time) (_ []Event, err error) {
		c, err := tx.Credential(id)
		if err != nil {
			return nil, fmt.Errorf("read token %s: %w", id, err)
		}
		f := c.FactsAt(now)
		f.AudienceOK, f.IPOK, f.ScopesOK, f.Match = true, true, true, MatchSuperseded
		if _, inForce := c.secretOf(serial, now); inForce {
			f.Match = MatchLive
		}
		if d = Decide(f); d != Allow {
			return nil, errDecided
		}
		return useSecret(tx, *a, c, serial, now)
	})
	switch {
	case errors.Is(err, errDecided):
		*in = Introspection{Decision: d}
	case err != nil:
		s.firstUses.fail(id, now)
	}
}

// useSecret records the first use of the secret with a serial inside a transaction, and returns the event of it; none
// if it is not the current one, or was used before, or no other one is accepted.
func useSecret(tx Tx, a Actor, c Credential, serial int64, now time.Time) ([]Event, error) {
	if !c.awaitsUse(now) || c.Secrets[0].Serial != serial {
		return nil, nil
	}
	done, err := tx.UseSecret(c.Token.ID, serial, now)
	if err != nil || !done {
		return nil, err
	}
	t, err := tx.Token(c.Token.ID)
	if err != nil {
		return nil, fmt.Errorf("read token %s: %w", c.Token.ID, err)
	}
	e := a.event(now, ActionTokenFirstUse)
	e.User, e.TokenID, e.Detail = t.User, t.ID, "previous secret ended"
	if t.Rotation.inProgress(now) {
		e.Detail = "previous secret until " + t.Rotation.PreviousUntil.Format(time.RFC3339)
	}
	return []Event{e}, nil
}
