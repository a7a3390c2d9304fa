package store_test

import (
	"context"
	"testing"
	"time"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/store"
	"patd/store/cache"
)

// TestALookupTellsNoPositionOfAnotherHistory takes a part of the change feed away, as a failover does to a server that
// had not heard of it: whoever remembered an answer of before under a later position would not hear of changes to come.
func TestALookupTellsNoPositionOfAnotherHistory(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	st := openURL(t, newSchema(t, dbtest.SharedPostgres(t)), store.Options{Connections: 2})
	id := fill(t, st, 5)[0]
	cached := cache.New(st, cache.Options{})
	for range 30 {
		put(t, st, "acme")
	}
	if err := st.Feed().CatchUp(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	before := lookup(t, cached, id).Sequence
	exec1(t, st, `DELETE FROM changes WHERE seq > 5`)
	exec1(t, st, `SELECT setval(pg_get_serial_sequence('changes', 'seq'), 5)`)
	if err := st.Feed().CatchUp(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for what, got := range map[string]uint64{
		"a lookup through the cache": lookup(t, cached, id).Sequence, "a lookup": lookup(t, st, id).Sequence, "the store": st.Sequence(),
	} {
		if got > 5 || before <= 5 {
			t.Errorf("%s tells position %d (%d before); the feed ends at 5", what, got, before)
		}
	}
	put(t, st, "other")
	if got := lookup(t, st, id).Sequence; got != 6 {
		t.Errorf("after a change a lookup tells position %d, want 6", got)
	}
}

// TestLookupsThatWaitDoNotSilenceTheFeed holds what a replica comes back to memory by: after an outage every lookup
// asks the database, and were the feed to wait behind them it would not be heard again.
func TestLookupsThatWaitDoNotSilenceTheFeed(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	st := openURL(t, newSchema(t, dbtest.SharedPostgres(t)), store.Options{Connections: 1})
	feed := st.Feed()
	release, err := st.HoldLookups(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	soon, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := feed.CatchUp(soon, 0); err != nil {
		t.Errorf("the feed, while lookups wait: %v", err)
	}
}
