package store

import "context"

// HearNow reads the change feed to its end.
func (c *Cached) HearNow(ctx context.Context) error { return c.feed.catchUp(ctx, 0) }

// Compare compares the feed with the audit log at once.
func (f *Feed) Compare(ctx context.Context) error { return f.compare(ctx) }
