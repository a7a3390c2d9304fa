package tokens_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patd/internal/waittest"
	"patd/store"
	"patd/tokens"
)

// followed gives a house's service the change feed of its store.
func followed(t *testing.T, change ...func(*tokens.Config)) *house {
	t.Helper()
	return newHouse(t, append(change, func(c *tokens.Config) {
		st, ok := c.Store.(*store.Store)
		if !ok {
			t.Fatal("a house has a store")
		}
		c.Changes = st.Feed()
	})...)
}

func watch(t *testing.T, h *house, from tokens.WatchPosition) *tokens.Watch {
	t.Helper()
	w, err := h.Watch(ctx, gw, from)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func next(t *testing.T, w *tokens.Watch) tokens.Invalidations {
	t.Helper()
	in, err := w.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// hear reads a watch until it has told of what was done up to now, and answers all of it.
func hear(t *testing.T, h *house, w *tokens.Watch) (all tokens.Invalidations) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	for {
		in := next(t, w)
		all.At, all.StartOver = in.At, all.StartOver || in.StartOver
		all.TokenIDs, all.Users = append(all.TokenIDs, in.TokenIDs...), append(all.Users, in.Users...)
		if in.At.Sequence >= h.store.Sequence() {
			all.TokenIDs, all.Users = slices.Compact(all.TokenIDs), slices.Compact(all.Users)
			return all
		}
		select {
		case <-w.News():
		case <-deadline.C:
			t.Fatalf("still at %d of %d", in.At.Sequence, h.store.Sequence())
		}
	}
}

func TestAWatcherIsToldWhatIsNoLongerAsItWas(t *testing.T) {
	h := followed(t)
	h.give("u1", "a")
	m := h.mint("u1", "one", "a")
	w := watch(t, h, tokens.WatchPosition{})
	first := hear(t, h, w)
	if !first.StartOver {
		t.Error("whoever begins is not told to forget what it knew")
	}
	if again := next(t, w); again.At != first.At || again.StartOver || again.TokenIDs != nil || again.Users != nil {
		t.Errorf("without news: %+v", again)
	}
	if _, err := h.Revoke(ctx, admin, "u1", m.Token.ID.String(), ""); err != nil {
		t.Fatal(err)
	}
	for _, features := range [][]string{{"b"}, {"c"}} {
		h.give("u1", features...)
	}
	h.describe(tokens.FeatureEntry{Name: "a"}) // changes no answer about a token
	in := hear(t, h, w)
	want := tokens.Invalidations{At: in.At, TokenIDs: []tokens.ID{m.Token.ID}, Users: []string{"u1"}}
	if d := cmp.Diff(want, in); d != "" {
		t.Error(d)
	}
	resumed := hear(t, h, watch(t, h, first.At))
	if resumed.StartOver || resumed.At != in.At || len(resumed.TokenIDs) != 1 || len(resumed.Users) != 1 {
		t.Errorf("from the first position on: %+v", resumed)
	}
}

func TestAPositionOfAnotherHistoryStartsOver(t *testing.T) {
	h := followed(t)
	h.give("u1", "a")
	at := hear(t, h, watch(t, h, tokens.WatchPosition{})).At
	for name, from := range map[string]tokens.WatchPosition{
		"another history": {Sequence: at.Sequence, History: at.History + "0"},
		"no history":      {Sequence: at.Sequence},
		"the future":      {Sequence: at.Sequence + 5, History: at.History},
	} {
		in := next(t, watch(t, h, from))
		if !in.StartOver || in.At != at {
			t.Errorf("%s: %+v, want to start over at %+v", name, in, at)
		}
	}
}

func TestWhoMayWatch(t *testing.T) {
	h := followed(t)
	for _, a := range []tokens.Actor{{}, {Kind: tokens.UserActor, User: "u1"}, {Kind: tokens.TokenActor, User: "u1", TokenID: 1}} {
		_, err := h.Watch(ctx, a, tokens.WatchPosition{})
		wantReason(t, err, "PERMISSION_DENIED", a.String())
	}
	_, err := newHouse(t).Watch(ctx, gw, tokens.WatchPosition{})
	wantReason(t, err, "WATCH_UNAVAILABLE", "without a feed")
}

// deaf is a feed that has sent nothing.
type deaf struct{ tokens.ChangeFeed }

var errDeaf = tokens.StoreUnavailable("follow", errors.New("silence"))

func (deaf) Newest() (tokens.WatchPosition, error) { return tokens.WatchPosition{}, errDeaf }

func (deaf) After(tokens.WatchPosition, int) (tokens.ChangePage, error) {
	return tokens.ChangePage{}, errDeaf
}

func TestAWatchSaysThatTheStoreIsNotHeardOf(t *testing.T) {
	h := newHouse(t, func(c *tokens.Config) { c.Changes = deaf{c.Store.(*store.Store).Feed()} })
	for _, from := range []tokens.WatchPosition{{}, {Sequence: 1, History: "x"}} {
		if _, err := watch(t, h, from).Next(t.Context()); !errors.Is(err, errDeaf) {
			t.Errorf("got %v, want that nothing is known", err)
		}
	}
}

// follow runs Follow until the test ends.
func follow(t *testing.T, h *house) {
	t.Helper()
	ctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Follow(ctx, "", func(err error) { t.Errorf("follow: %v", err) })
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
}

func TestAnotherServersRefreshIsHeard(t *testing.T) {
	src := &forgetful{source: source{features: map[string][]string{}}}
	h := followed(t, func(c *tokens.Config) { c.Features = src })
	other, err := tokens.NewService(tokens.Config{Store: h.store, Keys: h.ring, Now: h.now})
	if err != nil {
		t.Fatal(err)
	}
	follow(t, h)
	waittest.Until(t, "a refresh is heard", func() bool {
		// Again and again, for Follow begins at no moment that can be told from here.
		if err := other.RefreshUser(ctx, admin, "u1"); err != nil {
			t.Fatal(err)
		}
		return src.forgotten() != ""
	})
}

// TestOwnRefreshForgetsOnce holds that a server which receives its own refresh from the change feed keeps what it has
// learnt of the user since, and that another server's refresh of the same user is still heeded.
func TestOwnRefreshForgetsOnce(t *testing.T) {
	src := &forgetful{source: source{features: map[string][]string{}}}
	h := followed(t, func(c *tokens.Config) { c.Features = src })
	other, err := tokens.NewService(tokens.Config{Store: h.store, Keys: h.ring, Now: h.now})
	if err != nil {
		t.Fatal(err)
	}
	follow(t, h)
	count := func(user string) (n int) {
		for _, forgot := range strings.Fields(src.forgotten()) {
			if forgot == user {
				n++
			}
		}
		return n
	}
	refresh := func(s *tokens.Service, user string) {
		t.Helper()
		if err := s.RefreshUser(ctx, admin, user); err != nil {
			t.Fatal(err)
		}
	}
	waittest.Until(t, "the feed is followed", func() bool { refresh(other, "mark0"); return count("mark0") > 0 })
	for range 3 {
		refresh(h.Service, "u1")
	}
	refresh(other, "mark1")
	waittest.Until(t, "its own refreshes are received", func() bool { return count("mark1") > 0 })
	if n := count("u1"); n != 3 {
		t.Errorf("3 refreshes forgot the user %d times", n)
	}
	refresh(other, "u1")
	waittest.Until(t, "another server's refresh is received", func() bool { return count("u1") == 4 })
}

// TestOwnEventOfASourcesChangeForgetsNothing changes what the source says: the server that writes the event has the new
// answer, and keeps it for the outage that may follow.
func TestOwnEventOfASourcesChangeForgetsNothing(t *testing.T) {
	src := &tellingCache{telling: telling{source: source{features: map[string][]string{"u1": {"a"}}}}}
	h := followed(t, func(c *tokens.Config) { c.Features = src })
	other, err := tokens.NewService(tokens.Config{Store: h.store, Keys: h.ring, Now: h.now})
	if err != nil {
		t.Fatal(err)
	}
	h.mint("u1", "one", "a")
	follow(t, h)
	refresh := func(user string) {
		t.Helper()
		if err := other.RefreshUser(ctx, admin, user); err != nil {
			t.Fatal(err)
		}
	}
	forgot := func(user string) bool { return slices.Contains(strings.Fields(src.forgotten()), user) }
	waittest.Until(t, "the feed is followed", func() bool { refresh("mark0"); return forgot("mark0") })
	src.says(h.now(), "u1")
	if got := h.recorded(1); len(got) != 1 {
		t.Fatalf("events %q, want one", got)
	}
	refresh("mark1")
	waittest.Until(t, "the event's entry is received", func() bool { return forgot("mark1") })
	if forgot("u1") {
		t.Error("the server dropped the answer that its own event tells of")
	}
	refresh("u1")
	waittest.Until(t, "another server's entry is received", func() bool { return forgot("u1") })
}

// tellingCache announces what it answers, and keeps it until it is told to forget.
type tellingCache struct {
	telling
	forgetful
}

func (c *tellingCache) Features(ctx context.Context, u tokens.User, fresh bool) (tokens.Held, error) {
	return c.telling.Features(ctx, u, fresh)
}

func (*tellingCache) Local() bool { return false }

func TestAnotherServersPrefixIsLearnt(t *testing.T) {
	h := followed(t)
	h.give("u1", "a")
	follow(t, h)
	acme, err := tokens.BindKeys(ctx, h.store, h.ring.Get(), "acme", h.now())
	if err != nil {
		t.Fatal(err)
	}
	other, err := tokens.NewService(tokens.Config{Store: h.store, Keys: h.ring, Prefixes: acme, Now: h.now})
	if err != nil {
		t.Fatal(err)
	}
	m, err := other.Mint(ctx, admin, tokens.MintRequest{User: "u1", Name: "n", Scopes: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	waittest.Until(
		t,
		"a token under the new prefix is known",
		func() bool { return h.ask(m.Secret).Decision == tokens.Allow },
	)
}
