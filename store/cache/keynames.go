package cache

import (
	"slices"
	"sync"
	"sync/atomic"
)

// keyNames numbers the names of keys, so that a record can name one by two bytes. There are few; none is ever dropped.
type keyNames struct {
	mu    sync.Mutex
	names atomic.Pointer[[]string]
}

func (k *keyNames) list() []string {
	if list := k.names.Load(); list != nil {
		return *list
	}
	return nil
}

// number returns the number of a name; false: there are too many.
func (k *keyNames) number(name string) (uint16, bool) {
	if i := slices.Index(k.list(), name); i >= 0 {
		return uint16(i), true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	list := k.list()
	i := slices.Index(list, name)
	if i < 0 {
		const most = 1 << 16
		if i = len(list); i == most {
			return 0, false
		}
		more := append(slices.Clone(list), name)
		k.names.Store(&more)
	}
	return uint16(i), true
}
