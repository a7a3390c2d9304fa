package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"

	"patd/tokens/secret"
)

// FoundSecret is a live secret that was presented to be revoked.
type FoundSecret struct {
	// TokenID is the personal access token or service that the secret is of, or came of.
	TokenID ID
	id      ID // of the secret's own kind
	what    string
	granted []string // the scopes of an access token or a family, and the permissions of a service; nil: the token's
	service string   // the name of a service
	revoke  func(ctx context.Context, a Actor, e ending) error
}

// ending is why a secret that was presented is ended.
type ending struct {
	reason string
	// note returns the events that come before that of the revocation, in its transaction; nil: none.
	note func(tx ReadTx, now time.Time) ([]Event, error)
}

// with puts the events of a revocation, if there are any, after those of its note.
func (e ending) with(tx ReadTx, now time.Time, events []Event) ([]Event, error) {
	if e.note == nil || len(events) == 0 {
		return events, nil
	}
	before, err := e.note(tx, now)
	return append(before, events...), err
}

// Revoke revokes what the secret belongs to (RFC 7009), for any holder: the personal access token, the access token, or
// the refresh token's whole family with its access tokens. An unauthenticated caller is recorded as the secret's
// holder. It returns nil if the secret has ended meanwhile, and an error if the revocation could not be stored.
func (f FoundSecret) Revoke(ctx context.Context, a Actor) error {
	if a.Kind == Nobody {
		a = holder("", f.id, a.Peer)
	}
	return f.revoke(ctx, a, ending{reason: "presented for revocation"})
}

// FindSecret returns what a presented secret belongs to. It changes nothing, so that a caller can be limited between
// finding and revoking. Any refresh token of a live family counts as live.
//
// Reasons: CREDENTIAL_INVALID for whatever is no live secret, with an EndedError as its cause if the secret is right;
// REVOCATION_UNSUPPORTED for a secret of a service's form, live or not, since only administrators revoke services; and
// outages.
func (s *Service) FindSecret(ctx context.Context, text Secret) (FoundSecret, error) {
	kind, id, err := s.prefixes.Load().Parse(text)
	if err != nil {
		return FoundSecret{}, secretInvalid(CodeInvalid)
	}
	if kind == secret.KindService {
		return FoundSecret{}, Invalid(
			"REVOCATION_UNSUPPORTED",
			"token",
			"a service's token is ended by who manages services, or when it is reported as a leak",
		)
	}
	f, err := s.findLive(ctx, kind, id, text)
	switch {
	case errors.Is(err, ErrNotFound):
		return f, because(secretInvalid(CodeInvalid), ErrUnknownCredential)
	case err == nil && f.revoke == nil:
		return f, because(secretInvalid(CodeInvalid), &EndedError{Holder: holder("", f.TokenID, Peer{})})
	}
	return f, err
}

// findLive returns what a secret belongs to, or ErrNotFound for a wrong one. It has no revoke if the secret is right
// but has ended.
func (s *Service) findLive(ctx context.Context, kind secret.Kind, id ID, text Secret) (FoundSecret, error) {
	switch kind {
	case secret.KindPersonal:
		return s.findPersonal(ctx, text, id)
	case secret.KindAccess:
		return s.findAccess(ctx, text, id)
	case secret.KindRefresh:
		return s.findRefresh(ctx, text, id)
	case secret.KindService:
		return s.findService(ctx, text, id)
	}
	return FoundSecret{}, ErrNotFound
}

// findPersonal finds a token even if its user is suspended or it is blocked: both can be undone.
func (s *Service) findPersonal(ctx context.Context, text Secret, id ID) (FoundSecret, error) {
	p := presented{from: presenter{ends: true}}
	at := s.moment()
	if err := s.present(ctx, text, id, &at, &p); err != nil {
		return FoundSecret{}, err
	}
	f := FoundSecret{TokenID: id, id: id, what: "token"}
	switch {
	case p.facts.Match == MatchNone:
		return FoundSecret{}, ErrNotFound
	case p.facts.Match != MatchLive || p.facts.Revoked || p.facts.Expired:
		return f, nil
	}
	f.revoke = func(ctx context.Context, a Actor, e ending) error {
		_, err := s.revoke(ctx, a, e, func(tx ReadTx, now time.Time) (Token, error) {
			c, err := tx.Credential(id)
			if err != nil {
				return Token{}, err
			}
			if _, inForce := c.secretOf(p.secret.Serial, now); !inForce {
				return Token{}, errUnchanged // rotated away since: the secret is not live
			}
			return tx.Token(id)
		})
		if errors.Is(err, errUnchanged) {
			err = nil
		}
		return err
	}
	return f, nil
}

func (s *Service) findAccess(ctx context.Context, text Secret, id ID) (FoundSecret, error) {
	now := s.Now()
	c, err := s.knownAccess(ctx, text, id, now)
	if err != nil {
		return FoundSecret{}, err
	}
	f := FoundSecret{TokenID: c.Access.TokenID, id: id, what: "access token", granted: c.Access.Scopes}
	if c.Access.status(now) != StateActive {
		return f, nil
	}
	f.revoke = func(ctx context.Context, a Actor, e ending) error {
		return s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
			done, err := tx.RevokeAccess(id, Revocation{Time: now, By: a.String(), Reason: e.reason})
			if err != nil {
				return nil, fmt.Errorf("revoke access token %s: %w", id, err)
			}
			if !done {
				return nil, nil
			}
			events, err := endEvent(tx, a, ActionAccessRevoke, c.Access.TokenID, now, "access "+id.String(), e.reason)
			if err != nil {
				return nil, err
			}
			return e.with(tx, now, events)
		})
	}
	return f, nil
}

func (s *Service) findRefresh(ctx context.Context, text Secret, id ID) (FoundSecret, error) {
	now := s.Now()
	rt, err := s.knownRefresh(ctx, text, now)
	if err != nil {
		return FoundSecret{}, err
	}
	f := FoundSecret{TokenID: rt.Family.TokenID, id: id, what: "refresh token", granted: rt.Family.Scopes}
	if rt.Family.status(now) != StateActive {
		return f, nil
	}
	f.revoke = func(ctx context.Context, a Actor, e ending) error { return s.endFamily(ctx, a, rt.Family, e) }
	return f, nil
}

func (s *Service) findService(ctx context.Context, text Secret, id ID) (FoundSecret, error) {
	var p presentedService
	at := s.moment()
	if err := s.presentService(ctx, text, id, &at, &p); err != nil {
		return FoundSecret{}, err
	}
	if !p.matched {
		return FoundSecret{}, ErrNotFound
	}
	v := p.cred.Service
	f := FoundSecret{TokenID: id, id: id, what: "service", granted: v.Permissions.Names(), service: v.Name}
	if !p.live {
		return f, nil
	}
	f.revoke = func(ctx context.Context, a Actor, e ending) error {
		return s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
			// Live services have unique names: if another service has the name by now, this one has ended.
			v, err := tx.Service(v.Name)
			if errors.Is(err, ErrNotFound) || err == nil && (v.ID != id || !v.accepts(p.secret.Serial, now)) {
				return nil, nil
			}
			if err != nil {
				return nil, fmt.Errorf("read service: %w", err)
			}
			_, events, err := revokeAccount(tx, a, v, now, e.reason)
			if err != nil {
				return nil, err
			}
			return e.with(tx, now, events)
		})
	}
	return f, nil
}
