package client

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	firstPause = 50 * time.Millisecond
	longPause  = 2 * time.Second
	// hopelessPause is for errors that only a change of the server or of its rights resolves.
	hopelessPause = 15 * time.Second
)

// pauses is an exponential backoff with jitter, so that the clients of a restarted server do not all come at once.
type pauses struct{ tries int }

// wait waits before the next try, or until ctx ends.
func (p *pauses) wait(ctx context.Context, hopeless bool) {
	pause := min(longPause, firstPause<<min(p.tries, 10))
	if hopeless {
		pause = hopelessPause
	}
	p.tries++
	t := time.NewTimer(pause/2 + rand.N(pause)) //nolint:gosec // guessing it gains nothing
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
