package features

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"patd/tokens"
)

// flight is one question to the source, and who waits for it.
type flight struct {
	user    tokens.User
	kind    int    // of the call that it was made for
	start   uint64 // on the clock of Cached; 0: not yet
	asked   time.Time
	sent    time.Time     // when there was a place for it; zero: not yet
	done    chan struct{} // closed once held and err are there
	settled bool
	held    tokens.Held
	err     error
}

func (f *flight) settle(held tokens.Held, err error) {
	if f.settled {
		return
	}
	f.settled, f.held, f.err = true, held, err
	close(f.done)
}

// queue is the questions about one user: one under way, and at most one that follows it, for those who came too late for
// the first. It is dropped when nobody waits any more, or by Forget.
type queue struct {
	running, next *flight
	waiters       int
	forgotten     bool
}

// ticket is a place in a queue.
type ticket struct {
	queue     *queue
	flight    *flight
	displaced chan struct{} // closed when another call needs the room
	at        *list.Element // in the list of its kind; nil: it was displaced
}

var (
	errForgotten = errors.New("forgotten meanwhile")
	errClosed    = errors.New("the source was closed")
)

// errCrowded is the outage of a call for which there is no room.
func errCrowded() error {
	return tokens.FeaturesUnavailable("find out the features of a user", errors.New("too many calls wait for the source"))
}

// board answers from memory, or else with a place on a flight.
func (c *Cached) board(u tokens.User, fresh bool, began uint64) (*ticket, tokens.Held, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, tokens.Held{}, tokens.FeaturesUnavailable("find out the features of a user", errClosed)
	}
	if !fresh {
		held, ok, refresh := c.recall(u.ID)
		if refresh {
			c.join(u, false, began)
		}
		if ok {
			return nil, held, nil
		}
	}
	waiting := &c.waiting[kind(fresh)]
	if waiting.Len() >= c.config.MaxWaiting>>kind(fresh) && !c.displace(waiting) {
		return nil, tokens.Held{}, errCrowded()
	}
	t := c.join(u, fresh, began)
	t.queue.waiters++
	t.displaced = make(chan struct{})
	t.at = waiting.PushBack(t)
	return t, tokens.Held{}, nil
}

// displaceable bounds how many of the oldest tickets are looked at for one that may be displaced.
const displaceable = 64

// displace makes room among those that wait: the oldest that waits for a source that hangs is refused. It reports whether
// there was one.
func (c *Cached) displace(waiting *list.List) bool {
	now := c.config.Now()
	for e, looked := waiting.Front(), 0; e != nil && looked < displaceable; e, looked = e.Next(), looked+1 {
		t, _ := e.Value.(*ticket)
		if sent := t.flight.sent; !t.flight.settled && !sent.IsZero() && now.Sub(sent) >= slowAfter {
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

// join finds the flight that a call may wait for, and starts one when there is none. A fresh call must not join one that
// was under way when it began.
func (c *Cached) join(u tokens.User, fresh bool, began uint64) *ticket {
	q := c.queues[u.ID]
	if q == nil {
		q = &queue{}
		c.queues[u.ID] = q
	}
	switch {
	case q.running == nil:
		q.running = &flight{user: u, kind: kind(fresh), done: make(chan struct{})}
		c.start(q)
		return &ticket{queue: q, flight: q.running}
	case !fresh || q.running.start > began:
		return &ticket{queue: q, flight: q.running}
	case q.next == nil:
		q.next = &flight{user: u, kind: kind(fresh), done: make(chan struct{})}
	}
	return &ticket{queue: q, flight: q.next}
}

// start asks the source in the background. The question outlives its callers and has a time limit of its own.
func (c *Cached) start(q *queue) {
	f := q.running
	c.clock++
	f.start, f.asked = c.clock, c.config.Now()
	slow := c.slow.has(f.user.ID, f.asked)
	c.wg.Go(func() {
		ctx, cancel := context.WithTimeout(c.base, c.config.Timeout)
		defer cancel()
		held, err := c.question(ctx, f, slow)
		c.land(q, f, held, err)
	})
}

// question puts one question to the source, when there is a place for it.
func (c *Cached) question(ctx context.Context, f *flight, slow bool) (tokens.Held, error) {
	leave, err := c.rooms[f.kind].enter(ctx, slow)
	if err != nil {
		return tokens.Held{}, err
	}
	defer leave()
	c.mu.Lock()
	f.sent = c.config.Now()
	c.mu.Unlock()
	held, err := c.source.Features(ctx, f.user, true)
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.config.Now()
	c.slow.note(f.user.ID, err != nil && now.Sub(f.sent) >= slowAfter, now)
	return held, err
}

// land takes what the source said, and logs outside the lock.
func (c *Cached) land(q *queue, f *flight, held tokens.Held, err error) {
	if err != nil {
		err = unavailable(err)
	}
	c.mu.Lock()
	now := c.config.Now()
	tell := func(*slog.Logger) {}
	if !c.closed {
		tell = c.health.note(err, now)
	}
	if !q.forgotten {
		c.settle(q, f, held, err, now)
	}
	c.mu.Unlock()
	tell(c.config.Logger)
}

// settle keeps an answer, tells it to those who wait, and starts the question that comes next.
func (c *Cached) settle(q *queue, f *flight, held tokens.Held, err error, now time.Time) {
	if err == nil {
		c.memory.put(&entry{user: f.user.ID, features: held.Features, asked: f.asked})
	} else if e := c.memory.get(f.user.ID); e != nil {
		e.failedAt = now
	}
	f.settle(held, err)
	q.running, q.next = q.next, nil
	switch {
	case q.running == nil:
		c.clear(q, f.user.ID)
	case c.closed:
		q.running.settle(tokens.Held{}, tokens.FeaturesUnavailable("find out the features of a user", errClosed))
		q.running = nil
	default:
		c.start(q)
	}
}

// leave gives a place back and answers what the flight brought; again says that it was forgotten and that the call must
// board anew. Who left early, because its context ended, finds that out when it boards.
func (c *Cached) leave(t *ticket, fresh bool) (held tokens.Held, again bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t.queue.waiters--
	if t.at != nil {
		c.waiting[kind(fresh)].Remove(t.at)
	}
	c.clear(t.queue, t.flight.user.ID)
	f := t.flight
	switch {
	case t.at == nil && !f.settled:
		err = errCrowded()
	case t.queue.forgotten || !f.settled:
		return tokens.Held{}, true, nil
	case f.err == nil:
		return f.held, false, nil
	default:
		err = f.err
	}
	if !fresh {
		if held, ok := c.lastKnown(t.flight.user.ID); ok {
			return held, false, nil
		}
	}
	return tokens.Held{}, false, err
}

// clear drops a queue that nobody needs. One whose last flight has landed is needed for as long as somebody has yet to
// take the answer: until then Forget must find it.
func (c *Cached) clear(q *queue, user string) {
	if q.waiters == 0 && q.running == nil && q.next == nil && c.queues[user] == q {
		delete(c.queues, user)
	}
}

// unavailable makes any failure of a source an outage; what ended was the flight, not the caller's context.
func unavailable(err error) error {
	var known *tokens.Error
	if errors.As(err, &known) && known.Code == tokens.CodeUnavailable {
		return known
	}
	return tokens.FeaturesUnavailable("find out the features of a user", fmt.Errorf("the source failed: %w", err))
}

// health is whether the source answers, for the log.
type health struct {
	failing bool
	told    time.Time
}

// defaultMaxWaiting is how many calls may wait for a source, unless configured: with those for fresh answers fewer than
// one connection of gRPC carries, so that there is room for calls that need no source.
const defaultMaxWaiting = 512

// toldEvery bounds how often the log hears of a source that now answers and now does not.
const toldEvery = 10 * time.Second

// note takes the outcome of a flight and answers what there is to log.
func (h *health) note(err error, now time.Time) func(*slog.Logger) {
	failing := err != nil
	if since := now.Sub(h.told); failing == h.failing || failing && !h.told.IsZero() && since >= 0 && since < toldEvery {
		return func(*slog.Logger) {}
	}
	h.failing = failing
	if !failing {
		return func(l *slog.Logger) { l.Info("the source of features answers again") }
	}
	h.told = now
	return func(l *slog.Logger) {
		l.Warn("the source of features does not answer; what was last known is served until it is too old", "error", err)
	}
}
