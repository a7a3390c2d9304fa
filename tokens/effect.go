package tokens

import (
	"context"
	"errors"
	"sync"
	"time"
)

// InEffect splits the granted scopes of a token by what its user holds. Both lists are sorted.
type InEffect struct {
	Effective []string // granted, and held now
	Suspended []string // granted, not held now
	Stale     bool     // it rests on the last that the source of features said, which does not answer
}

func effectOf(granted []string, h Held) *InEffect {
	e := &InEffect{Stale: h.Stale}
	e.Effective, e.Suspended = inEffect(granted, h)
	return e
}

const (
	// effectPatience bounds how long a read of tokens waits for the source of features.
	effectPatience = 2 * time.Second
	// effectReads is how many users' features one list reads at once.
	effectReads = 8
)

// effects sets InEffect of tokens. It reads each user's features once. It leaves out those of users whose features it
// cannot read in time: a list of tokens is needed most when something is out, and says then that it does not know.
func (s *Service) effects(ctx context.Context, list []Token) {
	byUser := map[int64][]*Token{}
	names := map[int64]string{}
	for i := range list {
		t := &list[i]
		byUser[t.UserKey], names[t.UserKey] = append(byUser[t.UserKey], t), t.User
	}
	if len(byUser) == 0 {
		return
	}
	users := make([]User, 0, len(byUser))
	err := s.store.View(ctx, func(tx ReadTx) error {
		users = users[:0]
		for key, name := range names {
			u, err := tx.User(name)
			switch {
			case err == nil && u.Key == key:
				users = append(users, u)
			case err == nil, errors.Is(err, ErrNotFound): // the token's user was deleted, and holds nothing
				users = append(users, User{Key: key, ID: ""})
			default:
				return err
			}
		}
		return nil
	})
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, effectPatience)
	defer cancel()
	var reading sync.WaitGroup
	room := make(chan struct{}, effectReads)
	for _, u := range users {
		if u.ID == "" {
			s.setEffects(byUser[u.Key], Held{})
			continue
		}
		room <- struct{}{}
		reading.Go(func() {
			defer func() { <-room }()
			if h, err := s.features.Features(ctx, u, false); err == nil {
				s.setEffects(byUser[u.Key], h)
			}
		})
	}
	reading.Wait()
}

// setEffects sets InEffect of the tokens of one user.
func (*Service) setEffects(list []*Token, h Held) {
	for _, t := range list {
		t.InEffect = effectOf(t.Scopes, h)
	}
}
