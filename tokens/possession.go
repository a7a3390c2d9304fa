package tokens

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"patd/tokens/secret"
)

// ending says why a secret is ended, and how.
type ending struct {
	reason   string
	services bool // a service's too
	byHolder bool // recorded as by whoever holds the secret, where the caller is nobody
}

// RevokeSecret ends what a secret is of (RFC 7009), for whoever has it: the personal access token, the access token, or the
// refresh token's whole family with its access tokens. It returns nil for what is no live secret; any refresh token of a live
// family counts as live. That the end could not be stored is an error.
//
// Reasons: REVOCATION_UNSUPPORTED for what has the form of a service's, live or not, since only administrators end those; and
// outages.
func (s *Service) RevokeSecret(ctx context.Context, a Actor, secret Secret) error {
	return s.end(ctx, a, secret, ending{reason: "presented for revocation", byHolder: true})
}

// ReportLeaks ends what each live secret in up to 1000 strings is of, services too, with the reason LEAKED. A string may hold
// other text around a secret. That one could not be ended is an error, once the others were.
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

// between reports whether r is a character that no secret has.
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

// endPersonal ends a token whose user may be suspended, and which may be blocked: both can be undone.
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
			return Token{}, errUnchanged // rotated away since: it is no live secret
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
	c, live, err := s.knownService(ctx, secret, id, now)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil || !live {
		return err
	}
	return s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		// A name is one live service's: where it is another's by now, this one has ended.
		v, err := tx.Service(c.Service.Name)
		if errors.Is(err, ErrNotFound) || err == nil && (v.ID != id || v.Revocation != nil) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read service: %w", err)
		}
		_, events, err := revokeAccount(tx, a, v, now, reason)
		return events, err
	})
}
