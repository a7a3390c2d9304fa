package tokens

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"patd/tokens/secret"
)

// FoundSecret is a live secret that was presented to be revoked.
type FoundSecret struct {
	// TokenID is the personal access token or service that the secret is of, or came of.
	TokenID ID
	id      ID // of the secret's own kind
	revoke  func(ctx context.Context, a Actor, reason string) error
}

// Revoke revokes what the secret belongs to (RFC 7009), for any holder: the personal access token, the access token, or
// the refresh token's whole family with its access tokens. An unauthenticated caller is recorded as the secret's
// holder. It returns nil if the secret has ended meanwhile, and an error if the revocation could not be stored.
func (f FoundSecret) Revoke(ctx context.Context, a Actor) error {
	if a.Kind == Nobody {
		a = holder("", f.id, a.Peer)
	}
	return f.revoke(ctx, a, "presented for revocation")
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
		return FoundSecret{}, Invalid("REVOCATION_UNSUPPORTED", "token", "a service's token is ended by who manages services, or when it is reported as a leak")
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

// ReportLeaks revokes what each live secret in up to 1000 strings belongs to, services too, with the reason LEAKED. A
// string may hold other text around a secret. If one could not be revoked, the error is returned after the others were.
//
// Reasons: LEAKS_TOO_MANY, and outages.
func (s *Service) ReportLeaks(ctx context.Context, a Actor, secrets []Secret) error {
	if len(secrets) > MaxLeaks {
		return Invalid("LEAKS_TOO_MANY", "secrets", fmt.Sprintf("at most %d in a report", MaxLeaks))
	}
	var failed error
	for _, text := range secrets {
		for found := range strings.FieldsFuncSeq(text.Reveal(), between) {
			if err := s.endLeaked(ctx, a, secret.NewSecret(found)); err != nil && failed == nil {
				failed = fmt.Errorf("end a leaked secret: %w", err)
			}
		}
	}
	return failed
}

// between reports whether r is a character that occurs in no secret.
func between(r rune) bool {
	return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
}

func (s *Service) endLeaked(ctx context.Context, a Actor, text Secret) error {
	kind, id, err := s.prefixes.Load().Parse(text)
	if err != nil {
		return nil //nolint:nilerr // it is no token, which is an answer
	}
	f, err := s.findLive(ctx, kind, id, text)
	if errors.Is(err, ErrNotFound) || err == nil && f.revoke == nil {
		return nil
	}
	if err != nil {
		return err
	}
	a.presented = a.presented || a.Kind == Nobody
	return f.revoke(ctx, a, "LEAKED")
}

// findLive returns what a secret belongs to, or ErrNotFound for a wrong one. It has no revoke if the secret is right but
// has ended.
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
	if err := s.present(ctx, text, id, &p); err != nil {
		return FoundSecret{}, err
	}
	f := FoundSecret{TokenID: id, id: id}
	switch {
	case p.facts.Match == MatchNone:
		return FoundSecret{}, ErrNotFound
	case p.facts.Match != MatchLive || p.facts.Revoked || p.facts.Expired:
		return f, nil
	}
	f.revoke = func(ctx context.Context, a Actor, reason string) error {
		_, err := s.revoke(ctx, a, reason, func(tx ReadTx, now time.Time) (Token, error) {
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
	f := FoundSecret{TokenID: c.Access.TokenID, id: id}
	if c.Access.status(now) != StateActive {
		return f, nil
	}
	f.revoke = func(ctx context.Context, a Actor, reason string) error {
		return s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
			done, err := tx.RevokeAccess(id, Revocation{Time: now, By: a.String(), Reason: reason})
			if err != nil {
				return nil, fmt.Errorf("revoke access token %s: %w", id, err)
			}
			if !done {
				return nil, nil
			}
			return endEvent(tx, a, ActionAccessRevoke, c.Access.TokenID, now, "access "+id.String(), reason)
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
	f := FoundSecret{TokenID: rt.Family.TokenID, id: id}
	if rt.Family.status(now) != StateActive {
		return f, nil
	}
	f.revoke = func(ctx context.Context, a Actor, reason string) error { return s.endFamily(ctx, a, rt.Family, reason) }
	return f, nil
}

func (s *Service) findService(ctx context.Context, text Secret, id ID) (FoundSecret, error) {
	var p presentedService
	if err := s.presentService(ctx, text, id, s.Now(), &p); err != nil {
		return FoundSecret{}, err
	}
	if !p.matched {
		return FoundSecret{}, ErrNotFound
	}
	f := FoundSecret{TokenID: id, id: id}
	if !p.live {
		return f, nil
	}
	f.revoke = func(ctx context.Context, a Actor, reason string) error {
		return s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
			// Live services have unique names: if another service has the name by now, this one has ended.
			v, err := tx.Service(p.cred.Service.Name)
			if errors.Is(err, ErrNotFound) || err == nil && (v.ID != id || !v.accepts(p.secret.Serial, now)) {
				return nil, nil
			}
			if err != nil {
				return nil, fmt.Errorf("read service: %w", err)
			}
			_, events, err := revokeAccount(tx, a, v, now, reason)
			return events, err
		})
	}
	return f, nil
}
