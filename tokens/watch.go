package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// WatchPosition is a place in the change feed. The zero value stands for now.
type WatchPosition struct {
	Sequence uint64
	// History distinguishes the place from the same number in another feed, as after a restore. It is opaque.
	History string
}

// Invalidations lists what has changed since the Invalidations before; it is often empty.
type Invalidations struct {
	// At is the position up to which all changes have been reported.
	At WatchPosition
	// StartOver says that the watcher must drop its whole cache: it is too far behind, comes from another history, or
	// begins.
	StartOver bool
	TokenIDs  []ID     // sorted, without duplicates; ids of services may be among them
	Users     []string // sorted, without duplicates; all their tokens are invalidated
	// More reports that At may not be the newest position: more changes follow at once.
	More bool
}

// watchBatch is the most changes that one Invalidations reports.
const watchBatch = 1000

// Watch is a place in the change feed that advances with each Next. It holds no resources and needs no closing. It is
// for one goroutine.
type Watch struct {
	service   *Service
	feed      ChangeFeed
	audience  string // the watcher is bound to it; empty: none
	named     uint64 // named.changes when the watch last read it
	at        WatchPosition
	news      <-chan struct{}
	startOver bool
}

// Watch starts to report changes, from the position of the watcher's last Invalidations, or from now. UNAVAILABLE if
// this server does not follow its store.
//
// A service that is bound to an audience receives only what introspection could show it: tokens for its audience or for
// none in particular, and users who hold such a token.
func (s *Service) Watch(_ context.Context, a Actor, from WatchPosition) (*Watch, error) {
	if err := s.manager(a); err != nil {
		return nil, err
	}
	if s.changes == nil {
		return nil, Fail(CodeUnavailable, "WATCH_UNAVAILABLE", "this server does not follow its store")
	}
	w := &Watch{service: s, feed: s.changes, audience: a.Audience, named: s.named.changes.Load(), at: from}
	if from.Sequence == 0 {
		// The state of a new watcher is unknown: its cache entries, if any, may be of any age.
		w.startOver = true
	}
	return w, nil
}

// Reached returns a position in the change feed that no change has passed which was committed before the call, once
// this server's caches have dropped what those changes concern.
func (s *Service) Reached(ctx context.Context) (uint64, error) {
	if s.changes == nil {
		return 0, Fail(CodeUnavailable, "WATCH_UNAVAILABLE", "this server does not follow its store")
	}
	return s.changes.Reached(ctx)
}

// Next returns the changes that are available now, without waiting, and their position; there may be none. The first
// call returns where the watch began. An error means that the store cannot be followed: the watcher must no longer
// trust its cache.
func (w *Watch) Next(ctx context.Context) (Invalidations, error) {
	if n := w.service.named.changes.Load(); n != w.named {
		w.named, w.startOver = n, true // this affects results for tokens that name no audience, and no entry lists them
	}
	news := w.feed.News() // before the read, so that no entry is missed between the two
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
	out := Invalidations{At: page.At, StartOver: page.Lost, More: len(page.Changes) == watchBatch}
	for _, c := range page.Changes {
		switch {
		case c.TokenID != 0:
			out.TokenIDs = append(out.TokenIDs, c.TokenID)
		case c.User != "":
			out.Users = append(out.Users, c.User)
		}
		// A change that names neither is about services, keys, prefixes or the catalogue. Results for tokens depend
		// only on which audiences must be named, which is checked above.
	}
	slices.Sort(out.TokenIDs)
	slices.Sort(out.Users)
	out.TokenIDs, out.Users = slices.Compact(out.TokenIDs), slices.Compact(out.Users)
	if w.audience != "" {
		if err := w.withhold(ctx, &out); err != nil {
			return Invalidations{}, err // the next call retries from the same place
		}
	}
	w.at, w.news = page.At, news
	if len(page.Changes) == watchBatch {
		w.news = nil
	}
	return out, nil
}

// withhold removes what the watcher's audience must not see: what introspection would not show it.
func (w *Watch) withhold(ctx context.Context, in *Invalidations) error {
	visible := in.TokenIDs[:0]
	for _, id := range in.TokenIDs {
		c, err := w.service.store.Lookup(ctx, id)
		if errors.Is(err, ErrNotFound) {
			continue // of a service, for example
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
		users := []string{} // a new slice: View may run this again
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

// holdsVisible reports whether a user holds a live token that the watcher may see. The tokens of a deleted user were
// revoked one by one, each with an entry of its own.
func (w *Watch) holdsVisible(tx ReadTx, user string, must bool) (bool, error) {
	u, err := tx.User(user)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if toEnd(err) != nil {
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

// News returns a channel that is closed once Next may return more.
func (w *Watch) News() <-chan struct{} {
	if w.news == nil {
		return closed
	}
	return w.news
}

// Follow follows the change feed until ctx ends, and so the changes of all servers on the same store. It drops the
// cached features of each changed or refreshed user, and learns new prefixes of secrets. own is the server's own
// personal prefix; empty: pat. Failures are reported and retried.
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

// retryFollow is the wait before a retry after a failure, if there is no news.
const retryFollow = 500 * time.Millisecond

// follower is a server's progress in the change feed.
type follower struct {
	service *Service
	own     string
	forgets Forgetter // nil: there is no cache
	began   bool
	at      WatchPosition
}

// step processes some changes, and reports whether there are more.
func (f *follower) step(ctx context.Context) (more bool, err error) {
	if !f.began {
		if f.at, err = f.service.changes.Newest(); err != nil {
			return false, err
		}
		f.began = true
		f.service.refreshes.follow()
		// Changes between the start of the server and this moment.
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
			return false, err // retried from the same place; forgetting twice does no harm
		}
	}
	f.at = page.At
	return len(page.Changes) == watchBatch, nil
}

// learn reads the cached data that is not in records: the prefixes of secrets, and which audiences must be named.
func (f *follower) learn(ctx context.Context) error {
	_, err := f.service.learnNamed(ctx)
	return errors.Join(err, f.service.LearnPrefixes(ctx, f.own))
}
