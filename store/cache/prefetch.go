package cache

import (
	"context"
	"slices"

	"patd/store/cache/internal/reclog"
	"patd/tokens"
)

var _ tokens.Prefetcher = (*Cache)(nil)

// Prefetch implements tokens.Prefetcher. Waiting for memory is most of what a lookup takes: four times, for the token's
// place, the token, the user's place and the user, each of which shows where the next is. Of many tokens the processor
// waits for one step of all at once.
func (c *Cache) Prefetch(ids []tokens.ID) {
	var room wanted
	for some := range slices.Chunk(ids, len(room)) {
		list := c.prefetch(&room, some)
		for i := range list {
			if r := tokenRecord(list[i].Record()); r != nil {
				key := r.userKey()
				list[i] = c.users.shard(key).log.Want(uint64(key))
			}
		}
		reclog.Prefetch(list)
	}
}

// wanted are as many as a processor can wait for, and more.
type wanted [64]reclog.Wanted

// prefetch has the processor read the records of at most so many tokens.
func (c *Cache) prefetch(room *wanted, ids []tokens.ID) []reclog.Wanted {
	list := room[:len(ids)]
	for i, id := range ids {
		list[i] = c.shard(id).log.Want(uint64(id))
	}
	reclog.Prefetch(list)
	return list
}

// FlushUses implements tokens.UseFlusher, where the source does.
func (c *Cache) FlushUses(ctx context.Context, of []tokens.ID) error {
	if f, ok := c.behind.(tokens.UseFlusher); ok {
		return f.FlushUses(ctx, of)
	}
	return nil
}
