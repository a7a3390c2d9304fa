package cache_test

import (
	"net/netip"
	"testing"
	"time"

	"patd/store"
	"patd/store/cache"
	"patd/tokens"
)

// rename changes a token, and tells the cache of e.
func rename(t *testing.T, c *cache.Cache, id tokens.ID, e tokens.Event) {
	t.Helper()
	e.Time, e.Actor, e.Action, e.Outcome = time.Now(), "operator", tokens.ActionTokenUpdate, tokens.OutcomeSuccess
	must(t, c.Update(t.Context(), func(tx tokens.Tx) ([]tokens.Event, error) {
		tok, err := tx.Token(id)
		if err != nil {
			return nil, err
		}
		tok.Name = "another"
		return []tokens.Event{e}, tx.UpdateToken(tok)
	}))
}

// TestUsesOutliveWhatTheCacheForgets notes uses of tokens in memory, and has the tokens leave it before they are
// written.
func TestUsesOutliveWhatTheCacheForgets(t *testing.T) {
	t.Parallel()
	for name, forget := range map[string]func(*testing.T, *cache.Cache, tokens.ID){
		"nothing":          func(*testing.T, *cache.Cache, tokens.ID) {},
		"it is renamed":    func(t *testing.T, c *cache.Cache, id tokens.ID) { rename(t, c, id, tokens.Event{TokenID: id}) },
		"anything changed": func(t *testing.T, c *cache.Cache, id tokens.ID) { rename(t, c, id, tokens.Event{}) },
		"it is read anew": func(t *testing.T, c *cache.Cache, id tokens.ID) {
			rename(t, c, id, tokens.Event{TokenID: id})
			lookup(t, c, id)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			st, err := store.Open(t.Context(), "sqlite:"+path, store.Options{FlushInterval: time.Hour})
			must(t, err)
			c := cache.New(st, cache.Options{})
			ids := fill(t, st, 1220) // more than a transaction takes, and than a statement does
			must(t, st.Feed().CatchUp(t.Context(), 0))
			use := tokens.Use{Time: time.Now().UTC().Truncate(time.Microsecond), IP: netip.MustParseAddr("2001:db8::1")}
			for _, id := range ids {
				lookup(t, c, id)
				c.RecordUse(tokens.Usage{ID: id, Use: use})
			}
			forget(t, c, ids[0])
			later := tokens.Use{Time: use.Time.Add(time.Second)}
			c.RecordUse(tokens.Usage{ID: ids[0], Use: later})
			c.RecordUse(tokens.Usage{ID: ids[0], Use: use})
			must(t, st.Close())
			st = open(t, path, store.Options{})
			wantUses(t, st, ids, use, later)
		})
	}
}

// TestUsesOfEvictedTokensAreWritten has a cache that nothing stays in for long.
func TestUsesOfEvictedTokensAreWritten(t *testing.T) {
	t.Parallel()
	st := open(t, newPath(t), store.Options{FlushInterval: time.Hour})
	c := cache.New(st, cache.Options{Size: tiny})
	ids := fill(t, st, 300)
	use := tokens.Use{Time: time.Now().UTC().Truncate(time.Microsecond)}
	for _, id := range ids {
		lookup(t, c, id)
		c.RecordUse(tokens.Usage{ID: id, Use: use})
	}
	if c.Stats().Evicted == 0 {
		t.Fatal("nothing was evicted")
	}
	must(t, st.Flush(t.Context()))
	for _, id := range ids {
		if got := lastUse(t, st, id); got != use {
			t.Fatalf("token %s: last used %+v", id, got)
		}
	}
}

// wantUses wants a later use of the first token, and one of each other.
func wantUses(t *testing.T, st *store.Store, ids []tokens.ID, use, later tokens.Use) {
	t.Helper()
	want := later
	for i, id := range ids {
		if got := lastUse(t, st, id); got != want {
			t.Fatalf("token %d: last used %+v, want %+v", i, got, want)
		}
		want = use
	}
}
