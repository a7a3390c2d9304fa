package cache_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"patd/internal/longtest"
	"patd/internal/waittest"
	"patd/store"
	"patd/store/storetest"
	"patd/tokens"
	"patd/tokens/secret"
)

// TestAFillThatRacesAChangeIsNotKept holds a reading of the store between the read and the fill, and changes what was
// read.
func TestAFillThatRacesAChangeIsNotKept(t *testing.T) {
	t.Parallel()
	longtest.Slow(t)
	changes := map[string]struct {
		op     storetest.Op
		change func(*rig, tokens.Store)
	}{
		"token revoked":  {storetest.OpLookup, func(r *rig, st tokens.Store) { r.Revoke(t, st) }},
		"user suspended": {storetest.OpLookup, func(r *rig, st tokens.Store) { r.Suspend(t, st) }},
		"access token revoked": {storetest.OpLookupAccess, func(r *rig, st tokens.Store) {
			// What ends an access token names the personal access token that it came of.
			r.Change(t, st, tokens.Event{TokenID: r.Token.ID, User: r.User.ID}, func(tx tokens.Tx) error {
				_, err := tx.RevokeAccess(r.Access.ID, tokens.Revocation{Time: time.Now(), By: "operator"})
				return err
			})
		}},
		"service revoked": {storetest.OpLookupService, func(r *rig, st tokens.Store) {
			r.Change(t, st, tokens.Event{Service: r.Service.Name, TokenID: r.Service.ID}, func(tx tokens.Tx) error {
				return tx.RevokeService(r.Service.ID, tokens.Revocation{Time: time.Now(), By: "operator"})
			})
		}},
		"something unnamed": {storetest.OpLookup, func(r *rig, st tokens.Store) {
			r.Change(t, st, tokens.Event{}, func(tx tokens.Tx) error {
				_, err := tx.RevokeTokens(r.User.Key, tokens.Revocation{Time: time.Now(), By: "operator"})
				return err
			})
		}},
	}
	for name, c := range changes {
		for n := range 4 {
			elsewhere, asked := n%2 == 1, n/2 == 1 // a lookup in between begins a reading of its own, in place of the older one
			t.Run(fmt.Sprintf("%s, elsewhere %v, asked for meanwhile %v", name, elsewhere, asked), func(t *testing.T) {
				r := newRig(t, store.Options{})
				held := r.faulty.Hold(c.op)
				defer held.Release()
				var late errgroup.Group
				late.Go(func() error {
					_, err := r.Active(context.Background())
					return err
				})
				<-held.Reached
				if elsewhere {
					c.change(r, r.other)
					waittest.Until(
						t,
						"the change is received",
						func() bool { return r.Stats().Position >= r.other.Sequence() },
					)
				} else {
					c.change(r, r)
				}
				if asked {
					r.WantActive(t, "while the older reading is under way", false)
				}
				held.Release()
				if err := late.Wait(); err != nil {
					t.Fatal(err)
				}
				for range 3 {
					r.WantActive(t, "after the older reading has landed", false)
				}
			})
		}
	}
}

// TestNoChangeOfAServiceKeepsTheMark changes a service here and elsewhere, before its record was read and after: the
// mark from before the reading does not survive the change.
func TestNoChangeOfAServiceKeepsTheMark(t *testing.T) {
	t.Parallel()
	for n := range 4 {
		elsewhere, known := n%2 == 1, n/2 == 1
		t.Run(fmt.Sprintf("elsewhere %v, known %v", elsewhere, known), func(t *testing.T) {
			r := newRig(t, store.Options{})
			waittest.Until(t, "the feed is followed", func() bool { return r.ServiceMark(time.Now()) != 0 })
			if known {
				if _, err := r.LookupService(t.Context(), r.Service.ID); err != nil {
					t.Fatal(err)
				}
			}
			before := r.ServiceMark(time.Now())
			if again := r.ServiceMark(time.Now()); before == 0 || again != before {
				t.Fatalf("without a change the mark goes from %d to %d", before, again)
			}
			by := tokens.Store(r)
			if elsewhere {
				by = r.other
			}
			r.Change(t, by, tokens.Event{Service: r.Service.Name, TokenID: r.Service.ID}, func(tx tokens.Tx) error {
				return tx.RevokeService(r.Service.ID, tokens.Revocation{Time: time.Now(), By: "operator"})
			})
			if !elsewhere && r.ServiceMark(time.Now()) == before {
				t.Error("the change was made, and the mark is as before")
			}
			waittest.Until(t, "the change is received", func() bool { return r.Stats().Position >= r.other.Sequence() })
			if r.ServiceMark(time.Now()) == before {
				t.Error("the change was received, and the mark is as before")
			}
		})
	}
}

func TestConcurrentMissesAreOneReading(t *testing.T) {
	t.Parallel()
	r := newRig(t, store.Options{})
	held := r.faulty.Hold(storetest.OpLookup)
	defer held.Release()
	const callers = 50
	var g errgroup.Group
	ask := func() error {
		c, err := r.Lookup(context.Background(), r.Token.ID)
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
	waittest.Until(t, "all are waiting", func() bool { return r.Stats().Misses == callers+1 })
	held.Release()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if n := r.faulty.Calls()[storetest.OpLookup]; n > 2 {
		// One who has counted as a miss, and not begun to wait, may come after the reading has landed: then it is a
		// hit.
		t.Errorf("%d readings for %d callers", n, callers+1)
	}
}

func TestWhoGivesUpReadingDoesNotFailTheOthers(t *testing.T) {
	t.Parallel()
	r := newRig(t, store.Options{})
	r.faulty.Hang(storetest.OpLookup)
	ctx, giveUp := context.WithCancel(t.Context())
	var first, second errgroup.Group
	first.Go(func() error {
		_, err := r.Lookup(ctx, r.Token.ID)
		return err
	})
	waittest.Until(t, "one is reading", func() bool { return r.faulty.Calls()[storetest.OpLookup] == 1 })
	second.Go(func() error {
		_, err := r.Lookup(context.Background(), r.Token.ID)
		return err
	})
	waittest.Until(t, "another waits", func() bool { return r.Stats().Misses == 2 })
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
	if _, err := r.Lookup(waiting, r.Token.ID+1); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that is over: %v", err)
	}
}

func TestAnOutageIsNotKeptAndDoesNotEndWhatIs(t *testing.T) {
	t.Parallel()
	r := newRig(t, store.Options{})
	r.faulty.Fail(storetest.Outage())
	if _, err := r.Lookup(t.Context(), r.Token.ID); reason(err) != "STORE_UNAVAILABLE" {
		t.Errorf("a miss: %v", err)
	}
	if _, err := r.LookupService(t.Context(), r.Service.ID); reason(err) != "STORE_UNAVAILABLE" {
		t.Errorf("a service's miss: %v", err)
	}
	r.faulty.Fail(nil)
	r.WantActive(t, "after the outage", true)
	r.faulty.Fail(storetest.Outage())
	r.WantActive(t, "in memory, in an outage", true)
}

func TestARekeyingReachesTheCache(t *testing.T) {
	t.Parallel()
	r := newRig(t, store.Options{FlushInterval: time.Hour})
	r.WantActive(t, "before", true)
	next := tokens.Hash{Key: "k1", Sum: [32]byte{2}}
	for _, kind := range []tokens.Kind{secret.KindPersonal, secret.KindAccess, secret.KindService} {
		seen := tokens.Usage{
			ID:    r.Token.ID,
			Kind:  kind,
			Rekey: &tokens.Rekey{Old: tokens.Hash{Key: "k1", Sum: [32]byte{1}}, New: next},
		}
		switch kind {
		case secret.KindAccess:
			seen.ID = r.Access.ID
		case secret.KindService:
			seen.ID = r.Service.ID
		}
		r.RecordUse(seen)
	}
	waittest.Until(t, "the new digests", func() bool {
		s, err := r.LookupService(t.Context(), r.Service.ID)
		if err != nil {
			t.Fatal(err)
		}
		return lookup(t, r, r.Token.ID).Secrets[0].Hash == next && s.Secret.Hash == next
	})
}

func TestUnknownIDsTakeNoMemory(t *testing.T) {
	t.Parallel()
	r := newRig(t, store.Options{})
	r.WantActive(t, "before", true)
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
	if after.Tokens != before.Tokens || after.Users != before.Users || after.Services != before.Services ||
		after.Bytes != before.Bytes {
		t.Errorf("from %+v to %+v", before, after)
	}
	r.faulty.Fail(storetest.Outage())
	r.WantActive(t, "after the flood", true)
}
