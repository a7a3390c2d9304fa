package call

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// endable is a transport stream that code other than the call's handler can end, as gRPC itself does when one of the
// handler's goroutines fails. TestCallWithoutAMessageEnds fails if that changes.
type endable interface {
	WriteStatus(*status.Status) error
}

// RecvTimeout ends a hot call whose message does not arrive in time. It is reused together with its timer, which runs on
// between calls: to start a timer may wake a thread, for a message that is almost always there already.
type RecvTimeout struct {
	timer *time.Timer

	mu     sync.Mutex
	stream endable   // nil: not in use
	until  time.Time // when that ends
	fires  time.Time // when the timer does; zero: it does not run
}

var recvTimeouts = sync.Pool{New: func() any { return newRecvTimeout() }}

func newRecvTimeout() *RecvTimeout {
	t := &RecvTimeout{}
	t.timer = time.AfterFunc(time.Hour, t.end)
	t.timer.Stop()
	return t
}

// AwaitMessage starts the wait for a call's message, with the time limit of a call, from when it began. It returns nil
// if the stream cannot be ended.
func AwaitMessage(ctx context.Context, begun time.Time, timeout time.Duration) *RecvTimeout {
	stream, ok := grpc.ServerTransportStreamFromContext(ctx).(endable)
	if !ok {
		return nil
	}
	t, _ := recvTimeouts.Get().(*RecvTimeout)
	t.await(stream, begun.Add(timeout))
	return t
}

// await has the stream end at an instant.
func (t *RecvTimeout) await(stream endable, until time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stream, t.until = stream, until
	if t.fires.IsZero() || t.fires.After(until) {
		t.fires = until
		t.timer.Reset(time.Until(until))
	}
}

// end ends the call, if it is time. The timer may have been started for an earlier one.
func (t *RecvTimeout) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fires = time.Time{}
	if t.stream == nil {
		return
	}
	if left := time.Until(t.until); left > 0 {
		t.fires = t.until
		t.timer.Reset(left)
		return
	}
	// It fails if the stream has already ended.
	_ = t.stream.WriteStatus(status.New(codes.DeadlineExceeded, "the call's message did not come in time"))
}

// Stop must be called when the message has arrived, or will not.
func (t *RecvTimeout) Stop() {
	if t == nil {
		return
	}
	t.arrived()
	recvTimeouts.Put(t)
}

func (t *RecvTimeout) arrived() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stream = nil
}
