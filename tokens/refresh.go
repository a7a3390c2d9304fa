package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"

	"patd/tokens/secret"
)

func grantInvalid() *Error {
	return Invalid("GRANT_INVALID", "refresh_token", "the refresh token is not valid")
}

// Refresh exchanges a refresh token for the next one and an access token. A used token that is presented again has
// leaked (RFC 9700 section 4.14.2): its family is revoked, access tokens included. This also holds for two calls at
// once with the same token: the second presents a used one.
//
// Reasons: GRANT_INVALID for any fault of the token, its client or its origin, SCOPE_INVALID, TARGET_INVALID,
// ACCESS_LIMIT_REACHED, and outages. None of them uses the token up.
func (s *Service) Refresh(ctx context.Context, r RefreshRequest) (Granted, error) {
	now := s.Now()
	rt, err := s.knownRefresh(ctx, r.Token, now)
	if errors.Is(err, ErrNotFound) {
		return Granted{}, because(grantInvalid(), ErrUnknownCredential)
	}
	if err != nil {
		return Granted{}, err
	}
	if rt.Family.status(now) != StateActive {
		return Granted{}, because(grantInvalid(), &EndedError{Holder: holder("", rt.ID, r.Peer)})
	}
	if !rt.UseTime.IsZero() {
		// This precedes the check of the client: a thief need not know the right one.
		if err := s.endFamily(ctx, holder("", rt.ID, r.Peer), rt.Family, ending{reason: reasonReused}); err != nil {
			return Granted{}, err
		}
		return Granted{}, because(grantInvalid(), &EndedError{Holder: holder("", rt.ID, r.Peer)})
	}
	if !rt.Family.Client.presents(r.Client) {
		return Granted{}, because(grantInvalid(), &EndedError{Holder: holder("", rt.ID, r.Peer)})
	}
	p, err := s.origin(ctx, rt.Family, now)
	if err != nil {
		return Granted{}, err
	}
	if d := p.decidedFrom(r.Peer); d != Allow {
		return Granted{}, s.grantEnded(&p, d, rt, r.Peer)
	}
	if r.Admit != nil {
		if err := r.Admit(ctx, holder(p.cred.Token.User, p.cred.Token.ID, r.Peer)); err != nil {
			return Granted{}, err
		}
	}
	a := holder(p.cred.Token.User, rt.ID, r.Peer)
	g, err := s.refresh(ctx, a, p, rt, r)
	if err != nil {
		return Granted{}, s.refusedGrant(ctx, a, ActionTokenRefresh, p.cred.Token, err)
	}
	use := Usage{ID: p.cred.Token.ID, Use: Use{Time: now, IP: r.Peer.IP.Unmap().WithZone("")}}
	if g.Format == AccessJWT {
		use.Scopes = g.Scopes // a JWT is not introspected
	}
	s.store.RecordUse(use)
	return g, nil
}

// grantEnded returns the error for a genuine refresh token whose personal access token is not active.
func (s *Service) grantEnded(p *presented, d Decision, rt RefreshToken, peer Peer) *Error {
	invalid := grantInvalid()
	if d == NotFound { // there is no record of it any more
		return because(invalid, &EndedError{Holder: holder("", rt.ID, peer)})
	}
	ended := s.ended(p, d)
	invalid.Message, invalid.Metadata = ended.Refusal.Text(), ended.Refusal.Metadata()
	return because(invalid, ended)
}

const reasonReused = "refresh token reused"

// presents reports whether caller is the client that a family is bound to.
func (c Client) presents(caller Client) bool {
	return (c.ID == "" || c.ID == caller.ID) && (!c.Authenticated || caller.Authenticated)
}

// knownRefresh returns the refresh token of a secret, or ErrNotFound. A digest under a retiring key is replaced.
func (s *Service) knownRefresh(ctx context.Context, text Secret, now time.Time) (RefreshToken, error) {
	kind, id, err := s.prefixes.Load().Parse(text)
	if err != nil || kind != secret.KindRefresh {
		return RefreshToken{}, ErrNotFound
	}
	keys := s.keys.Get()
	var rt RefreshToken
	err = s.store.View(ctx, func(tx ReadTx) error {
		rt, err = tx.RefreshToken(id)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		_, _ = keys.Match(text, Hash{Key: keys.Current()}) // takes as long as a wrong secret
	}
	if err != nil {
		return RefreshToken{}, err
	}
	// A used token under a key that is gone is skipped: its reuse cannot be proven then, and it is rejected.
	live := rt.UseTime.IsZero() && rt.Family.status(now) == StateActive
	ok, err := s.matches(keys, text, rt.Hash, live)
	if err != nil {
		return RefreshToken{}, err
	}
	if !ok {
		return RefreshToken{}, ErrNotFound
	}
	if r := rekey(keys, text, rt.Hash); r != nil {
		s.store.RecordUse(Usage{ID: id, Kind: secret.KindRefresh, Rekey: r})
	}
	return rt, nil
}

// origin looks up the personal access token of a family. It must be active, and the family's secret in force.
func (s *Service) origin(ctx context.Context, f Family, now time.Time) (presented, error) {
	c, err := s.store.Lookup(ctx, f.TokenID)
	if errors.Is(err, ErrNotFound) {
		return presented{now: now}, nil
	}
	if err != nil {
		return presented{}, err
	}
	return presentedBy(c, f.Serial, now), nil
}

// refresh decides twice, as exchange does.
func (s *Service) refresh(
	ctx context.Context,
	a Actor,
	p presented,
	rt RefreshToken,
	r RefreshRequest,
) (Granted, error) {
	ask, keys := asked{r.Audiences, r.Resources}, s.keys.Get()
	first, err := s.target(ctx, ask, rt.Family.bounds(p.cred.Token))
	if err != nil {
		return Granted{}, err
	}
	if !first.offline {
		return Granted{}, grantInvalid() // an audience no longer allows it
	}
	held, err := s.heldBy(ctx, p.cred.User, first)
	if err != nil {
		return Granted{}, err
	}
	if _, err := s.narrowed(r.Scopes, held.of(rt.Family.scopes(p.cred.Token))); err != nil {
		return Granted{}, err
	}
	var g Granted
	reused := false
	err = s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		g, reused = Granted{}, false
		if err := r.Caller.mayStillAsk(tx, now); err != nil {
			return nil, err
		}
		read, err := tx.RefreshToken(rt.ID)
		switch {
		case errors.Is(err, ErrNotFound) || err == nil && read.Family.status(now) != StateActive:
			return nil, grantInvalid()
		case err != nil:
			return nil, fmt.Errorf("read refresh token: %w", err)
		case !read.UseTime.IsZero(): // used by another call after it was read
			reused = true
			return revokeFamily(tx, a, read.Family, now, reasonReused)
		}
		f := read.Family
		p, err := p.again(tx, now)
		if err != nil {
			return nil, err
		}
		if d := p.decidedFrom(r.Peer); d != Allow {
			return nil, s.grantEnded(&p, d, rt, r.Peer)
		}
		o := offer{cred: p.cred, secret: p.secret, client: f.Client, family: &f, now: now}
		if o.target, err = s.targetIn(tx, ask, f.bounds(p.cred.Token)); err != nil {
			return nil, err
		}
		if !o.target.offline {
			return nil, grantInvalid()
		}
		if o.scopes, err = s.scopesFor(ctx, o, f.scopes(p.cred.Token), r.Scopes, held); err != nil {
			return nil, err
		}
		if err := tx.UseRefresh(rt.ID, now); err != nil {
			return nil, fmt.Errorf("use refresh token: %w", err)
		}
		if g.Refresh, err = s.nextRefresh(tx, keys, f, now); err != nil {
			return nil, err
		}
		detail, err := s.grant(tx, keys, o, &g)
		if err != nil {
			return nil, err
		}
		e := a.event(now, ActionTokenRefresh)
		e.User, e.TokenID, e.Detail = p.cred.Token.User, f.TokenID, detail
		return []Event{e}, nil
	})
	if err == nil && reused {
		err = grantInvalid()
	}
	return g, err
}

// endFamily revokes a family that is not revoked yet. Idempotent.
func (s *Service) endFamily(ctx context.Context, a Actor, f Family, e ending) error {
	return s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		events, err := revokeFamily(tx, a, f, now, e.reason)
		if err != nil {
			return nil, err
		}
		return e.with(tx, now, events)
	})
}

// revokeFamily revokes a family with its access tokens, inside a transaction.
func revokeFamily(tx Tx, a Actor, f Family, now time.Time, reason string) ([]Event, error) {
	done, err := tx.RevokeFamily(f.ID, Revocation{Time: now, By: a.String(), Reason: reason})
	if err != nil {
		return nil, fmt.Errorf("revoke family %s: %w", f.ID, err)
	}
	if !done {
		return nil, nil
	}
	return endEvent(tx, a, ActionFamilyRevoke, f.TokenID, now, "family "+f.ID.String(), reason)
}

// endEvent returns the event for the revocation of an access token or a family.
func endEvent(tx ReadTx, a Actor, action Action, token ID, now time.Time, what, reason string) ([]Event, error) {
	t, err := tx.Token(token)
	if toEnd(err) != nil {
		return nil, fmt.Errorf("read token %s: %w", token, err)
	}
	e := a.event(now, action)
	e.User, e.TokenID, e.Detail = t.User, token, what+": "+reason
	return []Event{e}, nil
}
