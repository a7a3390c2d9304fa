package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Stake is what a user would lose, in numbers.
type Stake struct {
	Active    int64 // tokens that a suspension makes inactive
	Unrevoked int64 // tokens that a deletion revokes, expired ones too
	Sessions  int   // of the page; at most 100 are counted
}

// UserStake counts what a suspension or a deletion of a user would end. A user that patd does not know has nothing.
func (s *Service) UserStake(ctx context.Context, a Actor, user string) (Stake, error) {
	user, err := s.owner(a, user)
	if err != nil {
		return Stake{}, err
	}
	var out Stake
	now := s.Now()
	err = s.store.View(ctx, func(tx ReadTx) error {
		out = Stake{}
		u, err := tx.User(user)
		switch {
		case errors.Is(err, ErrNotFound):
			return nil
		case toEnd(err) != nil:
			return fmt.Errorf("read user: %w", err)
		}
		if out.Active, err = liveCount(tx, u, now); err != nil {
			return err
		}
		if out.Unrevoked, err = unrevokedCount(ctx, tx, user, now); err != nil {
			return err
		}
		sessions, err := tx.PageSessions(user, now, maxSessions)
		for _, v := range sessions {
			if v.live(now) {
				out.Sessions++
			}
		}
		return err
	})
	return out, err
}

// liveCount counts the tokens of a user that a suspension makes inactive.
func liveCount(tx ReadTx, u User, now time.Time) (int64, error) {
	live, err := tx.LiveTokens(u.Key, now)
	if err != nil {
		return 0, fmt.Errorf("read live tokens: %w", err)
	}
	return int64(len(live)), nil
}

// unrevokedCount counts the tokens of a user that are not revoked.
func unrevokedCount(ctx context.Context, tx ReadTx, user string, now time.Time) (n int64, err error) {
	q := InventoryQuery{
		Filter: Filter{User: user, Unrevoked: true},
		Now:    now,
		Order:  OrderOldest,
		Limit:  planPage,
		Within: time.Hour,
	}
	for more := true; more && ctx.Err() == nil; {
		page, err := tx.Inventory(q)
		if err != nil {
			return 0, fmt.Errorf("count tokens: %w", err)
		}
		n += int64(len(page.Tokens))
		q.After, more = page.Next, page.More
	}
	return n, ctx.Err()
}
