package store

import "context"

// HearNow reads the change feed to its end.
func (c *Cached) HearNow(ctx context.Context) error { return c.feed.CatchUp(ctx, 0) }
