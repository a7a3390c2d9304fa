package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// WatchPosition is a place in the change feed. The zero one stands for now.
type WatchPosition struct {
	Sequence uint64
	// History tells the place from the same number in another feed, as after a restore. It is opaque.
	History string
}

// Invalidations is what is no longer as it was since the Invalidations before; often nothing.
type Invalidations struct {
	// At is how far this tells: all changes up to it have been told.
	At WatchPosition
	// StartOver says that whatever was known before is to be forgotten: the watcher is too far behind, comes from another
	// history, or begins.
	StartOver bool
	TokenIDs  []ID     // sorted, without duplicates; ids of services may be among them
	Users     []string // sorted, without duplicates; all their tokens are meant
}

// watchBatch is how many changes one Invalidations tells of at most.
const watchBatch = 1000

// Watch is a place in the change feed that moves on with each Next. It holds nothing else, and needs no closing. It is
// for one goroutine.
type Watch struct {
	service   *Service
	feed      ChangeFeed
	audience  string // that the watcher is bound to; empty: none
	named     uint64 // how often the audiences that must be named had changed when the watch last looked
	at        WatchPosition
	news      <-chan struct{}
	startOver bool
}

// Watch begins to tell what is no longer as it was, from the position of the last Invalidations that the watcher has
// seen, or from now. UNAVAILABLE where the store is not followed.
//
// A service that is bound to an audience is told of what introspection could tell it, and of nothing else: of tokens for its
// audience or for none in particular, and of users who hold such a token.
func (s *Service) Watch(_ context.Context, a Actor, from WatchPosition) (*Watch, error) {
	if err := s.manager(a); err != nil {
		return nil, err
	}
	if s.changes == nil {
		return nil, Fail(CodeUnavailable, "WATCH_UNAVAILABLE", "this server does not follow its store")
	}
	w := &Watch{service: s, feed: s.changes, audience: a.Audience, named: s.named.changes.Load(), at: from}
	if from.Sequence == 0 {
		// Of whoever begins nothing is known: if it has memories, they are of unknown age.
		w.startOver = true
	}
	return w, nil
}

// Next returns what there is to tell now, without waiting, and how far that goes; there may be nothing. The first one
// tells where the watch began. The error says that the store cannot be followed: what the watcher knows is not to be
// trusted any longer.
func (w *Watch) Next(ctx context.Context) (Invalidations, error) {
	if n := w.service.named.changes.Load(); n != w.named {
		w.named, w.startOver = n, true // answers about tokens that name no audience rest on it, and no entry says which
	}
	news := w.feed.News() // before the look, so that none is missed between the two
	if w.startOver {
		at, err := w.feed.Newest()
		if err != nil {
			return Invalidations{}, err
		}
		w.at, w.news, w.startOver = at, news, false
		return Invalidations{At: at, StartOver: true}, nil
	}
	page, err := w.feed.After(w.at, watchBatch)
	if err != nil {
		return Invalidations{}, err
	}
	out := Invalidations{At: page.At, StartOver: page.Lost}
	for _, c := range page.Changes {
		switch {
		case c.TokenID != 0:
			out.TokenIDs = append(out.TokenIDs, c.TokenID)
		case c.User != "":
			out.Users = append(out.Users, c.User)
		}
		// A change that names neither is about services, keys, prefixes or the catalogue: of what answers about a token
		// rest on, that is only which audiences must be named, which is looked at above.
	}
	slices.Sort(out.TokenIDs)
	slices.Sort(out.Users)
	out.TokenIDs, out.Users = slices.Compact(out.TokenIDs), slices.Compact(out.Users)
	if w.audience != "" {
		if err := w.withhold(ctx, &out); err != nil {
			return Invalidations{}, err // from the same place again
		}
	}
	w.at, w.news = page.At, news
	if len(page.Changes) == watchBatch {
		w.news = nil
	}
	return out, nil
}

// withhold leaves out what the watcher's audience keeps introspection from telling it.
func (w *Watch) withhold(ctx context.Context, in *Invalidations) error {
	visible := in.TokenIDs[:0]
	for _, id := range in.TokenIDs {
		c, err := w.service.store.Lookup(ctx, id)
		if errors.Is(err, ErrNotFound) {
			continue // of a service, say
		}
		if err != nil {
			return err
		}
		ok, err := w.service.goodFor(ctx, c.Token.Audiences, c.Token.Audiences, w.audience)
		if err != nil {
			return err
		}
		if ok {
			visible = append(visible, id)
		}
	}
	in.TokenIDs = visible
	if len(in.Users) == 0 {
		return nil
	}
	must, err := w.service.mustName(ctx, w.audience)
	if err != nil {
		return err
	}
	changed := in.Users
	return w.service.store.View(ctx, func(tx ReadTx) error {
		users := []string{} // a new one: View may run this again
		for _, user := range changed {
			ok, err := w.holdsVisible(tx, user, must)
			if err != nil {
				return err
			}
			if ok {
				users = append(users, user)
			}
		}
		in.Users = users
		return nil
	})
}

// holdsVisible reports whether a user holds a live token that the watcher could be told of. The tokens of a deleted user were
// revoked one by one, each with an entry of its own.
func (w *Watch) holdsVisible(tx ReadTx, user string, must bool) (bool, error) {
	u, err := tx.User(user)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read user: %w", err)
	}
	q := TokenQuery{UserKey: u.Key, State: StateActive, Now: w.service.Now(), Limit: MaxPageSize}
	for {
		page, err := tx.Tokens(q)
		if err != nil {
			return false, fmt.Errorf("read tokens: %w", err)
		}
		for _, t := range page {
			if GoodFor(t.Audiences, t.Audiences, w.audience, must) {
				return true, nil
			}
		}
		if len(page) < q.Limit {
			return false, nil
		}
		q.Before = page[len(page)-1].ID
	}
}

// closed is a channel that never blocks.
var closed = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// News returns a channel that is closed once Next may have more to tell.
func (w *Watch) News() <-chan struct{} {
	if w.news == nil {
		return closed
	}
	return w.news
}

// Follow has the source of features forget each user that was changed or refreshed, and learns the prefixes that secrets
// are minted under, through whatever server on the same store, until ctx ends. own is the server's own personal prefix,
// empty: pat. What fails is reported and tried again.
func (s *Service) Follow(ctx context.Context, own string, report func(error)) {
	if s.changes == nil {
		return
	}
	f := follower{service: s, own: own}
	f.forgets, _ = s.features.(Forgetter)
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		news := s.changes.News()
		more, err := f.step(ctx)
		if err != nil && ctx.Err() == nil {
			report(err)
		}
		again.Stop()
		if err != nil {
			again.Reset(retryFollow)
		}
		if more {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-news:
		case <-again.C:
		}
	}
}

// retryFollow is how soon a failure to take the feed in is tried again, without news.
const retryFollow = 500 * time.Millisecond

// follower is how far a server has taken the change feed in.
type follower struct {
	service *Service
	own     string
	forgets Forgetter // nil: nothing is remembered that could be forgotten
	began   bool
	at      WatchPosition
}

// step takes in some changes, and reports whether there are more.
func (f *follower) step(ctx context.Context) (more bool, err error) {
	if !f.began {
		if f.at, err = f.service.changes.Newest(); err != nil {
			return false, err
		}
		f.began = true
		f.service.refreshes.follow()
		// What happened between the start of the server and this moment.
		return false, f.learn(ctx)
	}
	page, err := f.service.changes.After(f.at, watchBatch)
	if err != nil {
		return false, err
	}
	learn := page.Lost
	for _, c := range page.Changes {
		switch {
		case c.User != "" && f.forgets != nil:
			if !f.service.refreshes.meets(c.User) {
				f.forgets.Forget(c.User)
			}
		case c.TokenID == 0 && c.User == "" && c.Service == "":
			learn = true
		}
	}
	if page.Lost && f.forgets != nil {
		f.service.refreshes.lost()
		f.forgets.ForgetAll()
	}
	if learn {
		if err := f.learn(ctx); err != nil {
			return false, err // from the same place again; to forget twice is no harm
		}
	}
	f.at = page.At
	return len(page.Changes) == watchBatch, nil
}

// learn reads what is known in memory apart from the records: the prefixes of secrets, and which audiences must be named.
func (f *follower) learn(ctx context.Context) error {
	_, err := f.service.learnNamed(ctx)
	return errors.Join(err, f.service.LearnPrefixes(ctx, f.own))
}
