package store_test

import (
	"testing"

	"patd/store"
	"patd/store/storetest"
	"patd/tokens"
)

// tiny is a cache that nothing stays in for long.
const tiny = 8 << 10

func openCached(t *testing.T, o store.CacheOptions) *store.Cached {
	t.Helper()
	return store.NewCached(open(t, newPath(t), store.Options{}), o)
}

func TestCached(t *testing.T) {
	for name, size := range map[string]int64{"roomy": 0, "tiny": tiny} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) tokens.Store { return openCached(t, store.CacheOptions{Size: size}) })
		})
	}
}

func TestCachedOverFaulty(t *testing.T) {
	storetest.Run(t, func(t *testing.T) tokens.Store {
		st := open(t, newPath(t), store.Options{})
		return store.NewCached(st, store.CacheOptions{Behind: storetest.NewFaulty(st)})
	})
}

func TestAFaultIsNeverAnAnswerThroughTheCache(t *testing.T) {
	storetest.RunFaults(t, func(t *testing.T) tokens.Store { return openCached(t, store.CacheOptions{}) })
}
