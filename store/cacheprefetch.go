package store

import (
	"runtime"
	"slices"

	"patd/tokens"
)

var _ tokens.Prefetcher = (*Cached)(nil)

// Prefetch implements tokens.Prefetcher. A record of a million is in none of the processor's caches, mostly, and waiting
// for memory is most of what a lookup takes: four times, for the token's place, the token, the user's place and the user,
// each of which tells where the next is. Of many tokens the processor waits for one step of all at once, as long as nothing
// else comes between: no lock is taken, and the loops are short.
func (c *Cached) Prefetch(ids []tokens.ID) {
	var room [64]wanted // as many as a processor can wait for, and more
	for some := range slices.Chunk(ids, len(room)) {
		list := room[:len(some)]
		for i, id := range some {
			list[i] = wanted{view: c.shard(id).log.view.Load(), id: uint64(id)}
		}
		prefetch(list)
		for i := range list {
			if r := whole(list[i].at); r != nil {
				key := r.userKey()
				list[i] = wanted{view: c.users.shard(key).log.view.Load(), id: uint64(key)}
			}
		}
		prefetch(list)
	}
}

// wanted is a record that will be looked for.
type wanted struct {
	view *view
	id   uint64
	at   []byte // where it begins, in all likelihood; empty: it is not in view
}

// cacheLine is how much memory comes at once.
const cacheLine = 64

// prefetch has a processor read the records of a list.
func prefetch(list []wanted) {
	var sum uint64 // of what is read, so that it is
	for i := range list {
		sum += list[i].view.start(list[i].id)
	}
	for i := range list {
		list[i].at = list[i].view.likely(list[i].id)
	}
	for i := range list {
		if b := list[i].at; len(b) > 0 {
			sum += uint64(b[0])
		}
	}
	for i := range list {
		if r := whole(list[i].at); r != nil {
			for at := cacheLine; at < len(r); at += cacheLine { // none of it is written again
				sum += uint64(r[at])
			}
			sum += uint64(r[len(r)-1])
		}
	}
	runtime.KeepAlive(sum)
}
