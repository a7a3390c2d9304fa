package receipt

import (
	"context"
	"crypto/rand"
	"strings"
	"sync"
	"time"

	"patd/tokens"
)

const (
	// verifierTrust is how long a verifier uses its memory after the server has made a message (client.silence, and the
	// same in the other libraries).
	verifierTrust = 3 * time.Second
	// feedTrust is how long a server uses its memory, and sends messages to its watches, without reading the change
	// feed (store/feed.trustFor).
	feedTrust = 5 * time.Second
	// slack and driftShare are what clocks may differ by: slack for timers and readings of the clock, and a share of
	// the age of the watch, since the verifier counts that by its own clock.
	slack      = 250 * time.Millisecond
	driftShare = 5000

	// MaxAge is how long a watch lasts at most, so that the differences of clocks are bounded too.
	MaxAge = 40 * time.Minute

	// keptEnded bounds the watches that have ended and are kept.
	keptEnded = 1024
)

// bound is how long after a message a verifier may use its memory without another message, at most, if its watch has
// lasted for age.
func (b *Board) bound(age time.Duration) time.Duration { return b.trust + slack + age/driftShare }

// Config configures a Board.
type Config struct {
	// Reached returns a position of the change feed that every change has which was committed before the call, once
	// this server's memory has dropped what those changes concern.
	Reached func(context.Context) (uint64, error)
	// Servers are the servers of the store; nil: others are not known.
	Servers tokens.Servers
	// Alone says that no other process serves the store. Without it and without Servers, each wait is as long as others
	// might trust their memory.
	Alone bool
	// Stopping ends all waits.
	Stopping context.Context
}

// Board has the watches of one server. It is safe for concurrent use.
type Board struct {
	config    Config
	began     time.Time
	trust     time.Duration // verifierTrust; a test shows that it cannot be less
	feedTrust time.Duration // the same
	goneTrust time.Duration // feedTrust, after a server has ended; the same
	wake      chan struct{} // a level: Follow has something to do

	mu      sync.Mutex
	watches map[string]*Watch
	ended   int       // how many of watches have ended
	crowded time.Time // until then, ended watches that were not kept may not be safe
	waits   map[*wait]struct{}
	calls   int            // how many of waits are of calls
	byOwner map[string]int // the calls of each caller

	others    map[string]*other // by id
	next      *round            // that the next calls join; nil: there is none
	asked     []asked           // requests that are not answered by all, in order
	lastAsked time.Time
	looked    time.Time // at the others
	resumed   time.Time // when it was looked again after a while
	answers   []*answering
}

// New makes a board.
func New(c Config) *Board {
	return &Board{
		config:    c,
		began:     time.Now(),
		trust:     verifierTrust,
		feedTrust: feedTrust,
		goneTrust: feedTrust,
		wake:      make(chan struct{}, 1),
		watches:   map[string]*Watch{},
		waits:     map[*wait]struct{}{},
		byOwner:   map[string]int{},
		others:    map[string]*other{},
	}
}

// Watch is one watch. Its methods but those of the board are for the one goroutine that sends its messages.
type Watch struct {
	board *Board
	id    string
	owner tokens.ID // the service
	name  string    // of the service
	began time.Time // when it was begun, after the verifier asked for it
	ask   chan struct{}

	// Guarded by the board's mu.
	sent     bool      // a message was
	at       uint64    // the position of the latest message
	made     time.Time // no message was made after it, but those at at
	advanced time.Time // when at became what it is; zero: with the first message
	acked    uint64
	end      time.Time // zero: it is open
}

// Watch begins a watch, before the change feed is read for it. The caller ends it.
func (b *Board) Watch(a tokens.Actor) *Watch {
	w := &Watch{
		board: b,
		id:    rand.Text(),
		owner: a.TokenID,
		name:  a.Name,
		began: time.Now(),
		ask:   make(chan struct{}, 1),
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.watches[w.id] = w
	return w
}

// ID returns the id of the watch, which the verifier acknowledges with.
func (w *Watch) ID() string { return w.id }

// Asked returns a channel that has an element when a message should ask for acknowledgement soon.
func (w *Watch) Asked() <-chan struct{} { return w.ask }

// Sending records that a message with a position is sent next, which was just made. It reports whether the message
// should ask to be acknowledged.
func (w *Watch) Sending(at uint64) (acknowledge bool) {
	b := w.board
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	switch {
	case !w.sent:
		w.sent, w.at = true, at
	case at < w.at: // another history, whose positions were not acknowledged
		w.at, w.advanced, w.acked = at, now, 0
	case at > w.at:
		w.at, w.advanced = at, now
	}
	w.made = now
	for one := range b.waits {
		acknowledge = one.sending(w) || acknowledge
	}
	return acknowledge
}

// End ends the watch. It is kept while the verifier may still use its memory.
func (w *Watch) End() {
	b := w.board
	b.mu.Lock()
	defer b.mu.Unlock()
	w.end = time.Now()
	b.prune(w.end)
	if !w.sent {
		b.drop(w) // the verifier was sent nothing that could open its memory
		return
	}
	if b.ended >= keptEnded {
		b.crowded = w.end.Add(w.bound())
		for one := range b.waits {
			one.lose(w, b.crowded)
		}
		delete(b.watches, w.id)
		return
	}
	b.ended++
	for one := range b.waits {
		if _, pending := one.pending[w]; pending {
			one.changed()
		}
	}
}

// drop forgets a watch that is safe. The caller has the lock.
func (b *Board) drop(w *Watch) {
	delete(b.watches, w.id)
	for one := range b.waits {
		one.done(w)
	}
}

// prune forgets the ended watches whose verifiers no longer use their memory. The caller has the lock.
func (b *Board) prune(now time.Time) {
	if b.ended == 0 {
		return
	}
	for _, w := range b.watches {
		if !w.end.IsZero() && !now.Before(w.end.Add(w.bound())) {
			b.ended--
			b.drop(w)
		}
	}
}

// bound is how long after the latest message without a change the verifier may use its memory at most. The board's mu
// is held.
func (w *Watch) bound() time.Duration {
	until := w.end
	if until.IsZero() {
		until = time.Now()
	}
	return w.board.bound(until.Sub(w.began))
}

// Acknowledge records that a verifier of a service has applied all changes up to a position. A watch that this server
// does not know, or that is another service's, is left alone: it may have ended, or be another server's.
func (b *Board) Acknowledge(a tokens.Actor, id string, position uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.watches[id]
	if w == nil || a.Kind != tokens.ServiceActor || w.owner != a.TokenID {
		return nil
	}
	if position > w.at {
		return tokens.Invalid("SEQUENCE_INVALID", "sequence", "is ahead of what was sent to this watch")
	}
	if position <= w.acked {
		return nil
	}
	w.acked = position
	for one := range b.waits {
		if position >= one.position {
			one.done(w)
		}
	}
	return nil
}

// service is how a receipt names the service of a watch.
func (w *Watch) service() string { return "service:" + strings.ToValidUTF8(w.name, "?") }
