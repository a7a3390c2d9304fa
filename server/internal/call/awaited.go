package call

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Awaited are the hot calls that have begun and whose message has not come yet, oldest first. Each has as long for that as
// a call may take. A timer to each would do as well, but a message almost always comes at once, and then the timer is
// what costs most about having one.
type Awaited struct {
	Timeout time.Duration
	lists   [8]awaitedList // so that calls on several cores do not wait for each other
}

// awaitedList is a part of them.
type awaitedList struct {
	mu          sync.Mutex
	first, last *AwaitedCall
	_           [40]byte
}

// AwaitedCall is the place of one call in its list.
type AwaitedCall struct {
	list       *awaitedList
	prev, next *AwaitedCall
	since      time.Time
	stream     endable
}

// endable is the transport's stream as far as it can be ended by somebody else than the call's handler, as gRPC itself does
// when one of the handler's goroutines fails. TestCallWithoutAMessageEnds fails if that is not so any more.
type endable interface {
	WriteStatus(*status.Status) error
}

// Add puts a call in.
func (a *Awaited) Add(ctx context.Context, c *AwaitedCall, now time.Time) {
	var ok bool
	if c.stream, ok = grpc.ServerTransportStreamFromContext(ctx).(endable); !ok {
		c.stream = nil
		return
	}
	c.since, c.list = now, &a.lists[rand.Uint32()%uint32(len(a.lists))] //nolint:gosec // G404: any will do
	c.list.mu.Lock()
	defer c.list.mu.Unlock()
	if c.prev = c.list.last; c.prev == nil {
		c.list.first = c
	} else {
		c.prev.next = c
	}
	c.list.last = c
}

// Remove takes a call out, whether it is still in or not.
func (c *AwaitedCall) Remove() {
	if c.list == nil {
		return
	}
	c.list.mu.Lock()
	defer c.list.mu.Unlock()
	c.unlink()
}

func (c *AwaitedCall) unlink() {
	if c.stream == nil {
		return
	}
	if c.prev == nil {
		c.list.first = c.next
	} else {
		c.prev.next = c.next
	}
	if c.next == nil {
		c.list.last = c.prev
	} else {
		c.next.prev = c.prev
	}
	c.prev, c.next, c.stream = nil, nil, nil
}

// Watch ends calls whose message does not come, until ctx ends. Then the connections do.
func (a *Awaited) Watch(ctx context.Context) {
	tick := time.NewTicker(max(min(a.Timeout/8, time.Second), time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for i := range a.lists {
				a.lists[i].end(now.Add(-a.Timeout))
			}
		}
	}
}

// end ends the calls that wait since before an instant.
func (l *awaitedList) end(before time.Time) {
	late := status.New(codes.DeadlineExceeded, "the call's message did not come in time")
	for {
		l.mu.Lock()
		c := l.first
		if c == nil || c.since.After(before) {
			l.mu.Unlock()
			return
		}
		stream := c.stream
		c.unlink()
		l.mu.Unlock()
		_ = stream.WriteStatus(late) // it fails if the stream has ended anyway
	}
}
