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

// maxUnanswered is how many requests of one stream may be unanswered before no more are read from it.
const maxUnanswered = 1024

// stream returns the calls of one IntrospectStream. The goroutine it runs in looks after the stream; others read, one at a
// time, and answer.
//
// Whoever has read a request answers it and reads on, so that nothing is handed from one goroutine to another while
// answers come from memory. Only one that is about to wait, for the store or the source of features, has another read in
// its place, and ends with its answer.
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

// answering is the answering of one stream.
type answering struct {
	service *Service
	stream  grpc.ServerStream
	caller  *call.Call
	// requestID is the caller's. A call makes its id when it is first asked for one, so goroutines must not ask caller.
	requestID string
	actor     atomic.Pointer[tokens.Actor]
	ended     chan error    // gets the reason why no more is read; nil: the caller has asked all that it wanted to
	over      chan struct{} // closed when the stream is
	room      chan struct{} // has a place for each goroutine: one that reads, or one that waits with its request

	sending sync.Mutex

	mu       sync.Mutex
	idle     *sync.Cond
	underWay int  // requests that were read and are not answered
	closing  bool // nothing new is taken
}

// attend waits until the stream is over: its caller is done with it, is not let in any more, or the server stops.
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

// finish lets the answers under way be sent. A caller that does not read them does not hold up the end of its stream for
// longer than a call may last.
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

// enter takes a request that was read, unless the stream is ending.
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

// lead has another goroutine read and answer, once there is room for it. It may outlive the handler by a moment: one
// that waits for a request is woken by the end of the stream, which comes after the handler's.
func (a *answering) lead() {
	a.service.chain.Lingering.Go(func() {
		select {
		case a.room <- struct{}{}:
			a.Serve()
			<-a.room
		case <-a.over:
		}
	})
}

// item is one request of a stream, and what it takes to answer it.
type item struct {
	call.Call
	question streamQuestion
	answer   streamAnswer
	in       tokens.Introspection
	led      bool // another goroutine reads
}

// Serve reads requests and answers them, until there are no more, or it has had to wait for one: then another goroutine
// reads in its place.
func (a *answering) Serve() {
	i := &item{Call: call.Call{Context: a.caller.Context, Method: a.caller.Method, Peer: a.caller.Peer, ID: a.requestID}}
	i.Late.Timeout, i.Late.Waits = a.service.chain.Timeout, func() { i.led = true; a.lead() }
	defer i.Late.Release()
	for !i.led {
		if err := a.stream.RecvMsg(&i.question); err != nil {
			select {
			case a.ended <- err:
			default: // somebody else has met the end too
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

// answer returns one request. What fails is told in the answer, and logged, since the stream's own line says nothing of it.
func (a *answering) answer(i *item) {
	i.Actor, i.Cause = *a.actor.Load(), nil
	i.answer = streamAnswer{id: i.question.id}
	err := a.decide(i)
	if !a.sending.TryLock() {
		a.sending.Lock()
		if err == nil { // it waited to be sent, and its caller's token may have ended meanwhile
			err = a.service.chain.StillIs(&i.Call)
		}
	}
	defer a.sending.Unlock()
	code := codes.OK
	if err != nil {
		public, cause := fault.Explain(err)
		i.Cause = cause
		code = fault.ClassOfDomain(public.Code).GRPC
		i.answer.failed, i.answer.code = public, int32(code)
		a.service.chain.Log(&i.Call, code, 0)
	} else {
		i.answer.answer = &i.in
	}
	a.service.chain.Metrics.Streamed.Count(code)
	_ = a.stream.SendMsg(&i.answer) // a failure means that the stream is over, which attend sees
}

// decide decides about one request, and has a panic end that request alone.
func (a *answering) decide(i *item) (err error) {
	defer func() {
		if v := recover(); v != nil {
			a.service.chain.LogPanic(&i.Call, v)
			err = fault.ErrPanic
		}
	}()
	if i.question.size > call.MaxMessage {
		return call.TooLarge()
	}
	in, ok := i.question.request()
	if !ok {
		return wire.ErrClientIP()
	}
	i.in, err = a.service.service.Introspect(&i.Call, i.Actor, in)
	return err
}

// streamEnd is the error of a stream from which no more could be read; io.EOF is none.
func streamEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func stopping() *tokens.Error {
	return tokens.Fail(tokens.CodeUnavailable, "SERVER_STOPPING", "the server is stopping; try again")
}

// aged ends a stream on a connection that is to be renewed.
func aged() *tokens.Error {
	return tokens.Fail(tokens.CodeUnavailable, "CONNECTION_AGED", "the connection has reached its age; open the stream again, on a new one")
}
