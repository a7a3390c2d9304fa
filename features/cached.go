package features

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"patd/tokens"
)

// CacheConfig says how long answers are used. Zero fields mean the default; Now is required.
type CacheConfig struct {
	// TTL is how long an answer is used without asking again; 0: 30 s; negative: not at all.
	TTL time.Duration
	// MaxStale is how old the last known answer may be while the source does not respond; 0: 5 min; negative: none is
	// used past the TTL. It must not be less than the TTL.
	MaxStale time.Duration
	// Timeout bounds one request to the source; 0: 5 s. A caller may wait for two: the one under way, which may be too
	// old for it, and its own. A Forget makes waiting callers begin anew.
	Timeout time.Duration
	// RetryAfter is how long the source is not asked about a user after a failure for that user, while there is a last
	// known answer; 0: 1 s.
	RetryAfter time.Duration
	// Quick bounds how many requests are under way at once for answers that may come from the cache, and as many for
	// fresh ones. Slow bounds how many more of each may take longer than 100 ms; 0: 32 and 256. A request waits for a
	// place, within Timeout.
	Quick, Slow int
	// MaxWaiting bounds how many calls wait at once for answers that may come from the cache, and how many more for
	// fresh ones; 0: 512 and half of it. Beyond it, the newest call displaces one that waits for a source that hangs,
	// or else is itself refused, as an outage.
	MaxWaiting int
	// MaxUsers bounds how many answers are cached; 0: 100 000.
	MaxUsers int
	// MaxBytes bounds, roughly, the memory of cached answers; 0: 64 MiB.
	MaxBytes int64
	// Now is the clock; required. It should keep its monotonic reading (time.Now does), so that setting the machine's
	// clock makes no answer younger.
	Now func() time.Time
	// Logger logs when the source begins and ceases to fail, which callers do not see while answers are stale; nil: no
	// log.
	Logger *slog.Logger
}

func (c CacheConfig) withDefaults() CacheConfig {
	set := func(d *time.Duration, normal time.Duration) {
		if *d == 0 {
			*d = normal
		}
		*d = max(*d, 0)
	}
	set(&c.TTL, 30*time.Second)
	set(&c.MaxStale, 5*time.Minute)
	set(&c.Timeout, 5*time.Second)
	set(&c.RetryAfter, time.Second)
	if c.Quick <= 0 {
		c.Quick = quickRequests
	}
	if c.Slow <= 0 {
		c.Slow = slowRequests
	}
	if c.MaxWaiting <= 0 {
		c.MaxWaiting = defaultMaxWaiting
	}
	if c.MaxUsers <= 0 {
		c.MaxUsers = 100_000
	}
	if c.MaxBytes <= 0 {
		c.MaxBytes = 64 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Cached is a cache in front of a source. It is safe for concurrent use.
//
// It guarantees:
//
//   - An answer that is not stale is at most the TTL old, or the source's own in that call. A stale one is the last
//     known, at most MaxStale old, and is returned only when the source has just failed for that user.
//   - A fresh answer comes from a request sent to the source after the call began; during an outage there is none.
//   - No answer returned after Forget has returned comes from before it.
//   - At most one request per user is under way, not counting those sent before a Forget. A caller that gives up does
//     not end it for the others.
//   - Users for whom the source hangs delay the others by at most 100 ms, until there are Quick and Slow of them at
//     once.
type Cached struct {
	source tokens.FeatureSource
	config CacheConfig
	base   context.Context // of every flight
	cancel context.CancelFunc
	wg     sync.WaitGroup

	rooms [2]rooms // of requests for any answer, and for a fresh one

	mu      sync.Mutex
	waiting [2]list.List // tickets, oldest first: of calls that accept any answer, and of those that need a fresh one
	slow    slowUsers
	memory  memory
	queues  map[string]*queue
	clock   uint64 // counts calls and flights, to order them
	health  health
	stats   Stats
	closed  bool
	// announce is called with new answers; nil: it is not.
	announce func(user string, features []string, asked time.Time) bool
}

var (
	_ tokens.FeatureSource = (*Cached)(nil)
	_ tokens.Announcer     = (*Cached)(nil)
)

// NewCached wraps a source. Close ends both.
func NewCached(source tokens.FeatureSource, c CacheConfig) (*Cached, error) {
	none := c.MaxStale < 0
	c = c.withDefaults()
	switch {
	case source == nil || c.Now == nil:
		return nil, errors.New("make the features cache: a source and a clock are needed")
	case source.Local():
		return nil, errors.New(
			"make the features cache: features that patd keeps itself are read in its transactions, not from a cache",
		)
	case !none && c.MaxStale < c.TTL:
		return nil, fmt.Errorf(
			"make the features cache: answers may not be served stale for less (%v) than they are served anyway (%v)",
			c.MaxStale,
			c.TTL,
		)
	case c.Timeout == 0:
		return nil, errors.New("make the features cache: the time limit of a request must be positive")
	}
	base, cancel := context.WithCancel(context.Background())
	return &Cached{
		source: source, config: c, base: base, cancel: cancel,
		rooms: [2]rooms{newRooms(c.Quick, c.Slow), newRooms(c.Quick, c.Slow)}, slow: slowUsers{},
		memory: newMemory(c.MaxUsers, c.MaxBytes), queues: map[string]*queue{},
	}, nil
}

// Local returns false: features change without patd.
func (*Cached) Local() bool { return false }

// Features returns what the user holds, from the cache where possible.
func (c *Cached) Features(ctx context.Context, u tokens.User, fresh bool) (tokens.Held, error) {
	began := c.arrive()
	for {
		if err := ctx.Err(); err != nil {
			return tokens.Held{}, fmt.Errorf("find out the features of a user: %w", err)
		}
		t, held, err := c.board(ctx, u, fresh, began)
		if t == nil {
			return held, err
		}
		select {
		case <-t.request.Done():
		case <-t.displaced:
		case <-ctx.Done():
		}
		held, again, err := c.leave(t, fresh)
		if !again {
			return held, err
		}
	}
}

// Announce implements tokens.Announcer.
func (c *Cached) Announce(notify func(user string, features []string, asked time.Time) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.announce = notify
}

// Forget drops the cached answer of a user, and keeps a request that is under way from filling the cache. The next call
// asks the source, and so do waiting calls.
func (c *Cached) Forget(user string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.memory.drop(user)
	if q, ok := c.queues[user]; ok {
		c.forget(user, q)
	}
}

// ForgetAll is Forget for every user.
func (c *Cached) ForgetAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.memory = newMemory(c.config.MaxUsers, c.config.MaxBytes)
	for user, q := range c.queues {
		c.forget(user, q)
	}
}

// forget makes the calls that wait for answers about a user ask anew.
func (c *Cached) forget(user string, q *queue) {
	delete(c.queues, user)
	for _, f := range []*sourceRequest{q.running, q.next} {
		if f != nil {
			f.Invalidate()
			f.Land(tokens.Held{}, errForgotten)
		}
	}
	q.next = nil
}

// Close ends the requests under way, waits for them, and closes the source. Later calls are outages.
func (c *Cached) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.wg.Wait()
	if source, ok := c.source.(io.Closer); ok {
		return source.Close()
	}
	return nil
}

// arrive stamps a call.
func (c *Cached) arrive() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock++
	return c.clock
}

// recall returns a usable cached answer. With refresh the answer is usable, but the source should be asked again in the
// background.
func (c *Cached) recall(user string) (held tokens.Held, ok, refresh bool) {
	e := c.memory.get(user)
	if e == nil {
		return tokens.Held{}, false, false
	}
	now := c.config.Now()
	age := now.Sub(e.asked)
	switch {
	case age < 0 || age > max(c.config.TTL, c.config.MaxStale):
		// Too old, or from a future that the clock has left: no longer usable.
		c.memory.drop(user)
		return tokens.Held{}, false, false
	case age < c.config.TTL:
		return tokens.Held{Features: e.features}, true, false
	case e.failedAt.IsZero() || !c.mayBeStale(age):
		return tokens.Held{}, false, false
	}
	// Within the time of one attempt after a failure, the next is made in the background, so that a source that hangs
	// does not make every call wait. Later, callers wait: the source may have recovered long ago.
	since := now.Sub(e.failedAt)
	if since < 0 || since >= c.config.RetryAfter+c.config.Timeout {
		return tokens.Held{}, false, false
	}
	c.stats.Stale++
	return tokens.Held{Features: e.features, Stale: true}, true, since >= c.config.RetryAfter
}

// mayBeStale reports whether an answer of that age may be served during an outage; with a MaxStale of 0 none may.
func (c *Cached) mayBeStale(age time.Duration) bool {
	return c.config.MaxStale > 0 && age >= 0 && age <= c.config.MaxStale
}

// lastKnown returns the last known answer, for use after the source has failed.
func (c *Cached) lastKnown(user string) (tokens.Held, bool) {
	e := c.memory.get(user)
	if e == nil || !c.mayBeStale(c.config.Now().Sub(e.asked)) {
		return tokens.Held{}, false
	}
	c.stats.Stale++
	return tokens.Held{Features: e.features, Stale: true}, true
}
