package introspect

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"patd/server/internal/call"
	"patd/server/internal/fault"
	"patd/server/internal/wire"
	"patd/tokens"
)

// maxUnanswered is how many requests of one stream may be unanswered before reading stops.
const maxUnanswered = 1024

// stream serves one IntrospectStream. Its own goroutine watches over the stream; others read requests, one at a time,
// and answer them.
//
// The goroutine that has read a request answers it and reads on, so that nothing passes between goroutines while
// answers come from memory. Only one that is about to wait, for the store or the source of features, has another
// goroutine read in its place, and ends after its answer.
func (s *Service) stream(_ any, ss grpc.ServerStream) error {
	a := &answering{
		service: s, stream: ss, caller: call.Of(ss.Context()),
		requestID: call.Of(ss.Context()).RequestID(),
		ended:     make(chan error, 1), over: make(chan struct{}), room: make(chan struct{}, maxUnanswered),
	}
	a.actor.Store(&a.caller.Actor)
	a.idle = sync.NewCond(&a.mu)
	a.lead()
	err := a.attend()
	a.finish()
	return err
}

// answering is the state of one stream.
type answering struct {
	service *Service
	stream  grpc.ServerStream
	caller  *call.Call
	// requestID is the stream's. A Call makes its id on first use, so goroutines must not use that of caller.
	requestID string
	actor     atomic.Pointer[tokens.Actor]
	ended     chan error    // receives why reading ended; nil: the caller has sent all its requests
	over      chan struct{} // closed when the stream is
	room      chan struct{} // holds one token for each goroutine that reads or waits

	sending sync.Mutex

	mu       sync.Mutex
	idle     *sync.Cond
	underWay int  // requests read but not yet answered
	closing  bool // no new request is accepted
}

// attend waits until the stream is over: the caller has finished, the caller has lost its access, or the server stops.
func (a *answering) attend() error {
	c := a.service.chain
	tick := time.NewTicker(call.RecheckEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-a.ended:
			return streamEnd(err)
		case <-a.caller.Done():
			return a.caller.Err()
		case <-c.Draining.Done():
			return stopping()
		case now := <-tick.C:
			if a.caller.Connection.Retired(now) {
				return aged()
			}
			actor, err := c.Recheck(a.caller, *a.actor.Load())
			if err != nil {
				return err
			}
			a.actor.Store(&actor)
		}
	}
}

// finish lets the pending answers be sent. A caller that does not read them delays the end of its stream by at most the
// time limit of a call.
func (a *answering) finish() {
	late := time.AfterFunc(a.service.chain.Timeout, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.underWay = min(a.underWay, 0)
		a.idle.Broadcast()
	})
	defer late.Stop()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closing = true
	for a.underWay > 0 {
		a.idle.Wait()
	}
	close(a.over)
}

// enter counts a request that was read. It returns false if the stream is ending.
func (a *answering) enter() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closing {
		return false
	}
	a.underWay++
	return true
}

func (a *answering) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.underWay--; a.closing && a.underWay <= 0 {
		a.idle.Broadcast()
	}
}

// lead starts another goroutine to read and answer, once there is room for it. It may outlive the handler briefly: the
// end of the stream, which comes after the handler's, wakes a goroutine that waits for a request.
func (a *answering) lead() {
	a.service.chain.Streams.Go(func() {
		select {
		case a.room <- struct{}{}:
			a.Serve()
			<-a.room
		case <-a.over:
		}
	})
}

// item is one request of a stream, and the state for its answer.
type item struct {
	call.Call
	request streamRequest
	answer  streamResponse
	in      tokens.Introspection
	room    tokens.Lists // of in
	led     bool         // another goroutine reads in its place
	traced  call.Items   // which requests that it reads get a span
}

// Serve reads and answers requests until there are no more, or until it has had to wait for one: then another goroutine
// reads in its place.
func (a *answering) Serve() {
	i := &item{
		Call: call.Call{Context: a.caller.Context, Method: a.caller.Method, Peer: a.caller.Peer, ID: a.requestID},
	}
	i.Late.Timeout, i.Late.Waits = a.service.chain.Timeout, func() { i.led = true; a.lead() }
	defer i.Late.Release()
	for !i.led {
		if err := a.stream.RecvMsg(&i.request); err != nil {
			select {
			case a.ended <- err:
			default: // another goroutine has reported the end
			}
			return
		}
		if !a.enter() {
			return
		}
		a.answer(i)
		a.leave()
	}
}

// answer answers one request. An error is sent in the answer and logged: the stream's own log line lacks it.
func (a *answering) answer(i *item) {
	i.Actor, i.Cause, i.Reason, i.Subject = *a.actor.Load(), nil, "", 0
	i.answer = streamResponse{id: i.request.id}
	a.service.chain.TraceItem(&i.traced, &i.Call, a.caller)
	err := a.decide(i)
	if !a.sending.TryLock() {
		a.sending.Lock()
		if err == nil { // the answer waited to be sent, and its caller's token may have ended meanwhile
			err = a.service.chain.StillIs(&i.Call)
		}
	}
	defer a.sending.Unlock()
	code := codes.OK
	if err != nil {
		public := i.Explain(err)
		code = fault.ClassOfDomain(public.Code).GRPC
		i.answer.failed, i.answer.code = public, int32(code)
		a.service.chain.Log(&i.Call, code, -1)
	} else {
		i.answer.answer = &i.in
		a.service.chain.EndItem(&i.Call, &i.in)
	}
	a.service.chain.Metrics.Streamed.Count(code)
	_ = a.stream.SendMsg(&i.answer) // a failure means that the stream is over, which attend notices
}

// decide decides on one request, and limits a panic to that request.
func (a *answering) decide(i *item) (err error) {
	defer func() {
		if v := recover(); v != nil {
			a.service.chain.LogPanic(&i.Call, v)
			err = fault.ErrPanic
		}
	}()
	if i.request.size > call.MaxMessage {
		return call.TooLarge()
	}
	in, ok := i.request.toDomain()
	if !ok {
		return wire.ErrClientIP()
	}
	return a.service.service.IntrospectInto(&i.Call, &i.Actor, &in, &i.in, &i.room)
}

// streamEnd returns the error of a stream whose reading ended; io.EOF is not an error.
func streamEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func stopping() *tokens.Error {
	return tokens.Fail(tokens.CodeUnavailable, "SERVER_STOPPING", "the server is stopping; try again")
}

// aged returns the error that ends a stream on a connection that has to be renewed.
func aged() *tokens.Error {
	return tokens.Fail(
		tokens.CodeUnavailable,
		"CONNECTION_AGED",
		"the connection has reached its age; open the stream again, on a new one",
	)
}
