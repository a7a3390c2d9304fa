package store

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"patd/tokens"
)

// Bounds of the write-behind buffer.
const (
	maxSeen    = 1 << 20 // tokens; some 60 bytes each
	fewSeen    = 1 << 12 // so many are written at the next interval; more are gathered for longer,
	manySeen   = 1 << 21 // up to so many, which take some seconds to write
	maxRekeyed = 1 << 16 // credentials
	maxRekeys  = 8       // of one of them
	seenShards = 16
)

// usage is the last use of a token without pointers, so that the collector has nothing to walk in a million of them.
type usage struct {
	us int64
	ip [16]byte
	n  uint8 // bytes of ip: 4, 16, or 0 for an address that is not known
}

func usageOf(u tokens.Use) usage {
	out := usage{us: micros(u.Time)}
	switch ip := u.IP.Unmap(); {
	case ip.Is4():
		a := ip.As4()
		out.n = uint8(copy(out.ip[:], a[:]))
	case ip.Is6():
		out.ip, out.n = ip.As16(), 16
	}
	return out
}

// address is what of it is stored, see addrBytes.
func (u *usage) address() any {
	ip, ok := netip.AddrFromSlice(u.ip[:u.n])
	if !ok {
		return nil
	}
	return addrBytes(ip)
}

// usedToken is a token and its last use.
type usedToken struct {
	id tokens.ID
	usage
}

type seenKey struct {
	id   tokens.ID
	kind tokens.Kind
}

// rekeyed is a credential and what became of its digests.
type rekeyed struct {
	seenKey
	rekeys []tokens.Rekey
}

// seenBuffer gathers what Touch notes: the latest use of each token, and digests that move. It is bounded, and counts what it
// drops. Every introspection comes here, so that those of different tokens should not wait for one another.
type seenBuffer struct {
	shards  [seenShards]seenShard
	room    int64        // tokens, in all of them
	size    atomic.Int64 // tokens in all of them
	dropped atomic.Uint64
	wake    chan struct{} // a level: something should be written soon

	mu     sync.Mutex
	rekeys map[seenKey][]tokens.Rekey
}

type seenShard struct {
	mu   sync.Mutex
	uses map[tokens.ID]usage
	most int      // of them at once, since the map was made
	_    [40]byte // the locks of two shards are not on one line of the processor's cache
}

func newSeenBuffer() *seenBuffer {
	b := &seenBuffer{room: maxSeen, wake: make(chan struct{}, 1), rekeys: make(map[seenKey][]tokens.Rekey)}
	for i := range b.shards {
		b.shards[i].uses = make(map[tokens.ID]usage)
	}
	return b
}

// shard spreads ids evenly: a multiple of the golden ratio leaves its mark on the upper bits.
func (b *seenBuffer) shard(id tokens.ID) *seenShard {
	return &b.shards[uint64(id)*0x9e3779b97f4a7c15>>32%seenShards]
}

// use notes a use, unless a later one is known or there is no room.
func (b *seenBuffer) use(id tokens.ID, u usage) {
	s := b.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.uses[id]
	if ok {
		if known.us < u.us {
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
	s.most = max(s.most, len(s.uses))
	if n == b.room/4*3 {
		b.wakeUp()
	}
}

// rekey notes digests that move.
func (b *seenBuffer) rekey(k seenKey, rekeys ...tokens.Rekey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	known, ok := b.rekeys[k]
	if !ok && len(b.rekeys) >= maxRekeyed {
		b.dropped.Add(1)
		return
	}
	for _, r := range rekeys {
		if len(known) < maxRekeys && !slices.Contains(known, r) {
			known = append(known, r)
		}
	}
	b.rekeys[k] = known
	b.wakeUp()
}

func (b *seenBuffer) wakeUp() { raise(b.wake) }

// crowded tells that there will soon be no room.
func (b *seenBuffer) crowded() bool { return b.size.Load() >= b.room/4*3 }

// A useKeeper keeps noted uses until they are written. The store's own buffer is one; a cache, which has the tokens in memory
// anyway, keeps the uses of those beside them.
type useKeeper interface {
	// usesNoted is how many tokens have a use to be written.
	usesNoted() int
	// noted appends the ids of those that noted has not answered before.
	noted(ids []tokens.ID) []tokens.ID
	// takeUse takes a use, to be written now; false: there is none.
	takeUse(id tokens.ID) (usage, bool)
	// renote has noted answer these again, as far as they have a use still.
	renote(ids []tokens.ID)
}

// keepUses has a keeper's uses written. What leaves it goes to the store's buffer, which is asked after it, so that nothing
// passes between the two unseen.
func (s *Store) keepUses(k useKeeper) {
	s.keepersMu.Lock()
	defer s.keepersMu.Unlock()
	s.keepers = slices.Insert(slices.Clone(s.keepers), 0, k)
}

func (s *Store) useKeepers() []useKeeper {
	s.keepersMu.Lock()
	defer s.keepersMu.Unlock()
	return s.keepers
}

// takeUse takes the latest use that any has of a token.
func takeUse(keepers []useKeeper, id tokens.ID) (latest usage, found bool) {
	for _, k := range keepers {
		if u, ok := k.takeUse(id); ok && (!found || latest.us < u.us) {
			latest, found = u, true
		}
	}
	return latest, found
}

var _ useKeeper = (*seenBuffer)(nil)

func (b *seenBuffer) usesNoted() int { return int(b.size.Load()) }

// noted answers all there are, each time.
func (b *seenBuffer) noted(ids []tokens.ID) []tokens.ID {
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		for id := range s.uses {
			ids = append(ids, id)
		}
		s.mu.Unlock()
	}
	return ids
}

func (b *seenBuffer) renote([]tokens.ID) {}

func (b *seenBuffer) takeUse(id tokens.ID) (usage, bool) {
	s := b.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	u, ok := s.uses[id]
	if ok {
		b.size.Add(-1)
		if delete(s.uses, id); len(s.uses) == 0 && s.most > fewSeen/seenShards { // a map does not become smaller
			s.uses, s.most = make(map[tokens.ID]usage), 0
		}
	}
	return u, ok
}

// takeRekeys empties the buffer of digests that move.
func (b *seenBuffer) takeRekeys() []rekeyed {
	b.mu.Lock()
	rekeys := b.rekeys
	b.rekeys = make(map[seenKey][]tokens.Rekey)
	b.mu.Unlock()
	taken := make([]rekeyed, 0, len(rekeys))
	for k, list := range rekeys {
		taken = append(taken, rekeyed{k, list})
	}
	slices.SortFunc(taken, func(x, y rekeyed) int { return cmp.Compare(x.id, y.id) })
	return taken
}

// isUse tells whether what was seen is a use that is kept: of a personal access token.
func isUse(seen tokens.Seen) bool {
	return (seen.Kind == 0 || seen.Kind == tokens.KindPersonal) && !seen.Use.Time.IsZero()
}

// Touch implements tokens.Store.
func (s *Store) Touch(seen tokens.Seen) {
	if seen.Kind == 0 {
		seen.Kind = tokens.KindPersonal
	}
	if isUse(seen) {
		s.seen.use(seen.ID, usageOf(seen.Use))
	}
	if seen.Rekey != nil {
		s.seen.rekey(seenKey{id: seen.ID, kind: seen.Kind}, *seen.Rekey)
	}
}

// TouchesDropped counts what Touch could not note since Open, because too much was waiting to be written.
func (s *Store) TouchesDropped() uint64 { return s.seen.dropped.Load() }

// gatherFor is how many intervals uses are gathered when they are many: a minute after a use it must be on disk, and the more
// of them lie on one page, the less each costs.
const gatherFor = 8

// due tells whether uses are written at this interval, after the last time.
func (s *Store) due(last time.Time) bool {
	n := 0
	for _, k := range s.useKeepers() {
		n += k.usesNoted()
	}
	return n <= fewSeen || n >= manySeen || s.seen.crowded() || s.options.Now().Sub(last) >= gatherFor*s.options.FlushInterval
}
