package cache_test

import (
	"slices"
	"testing"

	"patd/internal/longtest"
	"patd/store"
	"patd/store/cache"
	"patd/store/storetest"
	"patd/tokens"
)

func TestCached(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int64{"roomy": 0, "tiny": tiny} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) tokens.Store { return openCached(t, cache.Options{Size: size}) })
		})
	}
}

func TestCachedOverFaulty(t *testing.T) {
	t.Parallel()
	longtest.Slow(t)
	storetest.Run(t, func(t *testing.T) tokens.Store {
		st := open(t, newPath(t), store.Options{})
		return flusher{cache.New(st, cache.Options{Behind: storetest.NewFaulty(st)}), st}
	})
}

func TestAFaultIsNeverAnAnswerThroughTheCache(t *testing.T) {
	t.Parallel()
	storetest.RunFaults(t, func(t *testing.T) tokens.Store { return openCached(t, cache.Options{}) })
}

// TestUsersThatShareFeaturesKeepTheirOwn has lists that many share, that one has, and that change.
func TestUsersThatShareFeaturesKeepTheirOwn(t *testing.T) {
	t.Parallel()
	r := newRig(t, store.Options{})
	want := map[tokens.ID][]string{}
	for i := range 60 {
		u := r.User
		u.ID, u.Features = "many"+string(
			rune('a'+i),
		), [][]string{{"a", "b"}, {"a", "c"}, {"own" + string(rune('a'+i))}, nil}[i%4]
		tok := r.Token
		tok.ID += tokens.ID(i+1) << 22
		tok.User = u.ID
		r.Change(t, r.Cache, tokens.Event{TokenID: tok.ID, User: u.ID}, func(tx tokens.Tx) (err error) {
			if u.Key, err = tx.InsertUser(u); err != nil {
				return err
			}
			tok.UserKey = u.Key
			return tx.InsertToken(tok, tokens.Hash{Key: "k1", Sum: [32]byte{byte(i)}})
		})
		want[tok.ID] = u.Features
	}
	for _, from := range []string{"the store", "memory"} {
		for id, features := range want {
			if got := lookup(t, r, id).User.Features; !slices.Equal(got, features) {
				t.Errorf("features from %s: %v, want %v", from, got, features)
			}
		}
		r.faulty.Fail(storetest.Outage()) // from now on only memory answers
	}
}
