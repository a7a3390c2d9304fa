package usage

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"patd/tokens"
)

const (
	maxRekeyed = 1 << 16 // credentials
	maxRekeys  = 8       // of one of them
)

// Credential names a credential of any kind.
type Credential struct {
	ID   tokens.ID
	Kind tokens.Kind
}

// Rekeyed is a credential and the digests of it that move.
type Rekeyed struct {
	Credential
	Rekeys []tokens.Rekey
}

// rekeys are digests that move to the current key. They are bounded; it counts what it drops.
type rekeys struct {
	dropped *atomic.Uint64

	mu    sync.Mutex
	known map[Credential][]tokens.Rekey
}

// record keeps digests that move. False: there is no room.
func (b *rekeys) record(c Credential, list ...tokens.Rekey) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	known, ok := b.known[c]
	if !ok && len(b.known) >= maxRekeyed {
		b.dropped.Add(1)
		return false
	}
	for _, r := range list {
		if len(known) < maxRekeys && !slices.Contains(known, r) {
			known = append(known, r)
		}
	}
	b.known[c] = known
	return true
}

// take empties it.
func (b *rekeys) take() []Rekeyed {
	b.mu.Lock()
	known := b.known
	b.known = make(map[Credential][]tokens.Rekey)
	b.mu.Unlock()
	taken := make([]Rekeyed, 0, len(known))
	for c, list := range known {
		taken = append(taken, Rekeyed{c, list})
	}
	slices.SortFunc(taken, func(x, y Rekeyed) int { return cmp.Compare(x.ID, y.ID) })
	return taken
}
