package store_test

import (
	"testing"

	"patd/store"
	"patd/store/cache"
	"patd/store/storetest"
)

// tiny is a cache that nothing stays in for long.
const tiny = 8 << 10

// cachedRig is a cache over a store that can be made to fail or wait, with records, and another handle on the same
// file, as another process has.
type cachedRig struct {
	*cache.Cache
	*storetest.Rig
	faulty *storetest.Faulty
	st     *store.Store
	other  *store.Store
}

func newCachedRig(t *testing.T, o store.Options) *cachedRig {
	t.Helper()
	path := newPath(t)
	r := &cachedRig{st: open(t, path, o), other: open(t, path, store.Options{})}
	r.faulty = storetest.NewFaulty(r.st)
	r.Cache = cache.New(r.st, cache.Options{Behind: r.faulty})
	r.Rig = storetest.NewRig(t, r.Cache)
	return r
}
