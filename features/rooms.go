package features

import (
	"context"
	"fmt"
	"time"
)

// Bounds of the requests that are under way at once.
const (
	quickRequests = 32  // to an endpoint, as a rule
	slowRequests  = 256 // to an endpoint, that have been under way for long
	slowAfter     = 100 * time.Millisecond
	// slowFor is how long a user is treated as slow after the source last hung for that user.
	slowFor = time.Minute
	// maxSlowUsers bounds how many slow users are recorded. Beyond it, others are treated as quick, for slowAfter.
	maxSlowUsers = 10_000
)

// rooms bounds how many requests are under way at once, so that hanging ones do not take the places of the others. A
// request begins in the quick room. When it takes long it moves to the slow room, if that has a place, and frees its
// own. A request about a user for whom the source hung lately begins in the slow room.
type rooms struct {
	quick, slow chan struct{}
}

func newRooms(quick, slow int) rooms {
	return rooms{quick: make(chan struct{}, max(quick, 1)), slow: make(chan struct{}, max(slow, 1))}
}

// enter waits for a place, and returns the function that gives it back.
func (r rooms) enter(ctx context.Context, slow bool) (leave func(), err error) {
	room := r.quick
	if slow {
		room = r.slow
	}
	select {
	case room <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("too many requests to the source are under way: %w", ctx.Err())
	}
	if slow {
		return func() { <-r.slow }, nil
	}
	done := make(chan struct{})
	moved := make(chan chan struct{}, 1) // the room of the request at its end
	go func() {
		wait := time.NewTimer(slowAfter)
		defer wait.Stop()
		select {
		case <-done:
			moved <- r.quick
			return
		case <-wait.C:
		}
		select {
		case r.slow <- struct{}{}:
			<-r.quick
			moved <- r.slow
		case <-done:
			moved <- r.quick
		}
	}()
	return func() {
		close(done)
		<-<-moved
	}, nil
}

// slowUsers are the users for whom the source hung lately, and until when they count as slow.
type slowUsers map[string]time.Time

func (s slowUsers) has(user string, now time.Time) bool {
	until, ok := s[user]
	if ok && !now.Before(until) {
		delete(s, user)
		return false
	}
	return ok
}

// note records whether a request hung.
func (s slowUsers) note(user string, hung bool, now time.Time) {
	switch {
	case !hung:
		delete(s, user)
	case len(s) < maxSlowUsers || s.has(user, now):
		s[user] = now.Add(slowFor)
	default:
		for other := range s { // drop those whose time is over
			s.has(other, now)
		}
	}
}
