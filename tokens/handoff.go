package tokens

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"
)

// Lifetimes of hand-offs.
const (
	defaultHandoffTTL = time.Minute
	minHandedTTL      = time.Minute
	defaultHandedTTL  = time.Hour
	maxReturnURL      = 2000 // bytes
)

// Handoff lets one browser sign in as a user whom the company's own product has signed in. Its code is good once.
type Handoff struct {
	User              string
	Service           string // that made it
	ReturnURL         string // empty: none
	ExpireTime        time.Time
	SessionExpireTime time.Time
}

// HandoffRequest asks for a hand-off.
type HandoffRequest struct {
	User      string
	TTL       *time.Duration // of the session, 1 min to 12 h; nil: 1 h
	ReturnURL string         // where the user goes when the session ends; empty: nowhere
}

// HandOff makes a hand-off of a user, and returns its code.
//
// Reasons: SESSION_TTL_OUT_OF_RANGE, RETURN_URL_NOT_ALLOWED, USER_SUSPENDED, those of a malformed user, and outages.
func (s *Service) HandOff(ctx context.Context, a Actor, r HandoffRequest) (Handoff, Secret, error) {
	h, code, err := s.handOff(ctx, a, r)
	if err != nil {
		return Handoff{}, Secret{}, s.refused(ctx, a, Refusal{Action: ActionSessionHandoff, User: r.User}, err)
	}
	return h, code, nil
}

func (s *Service) handOff(ctx context.Context, a Actor, r HandoffRequest) (Handoff, Secret, error) {
	if a.person() {
		return Handoff{}, Secret{}, errActsAsUser
	}
	if err := s.manager(a); err != nil {
		return Handoff{}, Secret{}, err
	}
	ttl := defaultHandedTTL
	if r.TTL != nil {
		ttl = *r.TTL
	}
	var c checker
	c.newUser(r.User)
	if ttl < minHandedTTL || ttl > PageSessionMax {
		c.add("ttl", "SESSION_TTL_OUT_OF_RANGE", "must be from 60s to 12h")
	}
	if r.ReturnURL != "" && !s.returnsTo(r.ReturnURL) {
		c.add(
			"return_url",
			"RETURN_URL_NOT_ALLOWED",
			"must be a URL of one of the server's --page-origins, without a user and at most 2000 bytes",
		)
	}
	if err := c.err(); err != nil {
		return Handoff{}, Secret{}, err
	}
	code, err := s.newPageSecret()
	if err != nil {
		return Handoff{}, Secret{}, err
	}
	var h Handoff
	err = s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		if err := (Actor{User: r.User}).userStands(tx); err != nil {
			return nil, err
		}
		h = Handoff{
			User:              r.User,
			Service:           cmp.Or(a.Name, a.String()),
			ReturnURL:         r.ReturnURL,
			ExpireTime:        now.Add(s.handoffTTL),
			SessionExpireTime: now.Add(ttl),
		}
		if err := tx.InsertHandoff(s.sessionKeys("handoff", code)[0], h); err != nil {
			return nil, fmt.Errorf("add a hand-off: %w", err)
		}
		e := a.event(now, ActionSessionHandoff)
		e.User = r.User
		return []Event{e}, nil
	})
	return h, code, err
}

// returnsTo reports whether a URL is of one of the origins that a hand-off may return to.
func (s *Service) returnsTo(text string) bool {
	u, err := url.Parse(text)
	if err != nil || len(text) > maxReturnURL || u.User != nil || u.Opaque != "" || u.Host == "" {
		return false
	}
	for i := range len(text) {
		if text[i] <= ' ' || text[i] > '~' || text[i] == '\\' {
			return false // a browser might read it as another URL
		}
	}
	return slices.Contains(s.returnOrigins, u.Scheme+"://"+u.Host)
}

// TakeHandoff makes the session of a hand-off, whose code is good once, and ends the one that the browser had. A code
// that is unknown, used or too old is CodeUnauthenticated, HANDOFF_INVALID. USER_SUSPENDED if the user is suspended.
func (s *Service) TakeHandoff(
	ctx context.Context,
	code Secret,
	peer Peer,
	agent string,
	replaces Secret,
) (SignedIn, error) {
	invalid := because(
		Fail(
			CodeUnauthenticated,
			"HANDOFF_INVALID",
			"this link was used already, or is too old; get a new one where you came from",
		),
		ErrUnknownCredential,
	)
	if !pageSecretForm(code) {
		return SignedIn{}, invalid
	}
	key, h, err := s.findHandoff(ctx, code)
	if errors.Is(err, ErrNotFound) {
		return SignedIn{}, invalid
	}
	if err != nil {
		return SignedIn{}, err
	}
	text, err := s.newPageSecret()
	if err != nil {
		return SignedIn{}, err
	}
	var in SignedIn
	user := Actor{Kind: UserActor, User: h.User, Peer: peer}
	err = s.ledger.do(ctx, user, func(tx Tx, now time.Time) ([]Event, error) {
		err := tx.UseHandoff(key, now)
		if errors.Is(err, ErrNotFound) {
			return nil, invalid // another request was first
		}
		if err != nil {
			return nil, fmt.Errorf("use a hand-off: %w", err)
		}
		v := PageSession{User: h.User, Service: h.Service, ReturnURL: h.ReturnURL, ExpireTime: h.SessionExpireTime}
		var events []Event
		in, events, err = s.beginSession(tx, user, v, text, agent, replaces, now)
		return events, err
	})
	if err != nil {
		return SignedIn{}, s.refused(ctx, user, Refusal{Action: ActionSessionCreate, User: h.User}, err)
	}
	return in, nil
}

func (s *Service) findHandoff(ctx context.Context, code Secret) (key SessionKey, h Handoff, err error) {
	now := s.Now()
	err = s.store.View(ctx, func(tx ReadTx) error {
		for _, key = range s.sessionKeys("handoff", code) {
			if h, err = tx.Handoff(key, now); !errors.Is(err, ErrNotFound) {
				return err
			}
		}
		return ErrNotFound
	})
	return key, h, err
}
