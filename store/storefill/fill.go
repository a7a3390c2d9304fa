// Package storefill loads a store with realistic tokens, for benchmarks and for the tests that need many.
package storefill

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"patd/tokens"
	"patd/tokens/secret"
)

// Config says what Load is to load. A zero field is the default.
type Config struct {
	Tokens int // 10,000
	Users  int // a tenth of Tokens
	// Hash makes the digest of the nth token, under a key that is known to the store; nil: any digest, under a key
	// "fill" that Load adds.
	Hash func(n int, id tokens.ID) tokens.Hash
	// Now is when it is, the time of the call; tokens were minted within Span before it, 170 days.
	Now  time.Time
	Span time.Duration
	// Vary changes the nth token before it is stored; nil: none.
	Vary func(n int, t *tokens.Token)
	// Batch is how many tokens go into one transaction; 5,000.
	Batch int
}

func (c Config) withDefaults() Config {
	if c.Tokens == 0 {
		c.Tokens = 10_000
	}
	if c.Users == 0 {
		c.Users = max(c.Tokens/10, 1)
	}
	if c.Now.IsZero() {
		c.Now = time.Now()
	}
	if c.Span == 0 {
		c.Span = 170 * tokens.Day
	}
	if c.Batch == 0 {
		c.Batch = 5_000
	}
	c.Now = c.Now.UTC().Truncate(time.Microsecond)
	return c
}

// fillScopes are 12 characters each, and sorted as all lists of scopes are.
var fillScopes = [...]string{
	"billing.edit",
	"billing.read",
	"queries.edit",
	"queries.read",
	"reports.edit",
	"reports.read",
}

// Load loads a store with users and realistic tokens (four scopes of twelve characters, a name of about sixteen), each
// with its audit event, in the order of their age and of users at random. It returns the ids by number. The user of
// every token holds all the scopes.
func Load(ctx context.Context, st tokens.Store, c Config) ([]tokens.ID, error) {
	c = c.withDefaults()
	if c.Hash == nil {
		if err := fillKey(ctx, st, c.Now); err != nil {
			return nil, err
		}
		c.Hash = func(n int, _ tokens.ID) tokens.Hash { return randomHash(n) }
	}
	users := make([]tokens.User, c.Users)
	err := inBatches(ctx, st, c.Users, c.Batch, func(tx tokens.Tx, n int) (_ tokens.Event, err error) {
		u := tokens.User{
			ID:         fmt.Sprintf("user-%07d", n),
			State:      tokens.UserActive,
			Features:   fillScopes[:],
			CreateTime: c.Now,
		}
		u.Key, err = tx.InsertUser(u)
		users[n] = u
		return fillEvent(c.Now, tokens.ActionUserFeatures, u.ID, 0), err
	})
	if err != nil {
		return nil, fmt.Errorf("fill the store with users: %w", err)
	}
	ids := make([]tokens.ID, c.Tokens)
	rnd := rand.New(rand.NewPCG(1, 2))
	err = inBatches(ctx, st, c.Tokens, c.Batch, func(tx tokens.Tx, n int) (tokens.Event, error) {
		issued := c.Now.Add(-c.Span).
			Add(time.Duration(n) * (c.Span / time.Duration(c.Tokens))).
			Truncate(time.Microsecond)
		t, err := fillToken(n, issued, users[rnd.IntN(len(users))], rnd)
		if err != nil {
			return tokens.Event{}, err
		}
		if c.Vary != nil {
			c.Vary(n, &t)
		}
		ids[n] = t.ID
		return fillEvent(issued, tokens.ActionTokenCreate, t.User, t.ID), tx.InsertToken(t, c.Hash(n, t.ID))
	})
	if err != nil {
		return nil, fmt.Errorf("fill the store with tokens: %w", err)
	}
	return ids, nil
}

// inBatches runs f for every number below n, many in each transaction.
func inBatches(
	ctx context.Context,
	st tokens.Store,
	n, batch int,
	f func(tx tokens.Tx, n int) (tokens.Event, error),
) error {
	for from := 0; from < n; from += batch {
		err := st.Update(ctx, func(tx tokens.Tx) ([]tokens.Event, error) {
			events := make([]tokens.Event, 0, batch)
			for i := from; i < min(from+batch, n); i++ {
				e, err := f(tx, i)
				if err != nil {
					return nil, err
				}
				events = append(events, e)
			}
			return events, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func fillKey(ctx context.Context, st tokens.Store, now time.Time) error {
	return st.Update(ctx, func(tx tokens.Tx) ([]tokens.Event, error) {
		err := tx.PutKey(tokens.KeyRecord{Name: "fill", Check: [32]byte{1}, CreateTime: now})
		return []tokens.Event{fillEvent(now, tokens.ActionKeyAdd, "", 0)}, err
	})
}

func fillEvent(at time.Time, action tokens.Action, user string, id tokens.ID) tokens.Event {
	return tokens.Event{
		Time:    at,
		Actor:   "service:portal",
		Action:  action,
		User:    user,
		TokenID: id,
		Outcome: tokens.OutcomeSuccess,
	}
}

func fillToken(n int, issued time.Time, u tokens.User, rnd *rand.Rand) (tokens.Token, error) {
	var b [4]byte
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	id, err := secret.NewID(issued, &reader{b[:]})
	first := n % (len(fillScopes) - 3)
	return tokens.Token{
		ID: id, UserKey: u.Key, User: u.ID, Name: fmt.Sprintf("CI deploy %06x", n), Scopes: fillScopes[first : first+4],
		IssueTime: issued, ExpireTime: issued.Add(tokens.DefaultTTL),
	}, err
}

// reader returns given bytes.
type reader struct{ left []byte }

func (r *reader) Read(p []byte) (int, error) {
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

// randomHash is a digest that belongs to no secret.
func randomHash(n int) tokens.Hash {
	h := tokens.Hash{Key: "fill"}
	rnd := rand.New(rand.NewPCG(uint64(n), 3))
	for i := range h.Sum {
		h.Sum[i] = byte(rnd.Uint32())
	}
	return h
}
