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

// RecvTimeout ends a hot call whose message does not arrive in time. It is reused together with its timer, which is
// most of its cost: a message almost always arrives at once.
type RecvTimeout struct {
	timer *time.Timer

	mu     sync.Mutex
	stream endable // nil: not in use
}

var recvTimeouts = sync.Pool{New: func() any {
	t := &RecvTimeout{}
	t.timer = time.AfterFunc(time.Hour, t.end)
	t.timer.Stop()
	return t
}}

// AwaitMessage starts the wait for a call's message, with the time limit of a call. It returns nil if the stream cannot
// be ended.
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
	if t.stream != nil { // it fails if the stream has already ended
		_ = t.stream.WriteStatus(status.New(codes.DeadlineExceeded, "the call's message did not come in time"))
	}
}

// Stop must be called when the message has arrived, or will not. A RecvTimeout whose timer has fired is not reused: it
// may be about to end its call.
func (t *RecvTimeout) Stop() {
	if t == nil || !t.timer.Stop() {
		return
	}
	t.mu.Lock()
	t.stream = nil
	t.mu.Unlock()
	recvTimeouts.Put(t)
}
