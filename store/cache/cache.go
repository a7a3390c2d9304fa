package cache

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"patd/internal/flight"
	"patd/store/cache/internal/reclog"
	"patd/store/feed"
	"patd/store/usage"
	"patd/tokens"
)

// Source is the store behind a cache.
type Source interface {
	tokens.Store
	// Feed returns the change feed of the store. It is followed from the first call on.
	Feed() *feed.Feed
	// Uses returns the buffer of last uses that the store writes.
	Uses() *usage.Buffer
	// Ready returns why the store cannot be read; nil: it can.
	Ready(ctx context.Context) error
	// ChangesFail returns why the store takes no change; nil: it does, as far as is known.
	ChangesFail() error
}

// Options adjust a Cache. The zero value is sensible.
type Options struct {
	// Size bounds the memory that records take, in bytes; 0: 256 MiB. A token takes about 160, its scopes excepted where
	// others have the same, and a user about 100.
	Size int64
	// Behind serves misses and everything else in place of the source; nil: the source. Tests put faults between the
	// two.
	Behind tokens.Store
}

// defaultSize is enough for a million tokens.
const defaultSize = 256 << 20

// Cache returns lookups from memory.
//
// Once Update has returned, no Lookup returns a state from before it; for changes of other processes that holds a
// moment later, when the change feed brings them. When the feed has been silent for too long every lookup reads the
// store, until the feed was read to its end again. A token and its user are returned as they were at one instant,
// unless one of them is just being changed.
//
// Only records that exist are kept: unknown ids are read from the store each time, and take no memory.
type Cache struct {
	behind tokens.Store
	source Source
	feed   *feed.Feed
	limit  int

	// version is odd while changes are applied, one set after the other; a reader of two records compares it before and
	// after.
	version  atomic.Uint64
	applied  atomic.Uint64 // position in the feed: no record here is older
	applying sync.Mutex

	shards   []shard
	users    users
	accesses accesses
	services services
	holdings holdings
	keys     keyNames
	askers   serviceNames
	scopes   textLists
	bypassed atomic.Uint64
}

var (
	_ tokens.Store  = (*Cache)(nil)
	_ tokens.Memory = (*Cache)(nil)
)

// New makes a cache of a store, whose feed it follows for as long as the store is open.
func New(s Source, o Options) *Cache {
	if o.Size <= 0 {
		o.Size = defaultSize
	}
	if o.Behind == nil {
		o.Behind = s
	}
	c := &Cache{behind: o.Behind, source: s, feed: s.Feed(), limit: int(o.Size)}
	n := 1
	for n < 64 && o.Size>>20 > int64(n) {
		n *= 2
	}
	c.shards = make([]shard, n)
	for i := range c.shards {
		c.shards[i].init(int(o.Size)/16*13/n, s.Uses().Record, s.Uses().RecordDetail, &c.askers, &c.scopes)
	}
	c.users.init(int(o.Size) / 16 * 2)
	c.accesses.init(int(o.Size) / 16)
	c.services.clear()
	c.applied.Store(c.feed.Subscribe(listener{c}))
	s.Uses().Keep(keeper{c})
	s.Uses().KeepDetails(keeper{c})
	return c
}

func (c *Cache) shard(id tokens.ID) *shard {
	return &c.shards[reclog.Spread(uint64(id))>>32%uint64(len(c.shards))]
}

// Lookup implements tokens.Store.
func (c *Cache) Lookup(ctx context.Context, id tokens.ID) (tokens.Credential, error) {
	if !c.feed.Live() {
		c.bypassed.Add(1)
		return c.behind.Lookup(ctx, id)
	}
	cred := tokens.Credential{Sequence: c.applied.Load()} // before the record is read
	s := c.shard(id)
	if c.recall(s, id, &cred, nil) {
		cred.HoldsScopes, cred.SharedScopes = false, false // as the store returns it
		s.hits.Add(1)
		return cred, nil
	}
	return c.fetch(ctx, s, id)
}

// Recall implements tokens.Memory.
func (c *Cache) Recall(now time.Time, id tokens.ID, room *tokens.Lists) (cred tokens.Credential, ok bool) {
	if !c.feed.LiveAt(now) {
		return cred, false
	}
	cred.Sequence = c.applied.Load() // before the record is read
	s := c.shard(id)
	if ok = c.recall(s, id, &cred, room); ok {
		s.hits.Add(1)
	}
	return cred, ok
}

// recall reads a token from memory, if it can.
func (c *Cache) recall(s *shard, id tokens.ID, cred *tokens.Credential, room *tokens.Lists) bool {
	version := c.version.Load()
	if version%2 != 0 {
		return false
	}
	r := tokenRecord(s.log.Look(&s.mu, uint64(id)))
	if r == nil {
		return false
	}
	features, ok := c.users.get(r.userKey(), &cred.User)
	if !ok || c.version.Load() != version {
		return false
	}
	scopes := r.read(cred, room, c.keys.list(), c.scopes.all())
	cred.HoldsScopes, cred.SharedScopes = c.holdings.all(scopes, features, cred), scopes != 0
	return true
}

// fetch reads a token from the store, or waits for another who is reading it, and keeps it.
func (c *Cache) fetch(ctx context.Context, s *shard, id tokens.ID) (tokens.Credential, error) {
	s.misses.Add(1)
	return fetch(ctx, "look up a token", &s.mu, &s.flights, id, c.users.seq.Load,
		func(f *reading[tokens.Credential]) (tokens.Credential, error) { return c.read(ctx, s, id, f) })
}

// read reads a token from the store, for all who ask meanwhile. It is kept unless it was changed since.
func (c *Cache) read(
	ctx context.Context, s *shard, id tokens.ID, f *reading[tokens.Credential],
) (cred tokens.Credential, err error) {
	var r reclog.Record
	err = flight.ErrAbandoned // unless Lookup comes back
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.flights.Land(id, f, cred, err)
		if r != nil && !f.Stale() {
			s.put(r)
		}
	}()
	cred, err = c.behind.Lookup(ctx, id)
	if err == nil {
		// A token without its user would be of no use, and take the room of others.
		if c.users.put(cred.User, f.Begun) {
			if packed, ok := packToken(&cred, c.keys.number, c.scopes.number(cred.Token.Scopes)); ok {
				r = packed
			}
		}
	}
	return cred, err
}

// LookupService implements tokens.Store.
func (c *Cache) LookupService(ctx context.Context, id tokens.ID) (tokens.ServiceCredential, error) {
	if !c.feed.Live() {
		c.bypassed.Add(1)
		return c.behind.LookupService(ctx, id)
	}
	if known, ok := c.services.get(id); ok {
		return *known, nil
	}
	return c.services.fetch(ctx, id, c.behind.LookupService)
}

// RecallService implements tokens.Memory.
func (c *Cache) RecallService(now time.Time, id tokens.ID) *tokens.ServiceCredential {
	if !c.feed.LiveAt(now) {
		return nil
	}
	known, _ := c.services.get(id)
	return known
}

// ServiceMark implements tokens.Memory. Any change of the store changes it.
func (c *Cache) ServiceMark(now time.Time) uint64 {
	version := c.version.Load()
	if version&1 != 0 || !c.feed.LiveAt(now) { // a change is being applied, or may be missed
		return 0
	}
	return version + 1
}

// LookupAccess implements tokens.Store.
func (c *Cache) LookupAccess(ctx context.Context, id tokens.ID) (tokens.AccessCredential, error) {
	if !c.feed.Live() {
		c.bypassed.Add(1)
		return c.behind.LookupAccess(ctx, id)
	}
	sequence := c.applied.Load() // before it is read
	if known, ok := c.accesses.get(id); ok {
		one := *known
		one.Sequence = sequence
		return one, nil
	}
	return c.accesses.fetch(ctx, id, c.behind.LookupAccess)
}

// View implements tokens.Store.
func (c *Cache) View(ctx context.Context, fn func(tokens.ReadTx) error) error {
	return c.behind.View(ctx, fn)
}

// Update implements tokens.Store. Records that its events name are dropped before it returns.
func (c *Cache) Update(ctx context.Context, fn func(tokens.Tx) ([]tokens.Event, error)) error {
	var changes []tokens.Change
	err := c.behind.Update(ctx, func(tx tokens.Tx) ([]tokens.Event, error) {
		events, err := fn(tx)
		changes = changes[:0]
		for _, e := range events {
			if e.Outcome == tokens.OutcomeSuccess {
				changes = append(changes, feed.ChangeOf(e))
			}
		}
		return events, err
	})
	if len(changes) == 0 {
		return err
	}
	c.apply(func() { // after a failure too: the change may have happened
		for _, one := range changes {
			c.drop(one)
		}
	})
	if err == nil && c.feed.Live() {
		// So that lookups name a position that is not before this change. If it fails, they name an older one for a
		// while.
		_ = c.feed.CatchUp(ctx, c.feed.Sequence())
	}
	return err
}

// RecordUse implements tokens.Store. The use of a token that is in memory is recorded there.
func (c *Cache) RecordUse(u tokens.Usage) {
	if usage.IsUse(u) && c.shard(u.ID).note(u.ID, usage.Of(u.Use), &u) {
		if u.Use = (tokens.Use{}); u.Rekey == nil {
			return
		}
	}
	c.behind.RecordUse(u)
}

// RecordVisit implements tokens.Store.
func (c *Cache) RecordVisit(ctx context.Context, key tokens.SessionKey, v tokens.Visit) error {
	return c.behind.RecordVisit(ctx, key, v)
}

// Ready returns why patd is not ready: the store cannot be read, takes no change, or cannot be followed; nil: it is.
func (c *Cache) Ready(ctx context.Context) error {
	if err := c.source.Ready(ctx); err != nil {
		return err
	}
	if err := c.source.ChangesFail(); err != nil {
		return err
	}
	return c.feed.Err()
}

// apply has drop drop what was changed. Meanwhile no lookup is made of two records.
func (c *Cache) apply(drop func()) {
	c.applying.Lock()
	defer c.applying.Unlock()
	c.version.Add(1)
	defer c.version.Add(1)
	drop()
}

// drop drops the records that a change names. One that names nothing may be of any.
func (c *Cache) drop(one tokens.Change) {
	switch {
	case one.TokenID != 0:
		c.shard(one.TokenID).drop(one.TokenID)
		c.accesses.drop(one.TokenID)
		c.services.drop(one.TokenID)
	case one.User != "":
		c.users.drop(one.User)
	case one.Service != "":
		c.services.clear()
	default:
		c.clear()
	}
}

func (c *Cache) clear() {
	for i := range c.shards {
		c.shards[i].clear()
	}
	c.users.clear()
	c.accesses.clear()
	c.services.clear()
}

// listener is a cache as the feed knows it.
type listener struct{ *Cache }

var _ feed.Listener = listener{}

// Receive implements feed.Listener.
func (c listener) Receive(list []feed.Entry, lost bool, seq uint64) {
	c.apply(func() {
		if lost {
			c.clear()
		}
		for _, e := range list {
			c.drop(e.Change)
		}
		c.applied.Store(seq)
	})
}

// Forget implements feed.Listener. The record has another digest now.
func (c listener) Forget(id tokens.ID) { c.apply(func() { c.drop(tokens.Change{TokenID: id}) }) }
