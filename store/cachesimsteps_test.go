package store_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"pgregory.net/rapid"

	"patd/store/storetest"
	"patd/tokens"
)

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
