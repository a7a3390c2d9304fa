package store

import (
	"context"
	"sync"
	"sync/atomic"

	"patd/store/feed"
	"patd/tokens"
)

// CacheOptions adjust a Cached. The zero value is sensible.
type CacheOptions struct {
	// Size bounds the memory that what is kept takes, in bytes; 0: 256 MiB. A token with four scopes takes about 190, and a
	// user about 100.
	Size int64
	// Behind is what is asked for what is not in memory, and does everything else; nil: the store itself. Tests put faults
	// between the two.
	Behind tokens.Store
}

// defaultCacheSize is enough for a million tokens.
const defaultCacheSize = 256 << 20

// Cached answers lookups from memory.
//
// Once Update has returned, no Lookup answers from before it; of what other processes change that holds a moment later,
// when the change feed tells. A feed that has been silent for too long is no ground to answer on: then every lookup asks
// the store, until the feed was read to its end again. A token and its user are answered as they were at one instant,
// unless one of them is just being changed.
//
// Only what is there is kept: unknown ids are asked for each time, and take no memory.
type Cached struct {
	behind tokens.Store
	store  *Store
	feed   *feed.Feed
	limit  int

	// version is odd while changes are taken in, one set after the other; whoever reads two records looks at it before and
	// after.
	version  atomic.Uint64
	applied  atomic.Uint64 // position in the feed: nothing here is older
	applying sync.Mutex

	shards   []shard
	users    users
	accesses accesses
	services services
	keys     keyNames
	bypassed atomic.Uint64
}

var (
	_ tokens.Store  = (*Cached)(nil)
	_ feed.Listener = (*Cached)(nil)
	_ useKeeper     = (*Cached)(nil)
)

// NewCached makes a cache of a store, whose feed it follows until the store is closed.
func NewCached(s *Store, o CacheOptions) *Cached {
	if o.Size <= 0 {
		o.Size = defaultCacheSize
	}
	if o.Behind == nil {
		o.Behind = s
	}
	c := &Cached{behind: o.Behind, store: s, feed: s.Feed(), limit: int(o.Size)}
	n := 1
	for n < 64 && o.Size>>20 > int64(n) {
		n *= 2
	}
	c.shards = make([]shard, n)
	for i := range c.shards {
		c.shards[i].init(int(o.Size)/16*13/n, s.seen.use)
	}
	c.users.init(int(o.Size) / 16 * 2)
	c.accesses.init(int(o.Size) / 16)
	c.services.clear()
	c.applied.Store(c.feed.Subscribe(c))
	s.keepUses(c)
	return c
}

func (c *Cached) shard(id tokens.ID) *shard {
	return &c.shards[uint64(id)*golden>>32%uint64(len(c.shards))]
}

// Lookup implements tokens.Store.
func (c *Cached) Lookup(ctx context.Context, id tokens.ID) (tokens.Credential, error) {
	if !c.feed.Live() {
		c.bypassed.Add(1)
		return c.behind.Lookup(ctx, id)
	}
	cred := tokens.Credential{Sequence: c.applied.Load()} // before the record is read
	s := c.shard(id)
	if c.recall(s, id, &cred) {
		s.hits.Add(1)
		return cred, nil
	}
	return c.fetch(ctx, s, id)
}

// recall answers from memory, if it can.
func (c *Cached) recall(s *shard, id tokens.ID, cred *tokens.Credential) bool {
	version := c.version.Load()
	if version%2 != 0 {
		return false
	}
	r := s.log.look(&s.mu, uint64(id))
	if r == nil || !c.users.get(r.userKey(), &cred.User) || c.version.Load() != version {
		return false
	}
	r.read(cred, c.keys.list())
	return true
}

// fetch reads a token, or waits for who is reading it, and keeps it.
func (c *Cached) fetch(ctx context.Context, s *shard, id tokens.ID) (tokens.Credential, error) {
	s.misses.Add(1)
	for {
		s.mu.Lock()
		users := c.users.seq.Load() // before the flight can be found, and before the store is read
		f := s.flights[id]
		if f == nil || f.since != users { // of what a flight reads it is not known yet whose it is
			f = s.flights.begin(id, users)
			s.mu.Unlock()
			return c.read(ctx, s, id, f)
		}
		if f.done == nil {
			f.done = make(chan struct{})
		}
		s.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return tokens.Credential{}, gaveUp(ctx, "look up a token")
		}
		if !again(ctx, f.err) {
			return f.value, f.err
		}
	}
}

// read reads a token from the store, for everybody who asks meanwhile. What it read is kept unless it was changed since.
func (c *Cached) read(ctx context.Context, s *shard, id tokens.ID, f *flight[tokens.Credential]) (tokens.Credential, error) {
	var r record
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.flights.end(id, f)
		if r != nil && !f.stale {
			s.put(r)
		}
	}()
	cred, err := c.behind.Lookup(ctx, id)
	if err == nil {
		// A token without its user would answer nothing, and take the room of others.
		if c.users.put(cred.User, f.since) {
			if packed, ok := packed(nil, &cred, c.keys.number); ok {
				r = packed
			}
		}
	}
	f.value, f.err = cred, err
	return cred, err
}

// LookupService implements tokens.Store.
func (c *Cached) LookupService(ctx context.Context, id tokens.ID) (tokens.ServiceCredential, error) {
	if !c.feed.Live() {
		c.bypassed.Add(1)
		return c.behind.LookupService(ctx, id)
	}
	if known, ok := c.services.get(id); ok {
		return *known, nil
	}
	return c.services.fetch(ctx, id, c.behind.LookupService)
}

// LookupAccess implements tokens.Store.
func (c *Cached) LookupAccess(ctx context.Context, id tokens.ID) (tokens.AccessCredential, error) {
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
func (c *Cached) View(ctx context.Context, fn func(tokens.ReadTx) error) error {
	return c.behind.View(ctx, fn)
}

// Update implements tokens.Store. What its events name is dropped before it returns.
func (c *Cached) Update(ctx context.Context, fn func(tokens.Tx) ([]tokens.Event, error)) error {
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
	c.apply(func() { // after a failure too: it may be one to tell what had happened
		for _, one := range changes {
			c.drop(one)
		}
	})
	if err == nil && c.feed.Live() {
		// So that answers tell a position that is not before this change. If it fails, they tell an older one for a while.
		_ = c.feed.CatchUp(ctx, c.store.Sequence())
	}
	return err
}

// Touch implements tokens.Store. The use of a token that is in memory is noted there.
func (c *Cached) Touch(seen tokens.Seen) {
	if isUse(seen) && c.shard(seen.ID).note(seen.ID, usageOf(seen.Use)) {
		if seen.Use = (tokens.Use{}); seen.Rekey == nil {
			return
		}
	}
	c.behind.Touch(seen)
}

func (c *Cached) usesNoted() int {
	n := 0
	for i := range c.shards {
		n += c.shards[i].usesNoted()
	}
	return n
}

func (c *Cached) noted(ids []tokens.ID) []tokens.ID {
	for i := range c.shards {
		ids = c.shards[i].noted(ids)
	}
	return ids
}

func (c *Cached) takeUse(id tokens.ID) (usage, bool) { return c.shard(id).takeUse(id) }

func (c *Cached) renote(ids []tokens.ID) {
	for _, id := range ids {
		c.shard(id).renote(id)
	}
}

// Forget implements feed.Listener: the record has another digest now.
func (c *Cached) Forget(id tokens.ID) { c.apply(func() { c.drop(tokens.Change{TokenID: id}) }) }

// Receive implements feed.Listener.
func (c *Cached) Receive(list []feed.Entry, lost bool, seq uint64) {
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

// apply lets what it calls drop what was changed. Meanwhile nothing is answered that is made of two records.
func (c *Cached) apply(drop func()) {
	c.applying.Lock()
	defer c.applying.Unlock()
	c.version.Add(1)
	defer c.version.Add(1)
	drop()
}

// drop forgets what a change names. One that names nothing may be of anything.
func (c *Cached) drop(one tokens.Change) {
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

func (c *Cached) clear() {
	for i := range c.shards {
		c.shards[i].clear()
	}
	c.users.clear()
	c.accesses.clear()
	c.services.clear()
}

// Flush writes now what Touch has noted so far.
func (c *Cached) Flush(ctx context.Context) error { return c.store.Flush(ctx) }

// Ready returns what is wrong when the store does not answer, takes no change, or cannot be followed; nil when all is well.
func (c *Cached) Ready(ctx context.Context) error {
	if err := c.store.Ready(ctx); err != nil {
		return err
	}
	if err := c.store.ChangesFail(); err != nil {
		return err
	}
	return c.feed.Err()
}

// CacheStats are figures of a Cached.
type CacheStats struct {
	// Hits and Misses count lookups; Bypassed those that asked the store because the feed was silent. Evicted counts
	// tokens and users that went for want of room.
	Hits, Misses, Bypassed, Evicted uint64
	// Tokens, Accesses, Users and Services are how many are in memory.
	Tokens, Accesses, Users, Services int
	// Bytes is about the memory that they take, and Limit its bound.
	Bytes, Limit int
	// Position is the feed's as far as it was taken in; Following tells that nothing newer has been missed for long.
	Position  uint64
	Following bool
	// Trouble is why the feed is not to be relied on, in which case Following is false; nil: it is. Distrusted counts the times
	// that it said less than had happened.
	Trouble    error
	Distrusted uint64
}

// Stats answers figures about the cache.
func (c *Cached) Stats() CacheStats {
	out := CacheStats{
		Bypassed: c.bypassed.Load(), Limit: c.limit, Position: c.applied.Load(),
		Trouble: c.feed.Trouble(), Distrusted: c.feed.Distrusted(),
	}
	out.Following = out.Trouble == nil
	out.Users, out.Bytes, out.Evicted = c.users.figures()
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		out.Tokens += s.log.index.live
		out.Bytes += s.log.bytes()
		out.Evicted += s.log.evicted
		s.mu.Unlock()
		out.Hits += s.hits.Load()
		out.Misses += s.misses.Load()
	}
	out.Hits += c.accesses.hits.Load()
	out.Misses += c.accesses.misses.Load()
	c.accesses.mu.Lock()
	out.Accesses = len(c.accesses.known)
	out.Bytes += c.accesses.bytes
	out.Evicted += c.accesses.evicted
	c.accesses.mu.Unlock()
	n, hits, misses := c.services.figures()
	out.Services, out.Hits, out.Misses = n, out.Hits+hits, out.Misses+misses
	return out
}
