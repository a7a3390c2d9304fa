package limit

import (
	"fmt"
	"hash/maphash"
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

const (
	ways           = 8  // places in a set: the most that one search checks
	locks          = 64 // mutexes that the sets share
	defaultMaxKeys = 1 << 16
	largestMaxKeys = 1 << 26 // 1.1 GiB
	longestRefill  = 10 * 365 * 24 * time.Hour
)

// Config sets the limit. Rate and Burst are required.
type Config struct {
	Rate    float64 // tokens that a key gets back each second
	Burst   int     // tokens that a key has at most, and at the start
	MaxKeys int     // how many keys have a bucket of their own at once; 0: 65536; rounded up to a power of two
	Now     func() time.Time
}

// Limiter bounds how often each key may do something. It is safe for concurrent use. A nil Limiter limits nothing.
type Limiter struct {
	now      func() time.Time
	start    time.Time
	interval int64        // nanoseconds in which one token comes back
	slack    int64        // how far a bucket's time may be ahead while a token is left: all tokens but one
	fullest  atomic.Int64 // every bucket is full again by then
	seed     maphash.Seed
	sets     []set
	shared   []atomic.Int64 // the coarse buckets, as many as there are sets
	locks    [locks]paddedMutex
}

// set is the places among which a key looks for its own.
type set [ways]place

// place holds the bucket of one key: when it is full again, in nanoseconds since the start. From then on another key
// may take the place; until one does, it belongs to its key.
type place struct {
	tag  uint64
	full int64
}

// paddedMutex has a cache line of its own, so that two cores with two keys do not wait for each other.
type paddedMutex struct {
	sync.Mutex
	_ [56]byte
}

// New makes a limiter, and allocates all its memory: 17 bytes per key of MaxKeys, and 4 KiB.
func New(c Config) (*Limiter, error) {
	interval := math.Ceil(float64(time.Second) / c.Rate)
	switch {
	case !(c.Rate > 0) || !(interval >= 1):
		return nil, fmt.Errorf("make a rate limit: the rate must be above 0 and finite, not %v", c.Rate)
	case c.Burst < 1:
		return nil, fmt.Errorf("make a rate limit: the burst must be at least 1, not %d", c.Burst)
	case interval*float64(c.Burst) > float64(longestRefill):
		return nil, fmt.Errorf(
			"make a rate limit: a burst of %d at %v per second takes longer than %s to come back",
			c.Burst,
			c.Rate,
			longestRefill,
		)
	case c.MaxKeys < 0 || c.MaxKeys > largestMaxKeys:
		return nil, fmt.Errorf(
			"make a rate limit: the number of keys must be between 0 and %d, not %d",
			largestMaxKeys,
			c.MaxKeys,
		)
	}
	if c.MaxKeys == 0 {
		c.MaxKeys = defaultMaxKeys
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	sets := 1 << bits.Len(uint((c.MaxKeys-1)/ways))
	return &Limiter{
		now: c.Now, start: c.Now(), interval: int64(interval), slack: int64(interval) * int64(c.Burst-1),
		seed: maphash.MakeSeed(), sets: make([]set, sets), shared: make([]atomic.Int64, sets),
	}, nil
}

// Allow takes a token of the key. If there is none, it takes nothing, and returns false and the wait until the next
// token. That token is then available, unless another caller that shares the bucket has taken it.
func (l *Limiter) Allow(k Key) (ok bool, retryAfter time.Duration) {
	if l == nil {
		return true, 0
	}
	now := l.elapsed()
	l.at(k, now, func(full int64) int64 {
		if retryAfter = l.wait(full, now); retryAfter > 0 {
			return full
		}
		return max(full, now) + l.interval
	})
	return retryAfter == 0, retryAfter
}

// Quiet reports whether no key is near its limit, so that Blocked need not be asked about any. It costs next to
// nothing.
func (l *Limiter) Quiet() bool { return l == nil || l.fullest.Load() <= l.slack }

// Blocked reports whether the key has no token left, and returns the time until it has one. It takes nothing. While no
// key is near its limit it costs next to nothing.
func (l *Limiter) Blocked(k Key) (blocked bool, retryAfter time.Duration) {
	if l.Quiet() {
		return false, 0
	}
	now := l.elapsed()
	if l.wait(l.fullest.Load(), now) == 0 {
		return false, 0
	}
	l.at(k, now, func(full int64) int64 {
		retryAfter = l.wait(full, now)
		return full
	})
	return retryAfter > 0, retryAfter
}

// Fail takes a token of the key even if there is none, so that concurrent attempts, which all began while the key was
// not blocked, are all counted. The debt is bounded: a key never waits longer than a whole burst takes to come back.
func (l *Limiter) Fail(k Key) {
	if l == nil {
		return
	}
	now := l.elapsed()
	deepest := now + 2*l.slack + l.interval
	l.at(k, now, func(full int64) int64 {
		return max(full, min(max(full, now)+l.interval, deepest))
	})
}

// elapsed returns the limiter's time. It stays at 0 if the clock is set back to before the start.
func (l *Limiter) elapsed() int64 { return max(int64(l.now().Sub(l.start)), 0) }

// wait returns how long a bucket that is full again at a time has no token.
func (l *Limiter) wait(full, now int64) time.Duration { return time.Duration(max(full-l.slack-now, 0)) }

// at finds the bucket of a key and sets it to the result of change. change may run more than once, and must not make
// the bucket fuller. An unchanged bucket takes no place.
func (l *Limiter) at(k Key, now int64, change func(full int64) int64) {
	tag := max(maphash.Comparable(l.seed, k.own), 1)
	index := tag & uint64(len(l.sets)-1)
	lock := &l.locks[index%locks]
	lock.Lock()
	defer lock.Unlock()

	var free *place
	for i := range l.sets[index] {
		p := &l.sets[index][i]
		if p.tag == tag {
			p.full = change(p.full)
			l.note(p.full)
			return
		}
		if p.full <= now {
			free = p
		}
	}
	coarse := &l.shared[maphash.Comparable(l.seed, k.group)&uint64(len(l.shared)-1)]
	for {
		was := coarse.Load()
		becomes := change(was)
		switch {
		case becomes == was:
			return
		case free != nil:
			*free = place{tag: tag, full: becomes}
			l.note(becomes)
			return
		case coarse.CompareAndSwap(was, becomes):
			l.note(becomes)
			return
		}
	}
}

// note records when a bucket is full again.
func (l *Limiter) note(full int64) {
	for {
		was := l.fullest.Load()
		if full <= was || l.fullest.CompareAndSwap(was, full) {
			return
		}
	}
}
