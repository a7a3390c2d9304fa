package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"patd/tokens/secret"
)

// maxBlock is how many tokens one call blocks or unblocks: each costs a row, an event and a feed entry.
const maxBlock = 1000

// Exceeding is the outcome of a policy's dry run.
type Exceeding struct {
	Count int64 // in all
	// Unnamed counts the live tokens that name no audience, if RequireNamed is set or tried; else it is 0.
	Unnamed int64
	Tokens  []Token // one page, oldest first
	Now     time.Time
}

// CheckAudience is the dry run of a policy: it returns the live tokens of an audience that could not be minted now with
// the expiry they have. A nil try means the audience's present policy; named also tries RequireNamed. It changes
// nothing.
func (s *Service) CheckAudience(
	ctx context.Context,
	a Actor,
	id string,
	try *Policy,
	named bool,
	p Page,
) (Exceeding, string, error) {
	if err := s.manager(a); err != nil {
		return Exceeding{}, "", err
	}
	tried := ""
	if try != nil {
		tried = fmt.Sprint(*try)
	}
	list := lister{keys: s.keys.Get(), query: framed("exceeding", id, tried)}
	after, limit, err := list.page(p)
	if err != nil {
		return Exceeding{}, "", err
	}
	out := Exceeding{Now: s.Now()}
	err = s.store.View(ctx, func(tx ReadTx) error {
		q, err := s.exceeding(tx, id, try, out.Now)
		if err != nil {
			return err
		}
		if out.Count, err = tx.CountExceeding(q); err != nil {
			return fmt.Errorf("count tokens: %w", err)
		}
		if out.Unnamed, err = unnamed(tx, id, named, out.Now); err != nil {
			return err
		}
		q.Limit = limit + 1
		if after != "" {
			if q.After, err = secret.ParseID(after); err != nil {
				return errPageToken
			}
		}
		out.Tokens, err = tx.Exceeding(q)
		return err
	})
	if err != nil {
		return Exceeding{}, "", err
	}
	var next string
	out.Tokens, next = cut(list, out.Tokens, limit, func(t Token) string { return t.ID.String() })
	return out, next, nil
}

// unnamed counts the live tokens that RequireNamed keeps out of an audience.
func unnamed(tx ReadTx, id string, try bool, now time.Time) (int64, error) {
	e, err := tx.Audience(id)
	if err != nil || !try && !e.RequireNamed {
		return 0, missing("audience", err)
	}
	n, err := tx.CountUnnamed(now)
	if err != nil {
		return 0, fmt.Errorf("count tokens that name no audience: %w", err)
	}
	return n, nil
}

func (s *Service) exceeding(tx ReadTx, id string, try *Policy, now time.Time) (ExceedQuery, error) {
	e, err := tx.Audience(id)
	if err != nil {
		return ExceedQuery{}, missing("audience", err)
	}
	p := e.policy(s.policy)
	if try != nil {
		p = AudienceEntry{DefaultTTL: try.DefaultTTL, MaxTTL: try.MaxTTL, AllowNever: try.AllowNever}.policy(s.policy)
	}
	return ExceedQuery{Audience: id, Now: now, Limited: now.Add(p.MaxTTL), Never: !p.AllowNever}, nil
}

// BlockStake is what BlockTokens and UnblockTokens would do, in numbers.
type BlockStake struct {
	Block   int64 // live tokens that exceed the audience's policy and that it does not block yet
	Unblock int64 // tokens that it blocks
}

// AudienceStake counts what BlockTokens and UnblockTokens would do.
func (s *Service) AudienceStake(ctx context.Context, a Actor, id string) (BlockStake, error) {
	if err := s.manager(a); err != nil {
		return BlockStake{}, err
	}
	var out BlockStake
	now := s.Now()
	err := s.store.View(ctx, func(tx ReadTx) error {
		q, err := s.exceeding(tx, id, nil, now)
		if err != nil {
			return err
		}
		q.Blocked = BlockedNot
		if out.Block, err = tx.CountExceeding(q); err != nil {
			return fmt.Errorf("count tokens to block: %w", err)
		}
		out.Unblock, err = tx.CountExceeding(ExceedQuery{Audience: id, Now: now, Blocked: BlockedByAudience})
		return err
	})
	return out, err
}

// BlockTokens blocks the live tokens that exceed an audience's present policy, at most 1000 a call. It returns how many
// it blocked and how many are left. A blocked token is inactive (POLICY_BLOCKED) until it is unblocked, or has an
// expiry within the policy.
func (s *Service) BlockTokens(ctx context.Context, a Actor, id, reason string) (int, int64, error) {
	return s.setBlocks(ctx, a, ActionTokenBlock, id, reason, func(tx ReadTx, now time.Time) (ExceedQuery, error) {
		q, err := s.exceeding(tx, id, nil, now)
		q.Blocked = BlockedNot
		return q, err
	})
}

// UnblockTokens lifts the blocks that BlockTokens set for an audience, at most 1000 a call.
func (s *Service) UnblockTokens(ctx context.Context, a Actor, id, reason string) (int, int64, error) {
	return s.setBlocks(ctx, a, ActionTokenUnblock, id, reason, func(_ ReadTx, now time.Time) (ExceedQuery, error) {
		return ExceedQuery{Audience: id, Now: now, Blocked: BlockedByAudience}, nil
	})
}

func (s *Service) setBlocks(ctx context.Context, a Actor, action Action, id, reason string,
	which func(ReadTx, time.Time) (ExceedQuery, error),
) (done int, left int64, err error) {
	if err := s.manager(a); err != nil {
		return 0, 0, s.refused(ctx, a, Refusal{Action: action}, err)
	}
	var c checker
	c.audience("id", id)
	if c.reason(reason); c.err() != nil {
		return 0, 0, c.err()
	}
	now := s.Now()
	err = s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		q, err := which(tx, now)
		if err != nil {
			return nil, err
		}
		q.Limit = maxBlock
		if counts(ctx) {
			all, err := tx.CountExceeding(q)
			if err != nil {
				return nil, fmt.Errorf("count tokens: %w", err)
			}
			if err := expectCount(ctx, all); err != nil {
				return nil, err
			}
		}
		found, err := tx.Exceeding(q)
		if err != nil {
			return nil, fmt.Errorf("read tokens: %w", err)
		}
		events := make([]Event, 0, len(found))
		for _, t := range found {
			by := slices.DeleteFunc(t.Blockers(), func(b string) bool { return b == id })
			if action == ActionTokenBlock {
				by = append(by, id)
			}
			t.setBlockers(by)
			if err := tx.SetBlocked(t.ID, t.BlockedBy); err != nil {
				return nil, fmt.Errorf("write token %s: %w", t.ID, err)
			}
			e := a.event(now, action)
			e.User, e.TokenID, e.Detail = t.User, t.ID, "audience "+id
			if reason != "" {
				e.Detail += ": " + reason
			}
			events = append(events, e)
		}
		done = len(found)
		return events, nil
	})
	if err != nil {
		return 0, 0, s.refused(ctx, a, Refusal{Action: action}, err)
	}
	// Counted outside the transaction, so that no writer waits for it.
	err = s.store.View(ctx, func(tx ReadTx) error {
		q, err := which(tx, now)
		if err != nil {
			return err
		}
		left, err = tx.CountExceeding(q)
		return err
	})
	return done, left, err
}

// unblock lifts a token's blocks by those audiences whose policy allows its expiry.
func (s *Service) unblock(tx ReadTx, t *Token, now time.Time) error {
	var left []string
	for _, id := range t.Blockers() {
		e, err := tx.Audience(id)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("read audience: %w", err)
		}
		p := e.policy(s.policy)
		within := t.ExpireTime.IsZero() && p.AllowNever ||
			!t.ExpireTime.IsZero() && !t.ExpireTime.After(now.Add(p.MaxTTL))
		if err != nil || !within { // an audience without an entry has no known policy; the operator unblocks
			left = append(left, id)
		}
	}
	t.setBlockers(left)
	return nil
}
