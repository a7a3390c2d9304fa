package cache

import (
	"slices"
	"sync/atomic"

	"patd/store/cache/internal/reclog"
	"patd/tokens"
)

// holdings remember of pairs of lists, one of scopes and one of features, whether all of the scopes are among the
// features: there are few such pairs, and to compare the texts is a good part of what a decision costs. What they
// remember is never wrong, since a number stands for the same list for ever.
type holdings struct {
	pairs [1 << holdingBits]atomic.Uint64 // the number of the scopes, that of the features, and whether they are
}

const holdingBits = 10

// all reports whether the user in c surely has all scopes of its token, whose lists have these numbers; 0: none.
func (h *holdings) all(scopes, features uint32, c *tokens.Credential) bool {
	const half = 32
	if scopes == 0 || features == 0 || scopes >= 1<<(half-1) {
		return false
	}
	pair := uint64(scopes)<<half | uint64(features)
	slot := &h.pairs[reclog.Spread(pair)>>(64-holdingBits)]
	if known := slot.Load(); known>>1 == pair {
		return known&1 != 0
	}
	known := pair << 1
	if !slices.ContainsFunc(c.Token.Scopes, func(s string) bool { return !slices.Contains(c.User.Features, s) }) {
		known |= 1
	}
	slot.Store(known)
	return known&1 != 0
}
