package cache_test

import (
	"testing"
	"time"

	"patd/store"
	"patd/store/cache"
	"patd/store/storetest"
	"patd/tokens"
)

// TestAccessTokensAreAnsweredFromMemoryUntilTheirTokenChanges also holds that what is kept of them is bounded.
func TestAccessTokensAreAnsweredFromMemoryUntilTheirTokenChanges(t *testing.T) {
	t.Parallel()
	r := newRig(t, store.Options{})
	readings := func() int { return r.faulty.Calls()[storetest.OpLookupAccess] }
	look := func() {
		t.Helper()
		a, err := r.LookupAccess(t.Context(), r.Access.ID)
		if err != nil || a.Access.TokenID != r.Token.ID || a.Sequence < r.st.Sequence() {
			t.Fatalf("looked up %+v, %v; the store is at %d", a, err, r.st.Sequence())
		}
	}
	for range 5 {
		look()
	}
	if n := readings(); n != 1 {
		t.Errorf("%d readings for five lookups", n)
	}
	r.Change(
		t,
		r.Cache,
		tokens.Event{TokenID: r.Token.ID, User: r.User.ID},
		func(tx tokens.Tx) error { return tx.UpdateToken(r.Token) },
	)
	look()
	if n := readings(); n != 2 {
		t.Errorf("%d readings after a change of the token, want 2", n)
	}
	r.faulty.Fail(storetest.Outage())
	look()
}

func TestAccessTokensInMemoryAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, store.Options{})
	small := cache.New(r.st, cache.Options{Size: 1 << 20})
	const n = 1000
	now := time.Now().UTC().Truncate(time.Microsecond)
	r.Change(t, small, tokens.Event{TokenID: r.Token.ID, User: r.User.ID}, func(tx tokens.Tx) error {
		for i := range n {
			a := r.Access
			a.ID += tokens.ID(i + 1)
			a.IssueTime = now
			if err := tx.InsertAccess(a, tokens.Hash{Key: "k1", Sum: [32]byte{1}}); err != nil {
				return err
			}
		}
		return nil
	})
	for i := range n {
		if _, err := small.LookupAccess(t.Context(), r.Access.ID+tokens.ID(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	s := small.Stats()
	if s.Accesses == 0 || s.Accesses > 200 || s.Evicted < n-200 {
		t.Errorf("%d in memory, %d evicted, of %d in a cache of 1 MiB", s.Accesses, s.Evicted, n)
	}
	r.Change(
		t,
		small,
		tokens.Event{TokenID: r.Token.ID, User: r.User.ID},
		func(tx tokens.Tx) error { return tx.UpdateToken(r.Token) },
	)
	if s := small.Stats(); s.Accesses != 0 {
		t.Errorf("%d are left after a change of their token", s.Accesses)
	}
}
