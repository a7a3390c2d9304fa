package cache

// Stats are figures of a Cache.
type Stats struct {
	// Hits and Misses count lookups; Bypassed those that read the store because the feed was silent. Evicted counts
	// tokens and users that went for want of room.
	Hits, Misses, Bypassed, Evicted uint64
	// Tokens, Accesses, Users and Services are how many are in memory.
	Tokens, Accesses, Users, Services int
	// Bytes is about the memory that they take, and Limit its bound.
	Bytes, Limit int
	// Position is the position in the feed up to which changes were applied; Following reports that no newer change has
	// been missed for long.
	Position  uint64
	Following bool
	// Trouble is why the feed is not to be relied on, in which case Following is false; nil: it is. Distrusted counts
	// the times that the feed was incomplete.
	Trouble    error
	Distrusted uint64
}

// Stats returns figures about the cache.
func (c *Cache) Stats() Stats {
	out := Stats{
		Bypassed: c.bypassed.Load(), Limit: c.limit, Position: c.applied.Load(),
		Trouble: c.feed.Trouble(), Distrusted: c.feed.Distrusted(),
	}
	out.Following = out.Trouble == nil
	out.Users, out.Bytes, out.Evicted = c.users.stats()
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		log := s.log.Stats()
		s.mu.Unlock()
		out.Tokens += log.Records
		out.Bytes += log.Bytes
		out.Evicted += log.Evicted
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
	n, hits, misses := c.services.stats()
	out.Services, out.Hits, out.Misses = n, out.Hits+hits, out.Misses+misses
	return out
}
