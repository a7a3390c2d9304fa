package client

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	patdv1 "patd/gen/patd/v1"
)

// errLineBroke reports that the stream ended before the answer came.
var errLineBroke = errors.New("the stream to patd broke")

// line is one stream that carries many requests. A caller waits for flow control no longer than its context allows.
type line struct {
	stream patdv1.IntrospectionService_IntrospectStreamClient
	cancel context.CancelFunc
	now    func() time.Time
	queue  chan *patdv1.IntrospectStreamRequest
	ended  chan struct{}
	heard  atomic.Int64 // when the latest answer to any request came

	mu      sync.Mutex
	last    uint64
	pending map[uint64]*pendingRequest // nil: the stream ended
}

// pendingRequest is a request that waits for its answer.
type pendingRequest struct {
	done     chan struct{} // closed once answer is written
	answer   *patdv1.IntrospectStreamResponse
	answered bool
}

func newLine(
	stream patdv1.IntrospectionService_IntrospectStreamClient,
	cancel context.CancelFunc,
	now func() time.Time,
) *line {
	return &line{
		stream: stream, cancel: cancel, now: now, queue: make(chan *patdv1.IntrospectStreamRequest, 16),
		ended: make(chan struct{}), pending: map[uint64]*pendingRequest{},
	}
}

// serve sends and receives until the stream ends.
func (l *line) serve(ctx context.Context) error {
	var sending sync.WaitGroup
	sending.Go(func() { l.send(ctx) })
	err := l.receive()
	l.cancel()
	close(l.ended)
	sending.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, q := range l.pending {
		close(q.done)
	}
	l.pending = nil
	return err
}

func (l *line) send(ctx context.Context) {
	for {
		select {
		case r := <-l.queue:
			if l.stream.Send(r) != nil {
				return // receive gets the error
			}
		case <-ctx.Done():
			return
		}
	}
}

func (l *line) receive() error {
	for {
		answer, err := l.stream.Recv()
		if err != nil {
			return err
		}
		l.heard.Store(l.now().UnixNano())
		if q := l.take(answer.GetId()); q != nil {
			q.answer, q.answered = answer, true
			close(q.done)
		}
	}
}

// take removes and returns the request of an id; nil: no caller waits for it any more.
func (l *line) take(id uint64) *pendingRequest {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.pending[id]
	delete(l.pending, id)
	return q
}

func (l *line) open() (uint64, *pendingRequest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending == nil {
		return 0, nil
	}
	l.last++
	q := &pendingRequest{done: make(chan struct{})}
	l.pending[l.last] = q
	return l.last, q
}

// ask sends one request.
func (l *line) ask(ctx context.Context, r *patdv1.IntrospectRequest) (*patdv1.IntrospectResponse, error) {
	id, q := l.open()
	if q == nil {
		return nil, errLineBroke
	}
	asked := l.now()
	select {
	case l.queue <- &patdv1.IntrospectStreamRequest{Id: id, Request: r}:
	case <-l.ended:
		l.take(id)
		return nil, errLineBroke
	case <-ctx.Done():
		return nil, l.giveUp(ctx, id, asked)
	}
	select {
	case <-q.done:
	case <-ctx.Done():
		return nil, l.giveUp(ctx, id, asked)
	}
	if !q.answered {
		return nil, errLineBroke
	}
	return outcome(q.answer)
}

// giveUp drops a request that timed out. If the stream brought no answer at all since it was sent, the stream is
// considered dead, so that the next request takes another way.
func (l *line) giveUp(ctx context.Context, id uint64, asked time.Time) error {
	l.take(id)
	if l.heard.Load() < asked.UnixNano() {
		l.cancel()
	}
	return status.FromContextError(ctx.Err()).Err()
}

// outcome reads an answer: a decision, or the error that a unary call would have returned.
func outcome(r *patdv1.IntrospectStreamResponse) (*patdv1.IntrospectResponse, error) {
	if answer := r.GetResponse(); answer != nil {
		return answer, nil
	}
	fault := r.GetError()
	if fault == nil || fault.GetCode() == int32(codes.OK) {
		return nil, errNonsense
	}
	s := status.New(codes.Code(fault.GetCode()), fault.GetMessage())
	if with, err := s.WithDetails(
		protoadapt.MessageV1Of(&errdetails.ErrorInfo{Reason: fault.GetReason(), Domain: "patd"}),
	); err == nil {
		s = with
	}
	return nil, s.Err()
}
