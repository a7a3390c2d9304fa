package features

import (
	"context"
	"fmt"
	"time"
)

// Bounds of the questions that are under way at once.
const (
	quickQuestions = 32  // to an endpoint, as a rule
	slowQuestions  = 256 // to an endpoint, that have been under way for long
	slowAfter      = 100 * time.Millisecond
	// slowFor is how long a user is known as one about whom the source hangs, after it last did.
	slowFor = time.Minute
	// maxSlowUsers bounds how many such users are known. Past it the others are taken for quick ones, for slowAfter.
	maxSlowUsers = 10_000
)

// rooms bounds how many questions are under way at once, so that those which hang do not take the places of the others.
// A question begins in the room of the quick ones. When it takes long it moves to the room of the slow ones, as far as
// that has a place, and leaves its own to the next. A question about a user for whom the source hung lately begins in the
// room of the slow ones.
type rooms struct {
	quick, slow chan struct{}
}

func newRooms(quick, slow int) rooms {
	return rooms{quick: make(chan struct{}, max(quick, 1)), slow: make(chan struct{}, max(slow, 1))}
}

// enter waits for a place, and returns what gives it back.
func (r rooms) enter(ctx context.Context, slow bool) (leave func(), err error) {
	room := r.quick
	if slow {
		room = r.slow
	}
	select {
	case room <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("too many questions to the source are under way: %w", ctx.Err())
	}
	if slow {
		return func() { <-r.slow }, nil
	}
	done := make(chan struct{})
	moved := make(chan chan struct{}, 1) // the room that the question is in at its end
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

// slowUsers are those about whom the source hung lately, and until when they are known as such.
type slowUsers map[string]time.Time

func (s slowUsers) has(user string, now time.Time) bool {
	until, ok := s[user]
	if ok && !now.Before(until) {
		delete(s, user)
		return false
	}
	return ok
}

// note takes in how long a question took.
func (s slowUsers) note(user string, hung bool, now time.Time) {
	switch {
	case !hung:
		delete(s, user)
	case len(s) < maxSlowUsers || s.has(user, now):
		s[user] = now.Add(slowFor)
	default:
		for other := range s { // those whose time is over make room
			s.has(other, now)
		}
	}
}
