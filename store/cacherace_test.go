package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"patd/store"
	"patd/store/storetest"
	"patd/tokens"
)

// cachedRig is a cache over a store that can be made to fail or wait, with a user, a token of its and a service, and
// another handle on the same file, as another process has.
type cachedRig struct {
	*store.Cached
	faulty  *storetest.Faulty
	st      *store.Store
	other   *store.Store
	user    tokens.User
	token   tokens.Token
	access  tokens.AccessToken // of the token
	service tokens.ServiceAccount
}

func newCachedRig(t *testing.T, o store.Options) *cachedRig {
	t.Helper()
	path := newPath(t)
	r := &cachedRig{st: open(t, path, o), other: open(t, path, store.Options{})}
	r.faulty = storetest.NewFaulty(r.st)
	r.Cached = store.NewCached(r.st, store.CacheOptions{Behind: r.faulty})
	now := time.Now().UTC().Truncate(time.Microsecond)
	r.user = tokens.User{ID: "u", State: tokens.UserActive, Features: []string{"a"}, CreateTime: now}
	r.token = tokens.Token{ID: 1 << 40, User: "u", Name: "one", Scopes: []string{"a"}, IssueTime: now, ExpireTime: now.Add(time.Hour)}
	r.access = tokens.AccessToken{ID: 1 << 42, TokenID: r.token.ID, Scopes: []string{"a"}, IssueTime: now, ExpireTime: now.Add(time.Hour)}
	r.service = tokens.ServiceAccount{ID: 1 << 41, Name: "gateway", Permissions: tokens.PermIntrospect, IssueTime: now, ExpireTime: now.Add(time.Hour)}
	r.change(t, r.Cached, tokens.Event{}, func(tx tokens.Tx) (err error) {
		if err := tx.PutKey(tokens.KeyRecord{Name: "k1", Check: [32]byte{1}, CreateTime: now}); err != nil {
			return err
		}
		if r.user.Key, err = tx.InsertUser(r.user); err != nil {
			return err
		}
		r.token.UserKey = r.user.Key
		h := tokens.Hash{Key: "k1", Sum: [32]byte{1}}
		return errors.Join(tx.InsertToken(r.token, h), tx.InsertAccess(r.access, h), tx.InsertService(r.service, h))
	})
	return r
}

func (r *cachedRig) change(t testing.TB, st tokens.Store, e tokens.Event, fn func(tokens.Tx) error) {
	t.Helper()
	e.Time, e.Actor, e.Action, e.Outcome = time.Now(), "operator", tokens.ActionTokenUpdate, tokens.OutcomeSuccess
	err := st.Update(context.Background(), func(tx tokens.Tx) ([]tokens.Event, error) { return []tokens.Event{e}, fn(tx) })
	if err != nil {
		t.Fatal(err)
	}
}

func (r *cachedRig) revoke(t testing.TB, st tokens.Store) {
	t.Helper()
	gone := r.token
	gone.Revocation = &tokens.Revocation{Time: time.Now(), By: "operator"}
	r.change(t, st, tokens.Event{TokenID: gone.ID, User: gone.User}, func(tx tokens.Tx) error { return tx.UpdateToken(gone) })
}

func (r *cachedRig) suspend(t testing.TB, st tokens.Store) {
	t.Helper()
	u := r.user
	u.State = tokens.UserSuspended
	r.change(t, st, tokens.Event{User: u.ID}, func(tx tokens.Tx) error { return tx.UpdateUser(u) })
}

// active tells whether the cache lets the token, what came of it, its user and the service pass.
func (r *cachedRig) active(ctx context.Context) (bool, error) {
	c, err := r.Lookup(ctx, r.token.ID)
	if err != nil {
		return false, err
	}
	a, err := r.LookupAccess(ctx, r.access.ID)
	if err != nil {
		return false, err
	}
	s, err := r.LookupService(ctx, r.service.ID)
	return c.Token.Revocation == nil && a.Access.Revocation == nil && c.User.State == tokens.UserActive && s.Service.Revocation == nil, err
}

func (r *cachedRig) wantActive(t *testing.T, what string, want bool) {
	t.Helper()
	got, err := r.active(t.Context())
	if err != nil || got != want {
		t.Errorf("%s: active %v, %v; want %v", what, got, err, want)
	}
}

// TestAFillThatRacesAChangeIsNotKept holds a reading of the store between the read and the fill, and changes what was read.
func TestAFillThatRacesAChangeIsNotKept(t *testing.T) {
	changes := map[string]struct {
		op     storetest.Op
		change func(*cachedRig, tokens.Store)
	}{
		"token revoked":  {storetest.OpLookup, func(r *cachedRig, st tokens.Store) { r.revoke(t, st) }},
		"user suspended": {storetest.OpLookup, func(r *cachedRig, st tokens.Store) { r.suspend(t, st) }},
		"access token revoked": {storetest.OpLookupAccess, func(r *cachedRig, st tokens.Store) {
			// What ends an access token names the personal access token that it came of.
			r.change(t, st, tokens.Event{TokenID: r.token.ID, User: r.user.ID}, func(tx tokens.Tx) error {
				_, err := tx.RevokeAccess(r.access.ID, tokens.Revocation{Time: time.Now(), By: "operator"})
				return err
			})
		}},
		"service revoked": {storetest.OpLookupService, func(r *cachedRig, st tokens.Store) {
			r.change(t, st, tokens.Event{Service: r.service.Name, TokenID: r.service.ID}, func(tx tokens.Tx) error {
				return tx.RevokeService(r.service.ID, tokens.Revocation{Time: time.Now(), By: "operator"})
			})
		}},
		"something unnamed": {storetest.OpLookup, func(r *cachedRig, st tokens.Store) {
			r.change(t, st, tokens.Event{}, func(tx tokens.Tx) error {
				_, err := tx.RevokeTokens(r.user.Key, tokens.Revocation{Time: time.Now(), By: "operator"})
				return err
			})
		}},
	}
	for name, c := range changes {
		for n := range 4 {
			elsewhere, asked := n%2 == 1, n/2 == 1 // a lookup in between begins a reading of its own, in place of the older one
			t.Run(fmt.Sprintf("%s, elsewhere %v, asked for meanwhile %v", name, elsewhere, asked), func(t *testing.T) {
				r := newCachedRig(t, store.Options{})
				held := r.faulty.Hold(c.op)
				defer held.Release()
				var late errgroup.Group
				late.Go(func() error {
					_, err := r.active(context.Background())
					return err
				})
				<-held.Reached
				if elsewhere {
					c.change(r, r.other)
					await(t, "the change is heard of", func() bool { return r.Stats().Position >= r.other.Sequence() })
				} else {
					c.change(r, r)
				}
				if asked {
					r.wantActive(t, "while the older reading is under way", false)
				}
				held.Release()
				if err := late.Wait(); err != nil {
					t.Fatal(err)
				}
				for range 3 {
					r.wantActive(t, "after the older reading has landed", false)
				}
			})
		}
	}
}

func TestConcurrentMissesAreOneReading(t *testing.T) {
	r := newCachedRig(t, store.Options{})
	held := r.faulty.Hold(storetest.OpLookup)
	defer held.Release()
	const callers = 50
	var g errgroup.Group
	ask := func() error {
		c, err := r.Lookup(context.Background(), r.token.ID)
		if err == nil && c.Token.Name != "one" {
			err = fmt.Errorf("another token: %q", c.Token.Name)
		}
		return err
	}
	g.Go(ask)
	<-held.Reached
	for range callers {
		g.Go(ask)
	}
	await(t, "all are waiting", func() bool { return r.Stats().Misses == callers+1 })
	held.Release()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if n := r.faulty.Calls()[storetest.OpLookup]; n > 2 {
		// One who has counted as a miss, and not begun to wait, may come after the reading has landed: then it is a hit.
		t.Errorf("%d readings for %d callers", n, callers+1)
	}
}

func TestWhoGivesUpReadingDoesNotFailTheOthers(t *testing.T) {
	r := newCachedRig(t, store.Options{})
	r.faulty.Hang(storetest.OpLookup)
	ctx, giveUp := context.WithCancel(t.Context())
	var first, second errgroup.Group
	first.Go(func() error {
		_, err := r.Lookup(ctx, r.token.ID)
		return err
	})
	await(t, "one is reading", func() bool { return r.faulty.Calls()[storetest.OpLookup] == 1 })
	second.Go(func() error {
		_, err := r.Lookup(context.Background(), r.token.ID)
		return err
	})
	await(t, "another waits", func() bool { return r.Stats().Misses == 2 })
	r.faulty.Fail(nil)
	giveUp()
	if err := first.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up: %v", err)
	}
	if err := second.Wait(); err != nil {
		t.Errorf("who waited: %v", err)
	}
	waiting, cancel := context.WithCancel(t.Context())
	cancel()
	r.faulty.Hang(storetest.OpLookup)
	if _, err := r.Lookup(waiting, r.token.ID+1); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that is over: %v", err)
	}
}

func TestAnOutageIsNotKeptAndDoesNotEndWhatIs(t *testing.T) {
	r := newCachedRig(t, store.Options{})
	r.faulty.Fail(storetest.Outage())
	if _, err := r.Lookup(t.Context(), r.token.ID); reason(err) != "STORE_UNAVAILABLE" {
		t.Errorf("a miss: %v", err)
	}
	if _, err := r.LookupService(t.Context(), r.service.ID); reason(err) != "STORE_UNAVAILABLE" {
		t.Errorf("a service's miss: %v", err)
	}
	r.faulty.Fail(nil)
	r.wantActive(t, "after the outage", true)
	r.faulty.Fail(storetest.Outage())
	r.wantActive(t, "in memory, in an outage", true)
}

func TestARekeyingReachesTheCache(t *testing.T) {
	r := newCachedRig(t, store.Options{FlushInterval: time.Hour})
	r.wantActive(t, "before", true)
	next := tokens.Hash{Key: "k1", Sum: [32]byte{2}}
	for _, kind := range []tokens.Kind{tokens.KindPersonal, tokens.KindAccess, tokens.KindService} {
		seen := tokens.Seen{ID: r.token.ID, Kind: kind, Rekey: &tokens.Rekey{Old: tokens.Hash{Key: "k1", Sum: [32]byte{1}}, New: next}}
		switch kind {
		case tokens.KindAccess:
			seen.ID = r.access.ID
		case tokens.KindService:
			seen.ID = r.service.ID
		}
		r.Touch(seen)
	}
	await(t, "the new digests", func() bool {
		s, err := r.LookupService(t.Context(), r.service.ID)
		if err != nil {
			t.Fatal(err)
		}
		return lookup(t, r, r.token.ID).Secrets[0].Hash == next && s.Secret.Hash == next
	})
}

func TestUnknownIDsTakeNoMemory(t *testing.T) {
	r := newCachedRig(t, store.Options{})
	r.wantActive(t, "before", true)
	before := r.Stats()
	for i := range 2000 {
		if _, err := r.Lookup(t.Context(), tokens.ID(1<<50+i)); !errors.Is(err, tokens.ErrNotFound) {
			t.Fatal(err)
		}
		if _, err := r.LookupService(t.Context(), tokens.ID(1<<50+i)); !errors.Is(err, tokens.ErrNotFound) {
			t.Fatal(err)
		}
	}
	after := r.Stats()
	if after.Tokens != before.Tokens || after.Users != before.Users || after.Services != before.Services || after.Bytes != before.Bytes {
		t.Errorf("from %+v to %+v", before, after)
	}
	r.faulty.Fail(storetest.Outage())
	r.wantActive(t, "after the flood", true)
}
