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

// Refresh uses a refresh token up for the next one and an access token. Whoever presents a used one shows that somebody
// has it who should not (RFC 9700 section 4.14.2): the family ends, access tokens included. Two calls at once with the same
// one are no different: the second presents a used one.
//
// Reasons: GRANT_INVALID for whatever is wrong with the token, its client or what it came of, SCOPE_INVALID, TARGET_INVALID,
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
		return Granted{}, endedOf(grantInvalid(), holder("", rt.ID, r.Peer))
	}
	if !rt.UseTime.IsZero() {
		// Before the client is looked at: a thief need not know which one it is.
		if err := s.endFamily(ctx, holder("", rt.ID, r.Peer), rt.Family, reasonReused); err != nil {
			return Granted{}, err
		}
		return Granted{}, endedOf(grantInvalid(), holder("", rt.ID, r.Peer))
	}
	if !rt.Family.Client.presents(r.Client) {
		return Granted{}, endedOf(grantInvalid(), holder("", rt.ID, r.Peer))
	}
	p, err := s.origin(ctx, rt.Family, now)
	if err != nil {
		return Granted{}, err
	}
	if !p.allowedFrom(r.Peer) {
		return Granted{}, endedOf(grantInvalid(), holder("", rt.ID, r.Peer))
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
	s.store.RecordUse(Usage{ID: p.cred.Token.ID, Use: Use{Time: now, IP: r.Peer.IP.Unmap().WithZone("")}})
	return g, nil
}

const reasonReused = "refresh token reused"

// presents reports whether a caller is the client that a family is bound to.
func (c Client) presents(caller Client) bool {
	return (c.ID == "" || c.ID == caller.ID) && (!c.Authenticated || caller.Authenticated)
}

// knownRefresh reads the refresh token that a secret is of. ErrNotFound: of none. A digest under a retiring key is made
// anew.
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
		_, _ = keys.Match(text, Hash{Key: keys.Current()}) // the cost of a wrong secret
	}
	if err != nil {
		return RefreshToken{}, err
	}
	// A used one under a key that is gone is passed over: that it is reused cannot be told then, and it is refused.
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

// origin looks up the personal access token of a family, which must stand, as must the secret that the family came of.
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
func (s *Service) refresh(ctx context.Context, a Actor, p presented, rt RefreshToken, r RefreshRequest) (Granted, error) {
	ask, keys := asked{r.Audiences, r.Resources}, s.keys.Get()
	first, err := s.target(ctx, ask, rt.Family.bounds(p.cred.Token))
	if err != nil {
		return Granted{}, err
	}
	if !first.offline {
		return Granted{}, grantInvalid() // an audience allows it no longer
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
		case !read.UseTime.IsZero(): // by another call, since it was read
			reused = true
			return revokeFamily(tx, a, read.Family, now, reasonReused)
		}
		f := read.Family
		p, err := p.again(tx, now)
		if err != nil {
			return nil, err
		}
		if !p.allowedFrom(r.Peer) {
			return nil, grantInvalid()
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
func (s *Service) endFamily(ctx context.Context, a Actor, f Family, reason string) error {
	return s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) { return revokeFamily(tx, a, f, now, reason) })
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

// endEvent is the event of the end of what came of a personal access token.
func endEvent(tx ReadTx, a Actor, action Action, token ID, now time.Time, what, reason string) ([]Event, error) {
	t, err := tx.Token(token)
	if err != nil {
		return nil, fmt.Errorf("read token %s: %w", token, err)
	}
	e := a.event(now, action)
	e.User, e.TokenID, e.Detail = t.User, token, what+": "+reason
	return []Event{e}, nil
}
