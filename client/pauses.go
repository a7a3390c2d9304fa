package client

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	firstPause = 50 * time.Millisecond
	longPause  = 2 * time.Second
	// hopelessPause is for what only a change of the server or of its rights mends.
	hopelessPause = 15 * time.Second
)

// pauses are how long to wait before the next try: longer each time, and at random, so that all the clients of a server that
// starts anew do not come at once.
type pauses struct{ tries int }

// wait waits before the next try, or until ctx ends.
func (p *pauses) wait(ctx context.Context, hopeless bool) {
	pause := min(longPause, firstPause<<min(p.tries, 10))
	if hopeless {
		pause = hopelessPause
	}
	p.tries++
	t := time.NewTimer(pause/2 + rand.N(pause)) //nolint:gosec // nobody gains by guessing it
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
