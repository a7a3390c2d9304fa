package cache

import (
	"slices"
	"sync"
	"sync/atomic"

	"patd/store/cache/internal/reclog"
	"patd/store/usage"
	"patd/tokens"
)

// shard is a part of the tokens, by id.
type shard struct {
	mu      sync.Mutex
	log     reclog.Log
	flights flights[tokens.Credential]
	used    []tokens.ID // those with a use that waits, as far as pending has not returned them
	waiting int         // how many have a use that waits
	keep    func(tokens.ID, usage.Use)
	details shardDetails

	hits   atomic.Uint64
	misses atomic.Uint64
}

// init has uses of records that leave be kept by keep, and details of uses by detail.
func (s *shard) init(
	room int,
	keep func(tokens.ID, usage.Use),
	detail func(tokens.ID, usage.Detail),
	names *serviceNames,
	lists *textLists,
) {
	s.keep = keep
	s.details.keep, s.details.names, s.details.lists = detail, names, lists
	s.log.Init(reclog.Config{Room: room, Gone: func(r reclog.Record, _ uint64) { s.gone(r) }})
}

// gone hands on the use of a record that leaves.
func (s *shard) gone(r reclog.Record) {
	if r.Marks()&useWaits != 0 {
		s.waiting--
		s.keep(tokens.ID(r.ID()), tokenRecord(r).use())
	}
	s.details.gone(tokenRecord(r))
}

// clear drops everything, uses that wait excepted, and keeps readings under way from being kept.
func (s *shard) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting > 0 || s.details.waiting > 0 {
		s.log.Each(func(r reclog.Record) bool {
			if r.Marks()&useWaits != 0 || tokenRecord(r).hasDetails() {
				s.log.Remove(r.ID())
			}
			return s.waiting > 0 || s.details.waiting > 0
		})
	}
	s.used, s.details.used = nil, nil
	s.log.Clear()
	s.flights.InvalidateAll()
}

// put keeps the record of a token, in place of an older one. A use of that one that waits is taken over.
func (s *shard) put(r reclog.Record) {
	if old := s.log.Find(r.ID()); old != nil {
		if old.Marks()&useWaits != 0 {
			tokenRecord(r).setUse(tokenRecord(old).use(), useWaits)
			old.SetMarks(old.Marks() &^ useWaits)
		}
		s.log.Remove(r.ID())
	}
	if _, ok := s.log.Put(r); !ok {
		s.gone(r)
	}
}

// drop drops a token, and keeps a reading of it under way from being kept.
func (s *shard) drop(id tokens.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log.Remove(uint64(id))
	s.flights.Invalidate(id)
}

// note notes a use of a token, unless a later one is known, and its details. False: the token is not here.
func (s *shard) note(id tokens.ID, u usage.Use, of *tokens.Usage) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.log.Find(uint64(id))
	if r == nil {
		return false
	}
	marks := r.Marks()
	s.details.note(tokenRecord(r), &u, of)
	if int64(marks>>useBits) >= u.Micros {
		return true
	}
	if marks&useWaits == 0 {
		s.waiting++
		s.used = append(s.used, id)
	}
	tokenRecord(r).setUse(u, useWaits|reclog.Read)
	return true
}

// take takes the use of a token, to be written.
func (s *shard) take(id tokens.ID) (usage.Use, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.log.Find(uint64(id))
	if r == nil || r.Marks()&useWaits == 0 {
		return usage.Use{}, false
	}
	r.SetMarks(r.Marks() &^ useWaits)
	s.waiting--
	return tokenRecord(r).use(), true
}

func (s *shard) usesWaiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting
}

func (s *shard) pending(ids []tokens.ID) []tokens.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids = append(ids, s.used...)
	s.used = s.used[:0]
	return ids
}

// keeper is a cache as the buffer of uses knows it.
type keeper struct{ *Cache }

var _ usage.Keeper = keeper{}

// Waiting implements usage.Keeper.
func (c keeper) Waiting() int {
	n := 0
	for i := range c.shards {
		n += c.shards[i].usesWaiting()
	}
	return n
}

// Pending implements usage.Keeper.
func (c keeper) Pending(ids []tokens.ID) []tokens.ID {
	for i := range c.shards {
		ids = c.shards[i].pending(ids)
	}
	return ids
}

// Expect implements usage.Keeper.
func (c keeper) Expect(ids []tokens.ID) {
	var room wanted
	for some := range slices.Chunk(ids, len(room)) {
		c.prefetch(&room, some)
	}
}

// Take implements usage.Keeper.
func (c keeper) Take(id tokens.ID) (usage.Use, bool) { return c.shard(id).take(id) }
