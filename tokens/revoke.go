package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Revoke revokes a token for good. A second call returns the first one's time, revoker and reason.
func (s *Service) Revoke(ctx context.Context, a Actor, user, id, reason string) (Token, error) {
	owner, err := s.owner(a, user)
	var t Token
	if err == nil {
		t, err = s.revoke(ctx, a, ending{reason: reason}, func(tx ReadTx, _ time.Time) (Token, error) {
			_, t, err := ownedToEnd(tx, owner, id)
			return t, toEnd(err)
		})
	}
	if err != nil {
		return Token{}, s.refused(ctx, a, Refusal{Action: ActionTokenRevoke, User: user, TokenID: id}, err)
	}
	return t, nil
}

// RevokeSelf revokes the presented token for good.
func (s *Service) RevokeSelf(ctx context.Context, a Actor, reason string) (Token, error) {
	if a.Kind != TokenActor {
		return Token{}, denied("only the bearer of a personal access token can do this")
	}
	return s.revoke(
		ctx,
		a,
		ending{reason: reason},
		func(tx ReadTx, _ time.Time) (Token, error) { return tx.Token(a.TokenID) },
	)
}

func (s *Service) revoke(
	ctx context.Context,
	a Actor,
	why ending,
	read func(ReadTx, time.Time) (Token, error),
) (Token, error) {
	var c checker
	if c.reason(why.reason); c.err() != nil {
		return Token{}, c.err()
	}
	var t Token
	err := s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		var err error
		if t, err = read(tx, now); err != nil {
			return nil, err
		}
		t.AsOf = now
		if err := expectTag(ctx, t); err != nil || t.Revocation != nil {
			return nil, err
		}
		t.Revocation = &Revocation{Time: now, By: a.String(), Reason: why.reason}
		if err := tx.UpdateToken(t); err != nil {
			return nil, fmt.Errorf("revoke token %s: %w", t.ID, err)
		}
		if err := tx.ForgetSealed(t.ID); err != nil {
			return nil, fmt.Errorf("forget the requests of token %s: %w", t.ID, err)
		}
		e := a.event(now, ActionTokenRevoke)
		e.User, e.TokenID, e.Detail = t.User, t.ID, why.reason
		return why.with(tx, now, []Event{e})
	})
	return t, err
}

// RevokeAll revokes all of a user's tokens for good, expired ones too, and returns how many it revoked.
func (s *Service) RevokeAll(ctx context.Context, a Actor, user, reason string) (int, error) {
	owner, err := s.owner(a, user)
	if err != nil {
		return 0, s.refused(ctx, a, Refusal{Action: ActionTokenRevokeAll, User: user}, err)
	}
	var c checker
	if c.reason(reason); c.err() != nil {
		return 0, c.err()
	}
	n := 0
	err = s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		u, err := tx.User(owner)
		if errors.Is(err, ErrNotFound) {
			return nil, nil
		}
		if err := toEnd(err); err != nil {
			return nil, fmt.Errorf("read user: %w", err)
		}
		ids, err := revokeAll(tx, u, Revocation{Time: now, By: a.String(), Reason: reason})
		if err != nil {
			return nil, err
		}
		if n = len(ids); n == 0 {
			return nil, nil
		}
		e := a.event(now, ActionTokenRevokeAll)
		e.User, e.Detail = owner, counted(n, reason)
		return append(a.revoked(now, owner, ids, reason), e), nil
	})
	return n, err
}

// revokeAll revokes all of a user's tokens inside a transaction, and drops their sealed secrets. It returns their ids.
func revokeAll(tx Tx, u User, r Revocation) ([]ID, error) {
	ids, err := tx.RevokeTokens(u.Key, r)
	if err != nil {
		return nil, fmt.Errorf("revoke tokens: %w", err)
	}
	if err := tx.ForgetSealedOf(u.Key); err != nil {
		return nil, fmt.Errorf("forget the requests of a user's tokens: %w", err)
	}
	return ids, nil
}

// revoked returns an event for each token, so that the history of each is complete.
func (a Actor) revoked(now time.Time, user string, ids []ID, reason string) []Event {
	events := make([]Event, len(ids), len(ids)+1)
	for i, id := range ids {
		events[i] = a.event(now, ActionTokenRevoke)
		events[i].User, events[i].TokenID, events[i].Detail = user, id, reason
	}
	return events
}

func counted(n int, reason string) string {
	if reason == "" {
		return fmt.Sprintf("%d revoked", n)
	}
	return fmt.Sprintf("%d revoked: %s", n, reason)
}

// Self describes the presented token to its bearer, who must call from an allowed address. It counts as a use.
func (s *Service) Self(ctx context.Context, a Actor) (Self, error) {
	if a.Kind != TokenActor {
		return Self{}, denied("only the bearer of a personal access token can do this")
	}
	c, err := s.store.Lookup(ctx, a.TokenID)
	if err != nil {
		return Self{}, err
	}
	now := s.Now()
	p := presentedBy(c, a.Serial, now)
	if d := p.decidedFrom(a.Peer); d != Allow {
		return Self{}, s.ended(&p, d).public(CodeUnauthenticated)
	}
	h, err := s.features.Features(ctx, c.User, false)
	if err != nil {
		return Self{}, err
	}
	// Only the store has what no decision needs: the bearer is sent whether it may rotate, and what is in progress.
	err = s.store.View(ctx, func(tx ReadTx) error {
		t, err := tx.Token(a.TokenID)
		c.Token.Rotations, c.Token.Rotation = t.Rotations, t.Rotation
		c.Token.SelfRotate, c.Token.RenewableUntil = t.SelfRotate, t.RenewableUntil
		return err
	})
	if err != nil {
		return Self{}, fmt.Errorf("read token %s: %w", a.TokenID, err)
	}
	c.Token.LastUsed, c.Token.AsOf = Use{Time: now, IP: a.Peer.IP}, now
	s.store.RecordUse(Usage{ID: a.TokenID, Use: c.Token.LastUsed})
	c.Token.InEffect = effectOf(c.Token.Scopes, h)
	return Self{Token: c.Token, ExpireTime: p.end()}, nil
}
