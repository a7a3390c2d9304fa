package store_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"patd/internal/longtest"
	"patd/store"
	"patd/store/cache"
	"patd/store/storetest"
	"patd/tokens"
)

// sim is a small store behind a cache that is too small for it, and what lookups must answer: the state after the last
// change that returned. Changes come through the cache and from another handle, as another process makes them; readings
// are held between the store and the cache while changes come; the clock takes the feed out of its time and back.
type sim struct {
	t      *rapid.T
	ctx    context.Context
	cache  *cache.Cache
	faulty *storetest.Faulty
	st     *store.Store
	other  *store.Store
	clock  *clock
	nextID tokens.ID
	hashes uint64
	uses   int

	users  map[string]*tokens.User // those that live
	tokens []*simToken
	held   []*simHeld
}

type simToken struct {
	tokens.Token
	user    *tokens.User
	secrets []tokens.StoredSecret
	changed int // counts changes of it and of its user
	used    tokens.Use
}

// simHeld is a reading that was stopped before the cache receives it.
type simHeld struct {
	*storetest.Held
	token   *simToken
	changed int
	g       errgroup.Group
}

func newSim(t *rapid.T) (*sim, func()) {
	dir, err := os.MkdirTemp("", "patd-sim-")
	if err != nil {
		t.Fatal(err)
	}
	s := &sim{t: t, ctx: context.Background(), clock: newClock(), nextID: 1 << 40, users: map[string]*tokens.User{}}
	url := "sqlite:" + filepath.Join(dir, "patd.db")
	o := store.Options{Now: s.clock.now, FlushInterval: time.Hour, Connections: 2}.WithPragmas("synchronous(OFF)")
	st, err := store.Open(s.ctx, url, o)
	if err != nil {
		t.Fatal(err)
	}
	if s.other, err = store.Open(s.ctx, url, o); err != nil {
		t.Fatal(err)
	}
	s.st, s.faulty = st, storetest.NewFaulty(st)
	s.cache = cache.New(st, cache.Options{Behind: s.faulty, Size: tiny / 4})
	s.change(s.cache, tokens.Event{}, func(tx tokens.Tx) error {
		return tx.PutKey(tokens.KeyRecord{Name: "k1", Check: [32]byte{1}, CreateTime: s.clock.now()})
	})
	return s, func() {
		for len(s.held) > 0 {
			s.land()
		}
		if err := errors.Join(st.Close(), s.other.Close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	}
}

func (s *sim) change(st tokens.Store, e tokens.Event, fn func(tokens.Tx) error) {
	e.Time, e.Actor, e.Action, e.Outcome = s.clock.now(), "operator", tokens.ActionTokenUpdate, tokens.OutcomeSuccess
	err := st.Update(s.ctx, func(tx tokens.Tx) ([]tokens.Event, error) { return []tokens.Event{e}, fn(tx) })
	if err != nil {
		s.t.Fatalf("change: %v", err)
	}
}

// through returns through which handle a change comes; of one from elsewhere the feed is heard before anything is
// asked.
func (s *sim) through() (tokens.Store, func()) {
	if rapid.IntRange(0, 3).Draw(s.t, "elsewhere") > 0 {
		return s.cache, func() {}
	}
	return s.other, func() {
		if err := s.st.Feed().CatchUp(s.ctx, 0); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *sim) hash() tokens.Hash {
	s.hashes++
	h := tokens.Hash{Key: "k1"}
	binary.BigEndian.PutUint64(h.Sum[:], s.hashes)
	return h
}

func (s *sim) token() *simToken {
	if len(s.tokens) == 0 {
		s.t.Skip("no token yet")
	}
	return s.tokens[rapid.IntRange(0, len(s.tokens)-1).Draw(s.t, "token")]
}

func (s *sim) changeToken(t *simToken, fn func(tokens.Tx) error) {
	t.changed++
	st, heard := s.through()
	s.change(st, tokens.Event{TokenID: t.ID, User: t.User}, fn)
	heard()
}

func (s *sim) changeUser(u *tokens.User, e tokens.Event) {
	for _, t := range s.tokens {
		if t.user == u {
			t.changed++
		}
	}
	st, heard := s.through()
	s.change(st, e, func(tx tokens.Tx) error {
		if u.Key != 0 {
			return tx.UpdateUser(*u)
		}
		var err error
		u.Key, err = tx.InsertUser(*u)
		return err
	})
	heard()
}

// TestSimulationOfTheCache runs some thousand steps; -rapid.checks and -rapid.steps say how many.
func TestSimulationOfTheCache(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	var steps, hits, evicted, bypassed atomic.Uint64
	rapid.Check(t, func(rt *rapid.T) {
		s, end := newSim(rt)
		defer end()
		step := func(fn func(*rapid.T)) func(*rapid.T) {
			return func(rt *rapid.T) {
				s.t = rt
				steps.Add(1)
				fn(rt)
			}
		}
		for range 12 {
			s.mint(rt)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"mint":         step(s.mint),
			"revoke":       step(s.revoke),
			"rename":       step(s.rename),
			"rotate":       step(s.rotate),
			"rekey":        step(s.rekey),
			"user":         step(s.changeUserNow),
			"another user": step(s.changeUserNow),
			"all": step(
				s.changeAll,
			),
			"wait":         step(s.wait),
			"hear":         step(func(*rapid.T) { _ = s.st.Feed().CatchUp(s.ctx, 0) }),
			"use":          step(s.use),
			"use another":  step(s.use),
			"flush":        step(s.flush),
			"hold":         step(s.hold),
			"hold another": step(s.hold),
			"look":         step(s.look),
			"look again":   step(s.look),
			"land": step(func(*rapid.T) {
				if len(s.held) > 0 {
					s.land()
				}
			}),
			"": func(rt *rapid.T) { s.t = rt },
		})
		s.look(rt)
		st := s.cache.Stats()
		hits.Add(st.Hits)
		evicted.Add(st.Evicted)
		bypassed.Add(st.Bypassed)
	})
	t.Logf(
		"%d steps, %d answers from memory, %d evicted, %d asked of the store for the feed's silence",
		steps.Load(),
		hits.Load(),
		evicted.Load(),
		bypassed.Load(),
	)
	if hits.Load() == 0 || evicted.Load() == 0 || bypassed.Load() == 0 {
		t.Error("the simulation does not try what it is for")
	}
}

// TestNoAnswerIsOlderThanAChangeThatReturned has changes and lookups race.
func TestNoAnswerIsOlderThanAChangeThatReturned(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r := newCachedRig(t, store.Options{}.WithPragmas("synchronous(OFF)"))
	var named, held atomic.Int64 // what the last changes that returned have written
	version := func(s string) int64 {
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			t.Errorf("not a version: %v", err)
		}
		return v
	}
	tok, u := r.Token, r.User
	tok.Name, u.Features = "0", []string{"0"}
	r.Change(
		t,
		r,
		tokens.Event{},
		func(tx tokens.Tx) error { return errors.Join(tx.UpdateToken(tok), tx.UpdateUser(u)) },
	)
	const changes = 300
	var g, readers errgroup.Group
	g.Go(func() error {
		for i := range int64(changes) {
			tok.Name = strconv.FormatInt(i, 10)
			r.Change(t, r, tokens.Event{TokenID: tok.ID}, func(tx tokens.Tx) error { return tx.UpdateToken(tok) })
			named.Store(i)
		}
		return nil
	})
	g.Go(func() error {
		for i := range int64(changes) {
			u.Features = []string{strconv.FormatInt(i, 10)}
			r.Change(t, r, tokens.Event{User: u.ID}, func(tx tokens.Tx) error { return tx.UpdateUser(u) })
			held.Store(i)
		}
		return nil
	})
	done := make(chan struct{})
	for range 4 {
		readers.Go(func() error {
			for {
				select {
				case <-done:
					return nil
				default:
				}
				minName, minFeature := named.Load(), held.Load()
				c, err := r.Lookup(t.Context(), tok.ID)
				if err != nil {
					return err
				}
				if n, f := version(c.Token.Name), version(c.User.Features[0]); n < minName || f < minFeature {
					return fmt.Errorf(
						"read name %d and feature %d, after %d and %d had returned",
						n,
						f,
						minName,
						minFeature,
					)
				}
			}
		})
	}
	err := g.Wait()
	close(done)
	if err := errors.Join(err, readers.Wait()); err != nil {
		t.Error(err)
	}
	if st := r.Stats(); st.Hits == 0 {
		t.Error("nothing came from memory")
	}
}
