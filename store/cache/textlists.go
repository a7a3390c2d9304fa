package cache

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// textLists are lists of texts that several records have, each once: many users have the same features, by what they
// pay for, and many tokens the same scopes, by what made them. Then a record is short, and the memory that a decision
// reads is likely in the processor's cache. A list is shared from the second record on. Numbers stay good: when there
// is no room for more lists, new ones are their records' own.
type textLists struct {
	lists atomic.Pointer[[][]string] // by number, which begins at 1

	mu      sync.Mutex // guards what follows, and changes of lists
	numbers map[string]uint32
	once    map[uint64]struct{} // hashes of some that came once
	size    int
}

const (
	sharedLists = 1 << 20 // bytes of all that are shared
	cameOnce    = 1 << 12
)

// all returns the lists. It is called after the record was read that has a number.
func (l *textLists) all() [][]string {
	if all := l.lists.Load(); all != nil {
		return *all
	}
	return nil
}

// number returns the number of a list; 0: it has none.
func (l *textLists) number(list []string) uint32 {
	key := strings.Join(list, " ")
	l.mu.Lock()
	defer l.mu.Unlock()
	if n, ok := l.numbers[key]; ok {
		return n
	}
	cost := 2*len(key) + 16*len(list) + 64
	if cost > sharedLists/16 || l.size+cost > sharedLists {
		return 0
	}
	if hash := hashText(key); !l.came(hash) {
		return 0
	}
	all := append(l.all(), slices.Clip(list)) // readers of the former lists do not look behind their end
	l.lists.Store(&all)
	if l.numbers == nil {
		l.numbers = make(map[string]uint32)
	}
	n := uint32(len(all))
	l.numbers[key], l.size = n, l.size+cost
	return n
}

// came reports whether a hash came before, as far as is remembered.
func (l *textLists) came(hash uint64) bool {
	if _, ok := l.once[hash]; ok {
		return true
	}
	if l.once == nil || len(l.once) >= cameOnce {
		l.once = make(map[uint64]struct{})
	}
	l.once[hash] = struct{}{}
	return false
}
