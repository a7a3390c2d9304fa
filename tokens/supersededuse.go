package tokens

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"patd/tokens/refusal"
)

const (
	// supersededEvery is how often the presentation of one superseded secret is recorded at most, by all servers.
	supersededEvery = time.Hour
	// supersededRetry is how long after a failure the next presentation is recorded.
	supersededRetry = time.Minute
	// maxSuperseded bounds the secrets that are remembered as presented, and supersededQueue those to be written.
	maxSuperseded   = 10_000
	supersededQueue = 256
	// supersededFlush bounds how long a stop waits for what is to be written.
	supersededFlush = 5 * time.Second
)

// supersededUses notes that secrets are presented that were rotated away, and writes that in the background. Only a
// secret that has matched comes here, so that a stranger causes no write, and its caller never waits for one.
type supersededUses struct {
	queue      chan supersededUse
	unrecorded atomic.Uint64

	mu   sync.Mutex
	next map[secretSerial]time.Time // when a presentation is recorded again
}

// secretSerial names one secret of a token.
type secretSerial struct {
	token  ID
	serial int64
}

// supersededUse is a presentation that is to be recorded.
type supersededUse struct {
	of    secretSerial
	event Event
}

// presenter says where a secret was presented, for the audit log. It holds no pointers, so that what it is made of need
// not be on the heap.
type presenter struct {
	ip   netip.Addr // of the bearer; invalid: not known
	to   string     // the name of the service that asks about the secret; empty: it was presented to patd itself
	ends bool       // the secret is presented to be ended, which is no use of it
}

// due reports whether a presentation is to be recorded, and that the next ones are not for a while.
func (u *supersededUses) due(of secretSerial, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	at, known := u.next[of]
	if known && now.Before(at) && at.Sub(now) <= supersededEvery {
		return false
	}
	if !known && len(u.next) >= maxSuperseded {
		for one, at := range u.next {
			if !now.Before(at) {
				delete(u.next, one)
			}
		}
		if len(u.next) >= maxSuperseded {
			u.unrecorded.Add(1)
			return false
		}
	}
	u.next[of] = now.Add(supersededEvery)
	return true
}

// postpone has the next presentation recorded after a while.
func (u *supersededUses) postpone(of secretSerial, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.next[of] = now.Add(supersededRetry)
	u.unrecorded.Add(1)
}

// noteSuperseded notes that the secret of p, which has matched, was presented although it was rotated away.
func (s *Service) noteSuperseded(p *presented) {
	of := secretSerial{p.cred.Token.ID, p.secret.Serial}
	if p.from.ends || !s.superseded.due(of, p.now) {
		return
	}
	bearer := Actor{Kind: TokenActor, TokenID: of.token, Peer: Peer{IP: p.from.ip.Unmap().WithZone("")}}
	e := bearer.event(p.now, ActionTokenSupersededUse)
	e.User, e.TokenID, e.Outcome, e.Reason = p.cred.Token.User, of.token, OutcomeRefused, refusal.Superseded
	e.Detail = fmt.Sprintf("secret %d of %d", of.serial+1, p.cred.Secrets[0].Serial+1)
	if until := p.cred.AcceptedUntil(&p.secret); !until.IsZero() {
		e.Detail += ", which stopped at " + until.Format(time.RFC3339)
	}
	if p.from.to != "" {
		e.Detail += ", presented to service:" + p.from.to
	}
	select {
	case s.superseded.queue <- supersededUse{of, e}:
	default:
		s.superseded.postpone(of, p.now)
	}
}

// RecordSupersededUses writes, until ctx ends, that superseded secrets were presented. report, which may be nil, gets
// failures, after which the next presentation of the secret is tried again.
func (s *Service) RecordSupersededUses(ctx context.Context, report func(error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case u := <-s.superseded.queue:
			s.recordSupersededUse(ctx, u, report)
		}
	}
}

// FlushSupersededUses writes what is noted and was not written when RecordSupersededUses ended. It takes 5 s at most.
func (s *Service) FlushSupersededUses(ctx context.Context, report func(error)) {
	ctx, cancel := context.WithTimeout(ctx, supersededFlush)
	defer cancel()
	for {
		select {
		case u := <-s.superseded.queue:
			s.recordSupersededUse(ctx, u, report)
		default:
			return
		}
	}
}

func (s *Service) recordSupersededUse(ctx context.Context, u supersededUse, report func(error)) {
	// A stop does not take away what was noted: the record is begun, and has a limit of its own.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), supersededFlush)
	defer cancel()
	at := u.event.Time
	err := s.ledger.carryOn(ctx, func(tx Tx, _ time.Time) ([]Event, error) {
		first, err := tx.PresentSuperseded(u.of.token, u.of.serial, at, supersededEvery)
		if err != nil || !first {
			return nil, err
		}
		return []Event{u.event}, nil
	})
	if err == nil || errors.Is(err, ErrNotFound) {
		return
	}
	s.superseded.postpone(u.of, at)
	if report != nil {
		report(fmt.Errorf("record that a superseded secret of token %s was presented: %w", u.of.token, err))
	}
}

// SupersededUsesUnrecorded counts presentations of superseded secrets that were due to be recorded and were not, since
// there were too many at once, or the store took no change.
func (s *Service) SupersededUsesUnrecorded() uint64 { return s.superseded.unrecorded.Load() }
