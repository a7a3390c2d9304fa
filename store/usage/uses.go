package usage

import (
	"sync"
	"sync/atomic"

	"patd/tokens"
)

const (
	maxUses = 1 << 20 // tokens; some 60 bytes each
	shards  = 16
)

// uses are the last uses that no cache keeps. They are bounded; it counts what it drops.
type uses struct {
	shards  [shards]shard
	room    int64        // tokens, in all of them
	size    atomic.Int64 // tokens in all of them
	dropped *atomic.Uint64
	wake    func() // is called when there will soon be no room
}

type shard struct {
	mu   sync.Mutex
	uses map[tokens.ID]Use
	most int         // of them at once, since the map was made
	used []tokens.ID // of those, as far as Pending has not returned them
	_    [16]byte    // the locks of two shards are not on one line of the processor's cache
}

var _ Keeper = (*uses)(nil)

func (b *uses) init(room int64, dropped *atomic.Uint64, wake func()) {
	b.room, b.dropped, b.wake = room, dropped, wake
	for i := range b.shards {
		b.shards[i].uses = make(map[tokens.ID]Use)
	}
}

// shard spreads ids evenly: a multiple of the golden ratio leaves its mark on the upper bits.
func (b *uses) shard(id tokens.ID) *shard {
	return &b.shards[uint64(id)*0x9e3779b97f4a7c15>>32%shards]
}

// record keeps a use, unless a later one is known or there is no room.
func (b *uses) record(id tokens.ID, u Use) {
	s := b.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.uses[id]
	if ok {
		if known.Micros < u.Micros {
			s.uses[id] = u
		}
		return
	}
	n := b.size.Add(1)
	if n > b.room {
		b.size.Add(-1)
		b.dropped.Add(1)
		return
	}
	s.uses[id] = u
	s.used = append(s.used, id)
	s.most = max(s.most, len(s.uses))
	if n == b.room/4*3 {
		b.wake()
	}
}

// crowded reports that there will soon be no room.
func (b *uses) crowded() bool { return b.size.Load() >= b.room/4*3 }

// Waiting implements Keeper.
func (b *uses) Waiting() int { return int(b.size.Load()) }

// Pending implements Keeper.
func (b *uses) Pending(ids []tokens.ID) []tokens.ID {
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		ids = append(ids, s.used...)
		s.used = s.used[:0]
		s.mu.Unlock()
	}
	return ids
}

// Expect implements Keeper.
func (b *uses) Expect([]tokens.ID) {}

// Take implements Keeper.
func (b *uses) Take(id tokens.ID) (Use, bool) {
	s := b.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	u, ok := s.uses[id]
	if ok {
		b.size.Add(-1)
		if delete(s.uses, id); len(s.uses) == 0 && s.most > few/shards { // a map does not become smaller
			s.uses, s.most, s.used = make(map[tokens.ID]Use), 0, nil
		}
	}
	return u, ok
}
