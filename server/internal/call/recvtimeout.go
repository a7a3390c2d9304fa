package call

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// endable is the transport's stream as far as it can be ended by others than the call's handler, as gRPC itself does
// when one of the handler's goroutines fails. TestCallWithoutAMessageEnds fails if that is not so any more.
type endable interface {
	WriteStatus(*status.Status) error
}

// RecvTimeout ends a hot call whose message does not come in time. It is reused with its timer, which would be most of
// its cost: a message almost always comes at once.
type RecvTimeout struct {
	timer *time.Timer

	mu     sync.Mutex
	stream endable // nil: no call has it
}

var recvTimeouts = sync.Pool{New: func() any {
	t := &RecvTimeout{}
	t.timer = time.AfterFunc(time.Hour, t.end)
	t.timer.Stop()
	return t
}}

// AwaitMessage begins to wait for a call's message, as long as a call may take. The result is nil where the stream
// cannot be ended.
func AwaitMessage(ctx context.Context, timeout time.Duration) *RecvTimeout {
	stream, ok := grpc.ServerTransportStreamFromContext(ctx).(endable)
	if !ok {
		return nil
	}
	t, _ := recvTimeouts.Get().(*RecvTimeout)
	t.mu.Lock()
	t.stream = stream
	t.mu.Unlock()
	t.timer.Reset(timeout)
	return t
}

// end ends the call.
func (t *RecvTimeout) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stream != nil { // it fails if the stream has ended anyway
		_ = t.stream.WriteStatus(status.New(codes.DeadlineExceeded, "the call's message did not come in time"))
	}
}

// Stop is called when the message has come, or will not. One whose timer has fired is not reused: it may be about to end
// its call.
func (t *RecvTimeout) Stop() {
	if t == nil || !t.timer.Stop() {
		return
	}
	t.mu.Lock()
	t.stream = nil
	t.mu.Unlock()
	recvTimeouts.Put(t)
}
