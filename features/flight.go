package features

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"patd/internal/flight"
	"patd/internal/tracecontext"
	"patd/tokens"
)

// sourceRequest is one request to the source, and the calls that wait for its answer.
type sourceRequest = flight.Flight[asked, tokens.Held]

// asked is what a request is about, and when it was made.
type asked struct {
	user  tokens.User
	kind  int                  // of the call that needs it
	trace tracecontext.Context // of the first call that needs it
	start uint64               // on the clock of Cached; 0: not yet
	at    time.Time
	sent  time.Time // when there was a place for it; zero: not yet
}

// queue is the requests about one user: one under way, and at most one that follows it, for calls that came too late
// for the first. It is dropped when no call waits any more, or by Forget, which makes its requests stale.
type queue struct {
	running, next *sourceRequest
	waiters       int
}

// ticket is a place in a queue.
type ticket struct {
	queue     *queue
	request   *sourceRequest
	displaced chan struct{} // closed when another call needs the room
	at        *list.Element // in the list of its kind; nil: it was displaced
}

var (
	errForgotten = errors.New("forgotten meanwhile")
	errClosed    = errors.New("the source was closed")
)

// errCrowded is the outage of a call for which there is no room.
func errCrowded() error {
	return tokens.FeaturesUnavailable(
		"find out the features of a user",
		errors.New("too many calls wait for the source"),
	)
}

// board returns a cached answer, or else a place on a flight.
func (c *Cached) board(ctx context.Context, u tokens.User, fresh bool, began uint64) (*ticket, tokens.Held, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, tokens.Held{}, tokens.FeaturesUnavailable("find out the features of a user", errClosed)
	}
	if !fresh {
		held, ok, refresh := c.recall(u.ID)
		if refresh {
			c.join(tracecontext.Context{}, u, false, began) // no call waits for it
		}
		if ok {
			return nil, held, nil
		}
	}
	waiting := &c.waiting[kind(fresh)]
	if waiting.Len() >= c.config.MaxWaiting>>kind(fresh) && !c.displace(waiting) {
		return nil, tokens.Held{}, errCrowded()
	}
	t := c.join(tracecontext.Of(ctx), u, fresh, began)
	t.queue.waiters++
	t.displaced = make(chan struct{})
	t.at = waiting.PushBack(t)
	return t, tokens.Held{}, nil
}

// displaceable bounds how many of the oldest tickets are checked for one that may be displaced.
const displaceable = 64

// displace makes room among the waiting calls: it refuses the oldest one that waits for a source that hangs. It reports
// whether there was one.
func (c *Cached) displace(waiting *list.List) bool {
	now := c.config.Now()
	for e, looked := waiting.Front(), 0; e != nil && looked < displaceable; e, looked = e.Next(), looked+1 {
		t, _ := e.Value.(*ticket)
		if sent := t.request.Begun.sent; !t.request.Landed() && !sent.IsZero() && now.Sub(sent) >= slowAfter {
			waiting.Remove(e)
			t.at = nil
			close(t.displaced)
			return true
		}
	}
	return false
}

// kind is the index of a kind of call: fresh or not.
func kind(fresh bool) int {
	if fresh {
		return 1
	}
	return 0
}

// join returns the flight that a call may wait for, and starts one when there is none. A fresh call must not join one
// that was under way when it began.
func (c *Cached) join(at tracecontext.Context, u tokens.User, fresh bool, began uint64) *ticket {
	q := c.queues[u.ID]
	if q == nil {
		q = &queue{}
		c.queues[u.ID] = q
	}
	t := &ticket{queue: q}
	switch {
	case q.running == nil:
		q.running = flight.New[asked, tokens.Held](asked{user: u, kind: kind(fresh), trace: at})
		c.start(q)
		t.request = q.running
	case !fresh || q.running.Begun.start > began:
		t.request = q.running
	default:
		if q.next == nil {
			q.next = flight.New[asked, tokens.Held](asked{user: u, kind: kind(fresh), trace: at})
		}
		t.request = q.next
	}
	t.request.Join()
	return t
}

// start asks the source in the background. The request outlives its callers and has a time limit of its own.
func (c *Cached) start(q *queue) {
	f := q.running
	c.clock++
	f.Begun.start, f.Begun.at = c.clock, c.config.Now()
	slow := c.slow.has(f.Begun.user.ID, f.Begun.at)
	c.wg.Go(func() {
		ctx, cancel := context.WithTimeout(c.base, c.config.Timeout)
		defer cancel()
		if f.Begun.trace.Valid() {
			ctx = tracecontext.With(ctx, f.Begun.trace)
		}
		held, err := c.ask(ctx, f, slow)
		c.land(q, f, held, err)
	})
}

// ask sends one request to the source, when there is a place for it.
func (c *Cached) ask(ctx context.Context, f *sourceRequest, slow bool) (tokens.Held, error) {
	leave, err := c.rooms[f.Begun.kind].enter(ctx, slow)
	if err != nil {
		return tokens.Held{}, err
	}
	defer leave()
	c.mu.Lock()
	f.Begun.sent = c.config.Now()
	c.mu.Unlock()
	held, err := c.source.Features(ctx, f.Begun.user, true)
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.config.Now()
	c.stats.note(now.Sub(f.Begun.sent), err, now)
	c.slow.note(f.Begun.user.ID, err != nil && now.Sub(f.Begun.sent) >= slowAfter, now)
	return held, err
}

// land processes the source's answer, and logs outside the lock.
func (c *Cached) land(q *queue, f *sourceRequest, held tokens.Held, err error) {
	if err != nil {
		err = unavailable(err)
	}
	c.mu.Lock()
	now := c.config.Now()
	report := func(*slog.Logger) {}
	if !c.closed {
		report = c.health.note(err, now)
	}
	if !f.Stale() {
		c.resolve(q, f, held, err, now)
	}
	c.mu.Unlock()
	report(c.config.Logger)
}

// resolve caches an answer, delivers it to the waiting calls, and starts the next request.
func (c *Cached) resolve(q *queue, f *sourceRequest, held tokens.Held, err error, now time.Time) {
	if err == nil {
		e := &entry{user: f.Begun.user.ID, features: held.Features, asked: f.Begun.at}
		c.announceOnce(e)
		c.memory.put(e)
	} else if e := c.memory.get(f.Begun.user.ID); e != nil {
		e.failedAt = now
	}
	f.Land(held, err)
	q.running, q.next = q.next, nil
	switch {
	case q.running == nil:
		c.clear(q, f.Begun.user.ID)
	case c.closed:
		q.running.Land(tokens.Held{}, tokens.FeaturesUnavailable("find out the features of a user", errClosed))
		q.running = nil
	default:
		c.start(q)
	}
}

// announceOnce announces an answer, unless it was announced before.
func (c *Cached) announceOnce(e *entry) {
	if c.announce == nil {
		return
	}
	before := c.memory.get(e.user)
	e.announced = before != nil && before.announced && slices.Equal(before.features, e.features) ||
		c.announce(e.user, e.features, e.asked)
}

// leave gives a place back and returns the flight's answer; again means that it was forgotten and that the call must
// board anew. A call that left early, because its context ended, notices when it boards.
func (c *Cached) leave(t *ticket, fresh bool) (held tokens.Held, again bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t.queue.waiters--
	if t.at != nil {
		c.waiting[kind(fresh)].Remove(t.at)
	}
	f := t.request
	user := f.Begun.user.ID
	c.clear(t.queue, user)
	switch {
	case t.at == nil && !f.Landed():
		err = errCrowded()
	case f.Stale() || !f.Landed():
		return tokens.Held{}, true, nil
	default:
		if held, err = f.Result(); err == nil {
			return held, false, nil
		}
	}
	if !fresh {
		if held, ok := c.lastKnown(user); ok {
			return held, false, nil
		}
	}
	return tokens.Held{}, false, err
}

// clear drops a queue that is no longer needed. After its last flight has landed, a queue stays until all calls have
// taken the answer: until then Forget must find it.
func (c *Cached) clear(q *queue, user string) {
	if q.waiters == 0 && q.running == nil && q.next == nil && c.queues[user] == q {
		delete(c.queues, user)
	}
}

// unavailable makes any failure of a source an outage; the flight ended, not the caller's context.
func unavailable(err error) error {
	var known *tokens.Error
	if errors.As(err, &known) && known.Code == tokens.CodeUnavailable {
		return known
	}
	return tokens.FeaturesUnavailable("find out the features of a user", fmt.Errorf("the source failed: %w", err))
}

// health records whether the source works, for the log.
type health struct {
	failing bool
	logged  time.Time
}

// defaultMaxWaiting is how many calls may wait for a source, unless configured: together with those for fresh answers,
// fewer than one gRPC connection carries, so that there is room for calls that need no source.
const defaultMaxWaiting = 512

// logEvery bounds how often the log reports a source that keeps failing and recovering.
const logEvery = 10 * time.Second

// note records the outcome of a flight and returns the log call, if any.
func (h *health) note(err error, now time.Time) func(*slog.Logger) {
	failing := err != nil
	if since := now.Sub(
		h.logged,
	); failing == h.failing ||
		failing && !h.logged.IsZero() && since >= 0 && since < logEvery {
		return func(*slog.Logger) {}
	}
	h.failing = failing
	if !failing {
		return func(l *slog.Logger) { l.Info("the source of features answers again") }
	}
	h.logged = now
	return func(l *slog.Logger) {
		l.Warn(
			"the source of features does not answer; what was last known is served until it is too old",
			"error",
			err,
		)
	}
}
