package store_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
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

// mint adds a token, and the user if there is none.
func (s *sim) mint(*rapid.T) {
	id := rapid.SampledFrom([]string{"u1", "u2", "u3", "u4", "u5"}).Draw(s.t, "user")
	u := s.users[id]
	if u == nil {
		u = &tokens.User{ID: id, State: tokens.UserActive, Features: []string{"a", "b"}, CreateTime: s.clock.now()}
		s.users[id] = u
		s.changeUser(u, tokens.Event{User: id})
	}
	s.nextID += 1 << 22
	t := &simToken{user: u, secrets: []tokens.StoredSecret{{Hash: s.hash()}}}
	t.Token = tokens.Token{
		ID: s.nextID, UserKey: u.Key, User: id, Name: "n" + s.nextID.String(), Scopes: []string{"a", "b", "c"},
		IssueTime: s.clock.now(), ExpireTime: s.clock.now().Add(time.Minute),
	}
	if len(s.tokens) > 40 { // the eldest is not looked at any more
		s.tokens = s.tokens[1:]
	}
	s.tokens = append(s.tokens, t)
	s.changeToken(t, func(tx tokens.Tx) error { return tx.InsertToken(t.Token, t.secrets[0].Hash) })
}

func (s *sim) revoke(*rapid.T) {
	t := s.token()
	if t.Revocation == nil {
		t.Revocation = &tokens.Revocation{Time: s.clock.now(), By: "operator"}
	}
	s.changeToken(t, func(tx tokens.Tx) error { return tx.UpdateToken(t.Token) })
}

func (s *sim) rename(*rapid.T) {
	t := s.token()
	t.Name = fmt.Sprintf("n%s.%d", t.ID, t.changed)
	s.changeToken(t, func(tx tokens.Tx) error { return tx.UpdateToken(t.Token) })
}

func (s *sim) rotate(*rapid.T) {
	t := s.token()
	until := s.clock.now().Add(time.Minute)
	for i := range t.secrets[1:] {
		if old := &t.secrets[i+1]; old.EndTime.IsZero() {
			if old.EndTime = s.clock.now(); old.ExpireTime.Before(old.EndTime) {
				old.EndTime = old.ExpireTime
			}
		}
		t.secrets[i+1].ExpireTime = time.UnixMicro(0).UTC()
	}
	t.secrets[0].ExpireTime = until
	t.secrets = slices.Insert(t.secrets, 0, tokens.StoredSecret{Hash: s.hash(), Serial: t.secrets[0].Serial + 1})
	t.secrets = t.secrets[:min(len(t.secrets), 33)]
	r := tokens.Rotation{Time: s.clock.now(), PreviousUntil: until}
	s.changeToken(t, func(tx tokens.Tx) error { return tx.ReplaceSecret(t.ID, t.secrets[0].Hash, r) })
}

// rekey moves a digest, which counts a moment after it was written, and not before that in any order.
func (s *sim) rekey(*rapid.T) {
	t := s.token()
	if slices.ContainsFunc(s.held, func(h *simHeld) bool { return h.token == t }) {
		return
	}
	next := s.hash()
	s.cache.RecordUse(tokens.Usage{ID: t.ID, Rekey: &tokens.Rekey{Old: t.secrets[0].Hash, New: next}})
	t.secrets[0].Hash = next
	t.changed++
	for range 10_000 {
		if err := s.st.Flush(s.ctx); err != nil { // or the store is just doing it by itself
			s.t.Fatal(err)
		}
		c, err := s.cache.Lookup(s.ctx, t.ID)
		if err != nil {
			s.t.Fatal(err)
		}
		if c.Secrets[0].Hash == next {
			return
		}
	}
	s.t.Fatalf("token %s: a digest does not move", t.ID)
}

// use notes a use of a token, sometimes one from before the last. No two are at the same time: either could be the
// last.
func (s *sim) use(*rapid.T) {
	t := s.token()
	s.uses++
	at := 4*s.uses - 5*rapid.IntRange(0, 1).Draw(s.t, "earlier")
	u := tokens.Use{Time: s.clock.now().Add(time.Duration(at) * time.Microsecond)}
	if n := rapid.IntRange(0, 2).Draw(s.t, "from"); n > 0 {
		u.IP = netip.AddrFrom4([4]byte{192, 0, 2, byte(n)})
	}
	s.cache.RecordUse(tokens.Usage{ID: t.ID, Use: u})
	if u.Time.After(t.used.Time) {
		t.used = u
	}
}

// flush has uses written, wherever they were kept, and finds the last of every token's.
func (s *sim) flush(*rapid.T) {
	if err := s.st.Flush(s.ctx); err != nil {
		s.t.Fatal(err)
	}
	err := s.other.View(s.ctx, func(tx tokens.ReadTx) error {
		for _, t := range s.tokens {
			got, err := tx.Token(t.ID)
			if err != nil || got.LastUsed != t.used {
				return errors.Join(err, fmt.Errorf("token %s: last used %+v, want %+v", t.ID, got.LastUsed, t.used))
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// changeUserNow suspends, resumes, changes the features of, or deletes a user.
func (s *sim) changeUserNow(*rapid.T) {
	t := s.token()
	u := s.users[t.User]
	if u == nil {
		return
	}
	switch rapid.IntRange(0, 5).Draw(s.t, "what") {
	case 0:
		u.DeleteTime, u.Features = s.clock.now(), nil
		delete(s.users, u.ID)
	case 1, 2:
		u.State = tokens.UserActive + tokens.UserSuspended - u.State
	default:
		u.Features = []string{"a", "f" + strconv.Itoa(rapid.IntRange(0, 9).Draw(s.t, "feature"))}
	}
	s.changeUser(u, tokens.Event{User: u.ID})
}

// changeAll changes several tokens by an entry that names none.
func (s *sim) changeAll(*rapid.T) {
	st, heard := s.through()
	s.change(st, tokens.Event{}, func(tx tokens.Tx) error {
		for _, t := range s.tokens {
			t.changed++
			t.BlockedBy = strconv.Itoa(t.changed)
			if err := tx.SetBlocked(t.ID, t.BlockedBy); err != nil {
				return err
			}
		}
		return nil
	})
	heard()
}

func (s *sim) wait(*rapid.T) {
	s.clock.move(time.Duration(rapid.IntRange(0, 6).Draw(s.t, "seconds")) * time.Second)
}

// look asks for several tokens, and all that they answer must be so now.
func (s *sim) look(*rapid.T) {
	for range 6 {
		t := s.token()
		if slices.ContainsFunc(s.held, func(h *simHeld) bool { return h.token == t && h.changed == t.changed }) {
			continue // rightly waits for the one that is held
		}
		// A lookup that waited for a reading from before a change would wait for ever.
		ctx, cancel := context.WithTimeout(s.ctx, 30*time.Second)
		c, err := s.cache.Lookup(ctx, t.ID)
		cancel()
		if err != nil {
			s.t.Fatalf("look up %s: %v", t.ID, err)
		}
		if why := t.differs(c); why != "" {
			s.t.Fatalf("token %s: %s is not as after the last change", t.ID, why)
		}
		if _, err := s.cache.Lookup(s.ctx, t.ID^1); !errors.Is(err, tokens.ErrNotFound) {
			s.t.Fatalf("an unknown token: %v", err)
		}
	}
}

func (t *simToken) differs(c tokens.Credential) string {
	switch {
	case c.Token.ID != t.ID || c.Token.Name != t.Name || c.Token.User != t.User:
		return "the name"
	case (c.Token.Revocation == nil) != (t.Revocation == nil):
		return "the revocation"
	case c.Token.BlockedBy != t.BlockedBy:
		return "the block"
	case !slices.Equal(c.Secrets, t.secrets):
		return "a secret"
	case c.User.Key != t.user.Key || c.User.ID != t.User || !c.User.DeleteTime.Equal(t.user.DeleteTime):
		return "the user"
	case c.User.State != t.user.State:
		return "the user's state"
	case !slices.Equal(c.User.Features, t.user.Features):
		return "the user's features"
	}
	return ""
}

// hold begins a reading, and stops it before the cache receives it; some that it would wait for are in memory already.
func (s *sim) hold(*rapid.T) {
	t := s.token()
	if len(s.held) >= 3 || slices.ContainsFunc(s.held, func(h *simHeld) bool { return h.token == t }) {
		return
	}
	h := &simHeld{Held: s.faulty.Hold(storetest.OpLookup), token: t, changed: t.changed}
	done := make(chan struct{})
	h.g.Go(func() error {
		defer close(done)
		_, err := s.cache.Lookup(s.ctx, t.ID)
		return err
	})
	select {
	case <-h.Reached:
		s.held = append(s.held, h)
	case <-done: // from memory
		s.faulty.Hold(storetest.OpLookup).Release()
		if err := h.g.Wait(); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *sim) land() {
	h := s.held[0]
	s.held = s.held[1:]
	h.Release()
	if err := h.g.Wait(); err != nil {
		s.t.Fatalf("a reading that was held: %v", err)
	}
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
