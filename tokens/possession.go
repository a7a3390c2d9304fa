package tokens

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"patd/tokens/secret"
)

// ending says why and how a secret is revoked.
type ending struct {
	reason   string
	services bool // also revokes services
	byHolder bool // an unauthenticated caller is recorded as the secret's holder
}

// RevokeSecret revokes what a secret belongs to (RFC 7009), for any holder: the personal access token, the access
// token, or the refresh token's whole family with its access tokens. It returns nil if the secret is not live; any
// refresh token of a live family counts as live. It returns an error if the revocation could not be stored.
//
// Reasons: REVOCATION_UNSUPPORTED for a secret of a service's form, live or not, since only administrators revoke
// services; and outages.
func (s *Service) RevokeSecret(ctx context.Context, a Actor, secret Secret) error {
	return s.end(ctx, a, secret, ending{reason: "presented for revocation", byHolder: true})
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
			if err := s.end(ctx, a, secret.NewSecret(found), ending{reason: "LEAKED", services: true}); err != nil && failed == nil {
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

func (s *Service) end(ctx context.Context, a Actor, text Secret, how ending) error {
	kind, id, err := s.prefixes.Load().Parse(text)
	if err != nil {
		return nil //nolint:nilerr // it is no token, which is an answer
	}
	if how.byHolder && a.Kind == Nobody {
		a = holder("", id, a.Peer)
	}
	a.presented = a.presented || a.Kind == Nobody
	switch kind {
	case secret.KindPersonal:
		return s.endPersonal(ctx, a, text, id, how.reason)
	case secret.KindAccess:
		return s.endAccess(ctx, a, text, id, how.reason)
	case secret.KindRefresh:
		return s.endRefresh(ctx, a, text, how.reason)
	case secret.KindService:
		if !how.services {
			return Invalid("REVOCATION_UNSUPPORTED", "token", "a service's token is ended by who manages services, or when it is reported as a leak")
		}
		return s.endService(ctx, a, text, id, how.reason)
	}
	return nil
}

// endPersonal revokes a token even if its user is suspended or it is blocked: both can be undone.
func (s *Service) endPersonal(ctx context.Context, a Actor, secret Secret, id ID, reason string) error {
	var p presented
	err := s.present(ctx, secret, id, &p)
	if err != nil || p.facts.Match != MatchLive || p.facts.Revoked || p.facts.Expired {
		return err
	}
	_, err = s.revoke(ctx, a, reason, func(tx ReadTx, now time.Time) (Token, error) {
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

func (s *Service) endAccess(ctx context.Context, a Actor, secret Secret, id ID, reason string) error {
	now := s.Now()
	c, err := s.knownAccess(ctx, secret, id, now)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil || c.Access.status(now) != StateActive {
		return err
	}
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

func (s *Service) endRefresh(ctx context.Context, a Actor, secret Secret, reason string) error {
	now := s.Now()
	rt, err := s.knownRefresh(ctx, secret, now)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil || rt.Family.status(now) != StateActive {
		return err
	}
	return s.endFamily(ctx, a, rt.Family, reason)
}

func (s *Service) endService(ctx context.Context, a Actor, secret Secret, id ID, reason string) error {
	now := s.Now()
	p, err := s.presentService(ctx, secret, id, now)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil || !p.live {
		return err
	}
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
