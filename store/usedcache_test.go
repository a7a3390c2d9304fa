package store_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"patd/store"
	"patd/store/storetest"
	"patd/tokens"
)

// rename changes a token, and tells the cache of e.
func rename(t *testing.T, c *store.Cached, id tokens.ID, e tokens.Event) {
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

// TestUsesOutliveWhatTheCacheForgets notes uses of tokens in memory, and has the tokens leave it before they are written.
func TestUsesOutliveWhatTheCacheForgets(t *testing.T) {
	for name, forget := range map[string]func(*testing.T, *store.Cached, tokens.ID){
		"nothing":          func(*testing.T, *store.Cached, tokens.ID) {},
		"it is renamed":    func(t *testing.T, c *store.Cached, id tokens.ID) { rename(t, c, id, tokens.Event{TokenID: id}) },
		"anything changed": func(t *testing.T, c *store.Cached, id tokens.ID) { rename(t, c, id, tokens.Event{}) },
		"it is read anew": func(t *testing.T, c *store.Cached, id tokens.ID) {
			rename(t, c, id, tokens.Event{TokenID: id})
			lookup(t, c, id)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			st, err := store.Open(t.Context(), "sqlite:"+path, store.Options{FlushInterval: time.Hour})
			must(t, err)
			c := store.NewCached(st, store.CacheOptions{})
			ids := fill(t, st, 1220) // more than a transaction takes, and than a statement does
			must(t, c.HearNow(t.Context()))
			use := tokens.Use{Time: time.Now().UTC().Truncate(time.Microsecond), IP: netip.MustParseAddr("2001:db8::1")}
			for _, id := range ids {
				lookup(t, c, id)
				c.Touch(tokens.Seen{ID: id, Use: use})
			}
			forget(t, c, ids[0])
			later := tokens.Use{Time: use.Time.Add(time.Second)}
			c.Touch(tokens.Seen{ID: ids[0], Use: later})
			c.Touch(tokens.Seen{ID: ids[0], Use: use})
			must(t, st.Close())
			st = open(t, path, store.Options{})
			wantUses(t, st, ids, use, later)
		})
	}
}

// TestUsesOfEvictedTokensAreWritten has a cache that nothing stays in for long.
func TestUsesOfEvictedTokensAreWritten(t *testing.T) {
	st := open(t, newPath(t), store.Options{FlushInterval: time.Hour})
	c := store.NewCached(st, store.CacheOptions{Size: tiny})
	ids := fill(t, st, 300)
	use := tokens.Use{Time: time.Now().UTC().Truncate(time.Microsecond)}
	for _, id := range ids {
		lookup(t, c, id)
		c.Touch(tokens.Seen{ID: id, Use: use})
	}
	if c.Stats().Evicted == 0 {
		t.Fatal("nothing was evicted")
	}
	must(t, c.Flush(t.Context()))
	for _, id := range ids {
		if got := lastUse(t, st, id); got != use {
			t.Fatalf("token %s: last used %+v", id, got)
		}
	}
}

// TestUsesAreKeptUntilTheyCanBeWritten fails the write, and takes a later use meanwhile.
func TestUsesAreKeptUntilTheyCanBeWritten(t *testing.T) {
	for _, cached := range []bool{false, true} {
		t.Run(fmt.Sprintf("cached %v", cached), func(t *testing.T) {
			st := open(t, newPath(t), store.Options{FlushInterval: time.Hour})
			var over tokens.Store = st
			if cached {
				over = store.NewCached(st, store.CacheOptions{})
			}
			ids := fill(t, st, 2500)
			exec1(t, st, `CREATE TRIGGER broken BEFORE INSERT ON uses WHEN NEW.token_id = (SELECT max(id) FROM tokens) BEGIN SELECT RAISE(ABORT, 'broken'); END`)
			use := tokens.Use{Time: time.Now().UTC().Truncate(time.Microsecond)}
			for _, id := range ids {
				lookup(t, over, id)
				over.Touch(tokens.Seen{ID: id, Use: use})
			}
			for range 2 {
				if err := st.Flush(t.Context()); reason(err) != "STORE_UNAVAILABLE" {
					t.Errorf("flush: %v", err)
				}
			}
			later := tokens.Use{Time: use.Time.Add(time.Minute)}
			over.Touch(tokens.Seen{ID: ids[0], Use: later})
			exec1(t, st, `DROP TRIGGER broken`)
			must(t, st.Flush(t.Context()))
			wantUses(t, st, ids, use, later)
			if n := count(t, st, "uses"); n != "2500" {
				t.Errorf("%s rows of uses", n)
			}
		})
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

// TestTheLaterOfAnOldAndANewUseCounts reads a store that a program from before the table of uses goes on writing.
func TestTheLaterOfAnOldAndANewUseCounts(t *testing.T) {
	st := open(t, newPath(t), store.Options{FlushInterval: time.Hour})
	ids := fill(t, st, 4)
	at := func(us int64) tokens.Use { return tokens.Use{Time: time.UnixMicro(us).UTC()} }
	exec1(t, st, `UPDATE tokens SET last_used_us = 20, last_used_ip = x'c0000201'`)
	for i, us := range []int64{10, 20, 30} {
		st.Touch(tokens.Seen{ID: ids[i], Use: at(us)})
	}
	must(t, st.Flush(t.Context()))
	old := tokens.Use{Time: time.UnixMicro(20).UTC(), IP: netip.MustParseAddr("192.0.2.1")}
	for i, want := range []tokens.Use{old, at(20), at(30), old} {
		if got := lastUse(t, st, ids[i]); got != want {
			t.Errorf("token %d: last used %+v, want %+v", i, got, want)
		}
	}
}

// TestUsersThatShareFeaturesKeepTheirOwn has lists that many share, that one has, and that change.
func TestUsersThatShareFeaturesKeepTheirOwn(t *testing.T) {
	r := newCachedRig(t, store.Options{})
	want := map[tokens.ID][]string{}
	for i := range 60 {
		u := r.user
		u.ID, u.Features = "many"+string(rune('a'+i)), [][]string{{"a", "b"}, {"a", "c"}, {"own" + string(rune('a'+i))}, nil}[i%4]
		tok := r.token
		tok.ID += tokens.ID(i+1) << 22
		tok.User = u.ID
		r.change(t, r.Cached, tokens.Event{TokenID: tok.ID, User: u.ID}, func(tx tokens.Tx) (err error) {
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
