package usage_test

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"patd/store/cache"
	"patd/store/feed"
	"patd/store/usage"
	"patd/tokens"
)

// anyToken is a store that has every token there may be. Its changes happen nowhere.
type anyToken struct {
	tokens.Store
	feed *feed.Feed
	uses *usage.Buffer
}

var _ cache.Source = (*anyToken)(nil)

func newAnyToken(t *testing.T, room int64) *anyToken {
	t.Helper()
	s := &anyToken{uses: usage.NewBuffer(room)}
	s.feed = feed.New(feed.Config{Source: noEntries{}, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	if err := s.feed.CatchUp(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *anyToken) Feed() *feed.Feed          { return s.feed }
func (s *anyToken) Uses() *usage.Buffer       { return s.uses }
func (*anyToken) Ready(context.Context) error { return nil }
func (*anyToken) ChangesFail() error          { return nil }

func (*anyToken) Lookup(_ context.Context, id tokens.ID) (tokens.Credential, error) {
	now, key := time.Unix(1_700_000_000, 0).UTC(), int64(id%64)+1
	user := "u" + string(rune('a'+key))
	return tokens.Credential{
		Token:   tokens.Token{ID: id, UserKey: key, User: user, Name: "n", Scopes: []string{"a"}, IssueTime: now},
		User:    tokens.User{Key: key, ID: user, State: tokens.UserActive, CreateTime: now},
		Secrets: []tokens.StoredSecret{{Hash: tokens.Hash{Key: "k1"}}},
	}, nil
}

func (*anyToken) Update(_ context.Context, fn func(tokens.Tx) ([]tokens.Event, error)) error {
	_, err := fn(nil)
	return err
}

// noEntries is a change feed without entries.
type noEntries struct{}

func (noEntries) Entries(context.Context, uint64, int) ([]feed.Entry, error) { return nil, nil }
func (noEntries) NewestEntries(context.Context, int) ([]feed.Entry, error)   { return nil, nil }
func (noEntries) Heads(context.Context, int64) (feed.Heads, error)           { return feed.Heads{}, nil }

func use(t *testing.T, c *cache.Cache, id tokens.ID) {
	t.Helper()
	if _, err := c.Lookup(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	c.RecordUse(tokens.Usage{ID: id, Use: tokens.Use{Time: time.Unix(int64(id), 0)}})
}

// TestUsesThatWaitOutsideOfTheCacheAreBounded has tokens leave a small cache while no use is written.
func TestUsesThatWaitOutsideOfTheCacheAreBounded(t *testing.T) {
	t.Parallel()
	const room = 1000
	s := newAnyToken(t, room)
	c := cache.New(s, cache.Options{Size: 1 << 20})
	for i := range 20 * room {
		use(t, c, tokens.ID(i+1))
	}
	if n, dropped := s.uses.Held(), s.uses.Dropped(); n > room || dropped < room {
		t.Errorf("%d uses wait, of %d at most; %d were dropped", n, room, dropped)
	}
}

// meanwhile is a keeper that has something happen after it has said which uses it has, and after each that it was asked
// for.
type meanwhile struct {
	usage.Keeper
	step func()
}

func (m *meanwhile) Pending(ids []tokens.ID) []tokens.ID {
	defer m.step()
	return m.Keeper.Pending(ids)
}

func (m *meanwhile) Take(id tokens.ID) (usage.Use, bool) {
	defer m.step()
	return m.Keeper.Take(id)
}

// TestAFlushWritesUsesThatMoveMeanwhile has a token leave the cache between any two steps of a flush, of all
// tokens or of some.
func TestAFlushWritesUsesThatMoveMeanwhile(t *testing.T) {
	t.Parallel()
	for when := range 8 {
		when, ofSome := when/2, when%2 == 1
		s := newAnyToken(t, 0)
		c := cache.New(s, cache.Options{})
		at := 0
		empty := func() {
			if at++; at != when+1 {
				return
			}
			err := c.Update(t.Context(), func(tokens.Tx) ([]tokens.Event, error) { // one that may be of any record
				return []tokens.Event{{Outcome: tokens.OutcomeSuccess}}, nil
			})
			if err != nil || c.Stats().Tokens != 0 {
				t.Errorf("%v; %d tokens are in memory", err, c.Stats().Tokens)
			}
		}
		s.uses.Wrap(func(k usage.Keeper) usage.Keeper { return &meanwhile{Keeper: k, step: empty} })
		use(t, c, 1)
		var written []usage.Used
		write := func(_ context.Context, batch []usage.Used) error {
			written = append(written, batch...)
			return nil
		}
		var of []tokens.ID
		if ofSome {
			of = []tokens.ID{2, 1}
		}
		err := s.uses.FlushUses(t.Context(), of, write)
		if err != nil || len(written) != 1 || written[0] != (usage.Used{ID: 1, Use: usage.Use{Micros: 1e6}}) || at < 2 {
			t.Errorf("of some: %t, cleared after step %d of %d: written %+v, %v", ofSome, when+1, at, written, err)
		}
	}
}

// TestAFlushOfSomeLeavesTheOthers flushes the uses of some tokens, in any order, twice the same.
func TestAFlushOfSomeLeavesTheOthers(t *testing.T) {
	t.Parallel()
	s := newAnyToken(t, 0)
	c := cache.New(s, cache.Options{})
	for id := range tokens.ID(5) {
		use(t, c, id+1)
	}
	flush := func(of ...tokens.ID) (written []tokens.ID) {
		err := s.uses.FlushUses(t.Context(), of, func(_ context.Context, batch []usage.Used) error {
			for _, u := range batch {
				written = append(written, u.ID)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return written
	}
	if got := flush(4, 2, 4, 9); !slices.Equal(got, []tokens.ID{2, 4}) {
		t.Errorf("a flush of 2 and 4 wrote %v", got)
	}
	if got := flush(2, 3); !slices.Equal(got, []tokens.ID{3}) {
		t.Errorf("a flush of 3, and of 2 again, wrote %v", got)
	}
	if got := flush([]tokens.ID{}...); len(got) > 0 {
		t.Errorf("a flush of none wrote %v", got)
	}
	var left []tokens.ID
	err := s.uses.FlushUses(t.Context(), nil, func(_ context.Context, batch []usage.Used) error {
		for _, u := range batch {
			left = append(left, u.ID)
		}
		return nil
	})
	if err != nil || !slices.Equal(left, []tokens.ID{1, 5}) {
		t.Errorf("1 and 5 were left; a flush of all wrote %v, %v", left, err)
	}
}
