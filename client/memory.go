package client

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	patdv1 "patd/gen/patd/v1"
)

const (
	// silence is how long after the last sign of the watch the memory may still be used.
	silence = 3 * time.Second
	// refusalAge is how long a final refusal is remembered: enough to spare the server a client that tries again and again.
	refusalAge = 2 * time.Second
	// refusalShare is which part of the entries refusals may take, in a table of their own: garbage pushes out garbage only.
	refusalShare = 8
	// usesShare is which part of the bytes uses that are not reported yet may take.
	usesShare = 8
)

// memory is what is remembered, and when it may be used: while the watch is heard, and nothing that it told of since.
//
// The race of a fill with an invalidation (the answer was made before the change, and arrives after the news of it) is
// decided by positions in the change feed: an answer is kept only if it is at least as new as all that was told of its
// token and its user, whichever order the two arrived in, and whichever replica either came from.
type memory struct {
	base      time.Time // of the monotonic clock
	heardMono atomic.Int64
	heardWall atomic.Int64

	answers, refusals *table

	mu      sync.Mutex // of all below, and of every change to the tables
	epoch   uint64     // counts the times that everything was forgotten
	changes *changes
	byToken map[string]*owner
	byUser  map[string]*owner
}

func newMemory(entries, bytes int, now time.Time) *memory {
	m := &memory{
		base: now, changes: newChanges(),
		answers:  newTable(entries, bytes-bytes/refusalShare-bytes/usesShare),
		refusals: newTable(entries/refusalShare, bytes/refusalShare),
		byToken:  map[string]*owner{}, byUser: map[string]*owner{},
	}
	m.distrust()
	return m
}

// mono is a time on the process's monotonic clock.
func (m *memory) mono(now time.Time) time.Duration { return now.Sub(m.base) }

// distrust closes the memory until heard.
func (m *memory) distrust() { m.heardMono.Store(-int64(2 * silence)) }

// heard opens the memory: the watch had told everything at that time.
func (m *memory) heard(at time.Time) {
	m.heardWall.Store(at.UnixNano())
	m.heardMono.Store(int64(m.mono(at)))
}

// trusted tells whether the watch was heard within the bound. Both clocks must say so: the monotonic one may stand still
// while a machine sleeps, the other may be set back.
func (m *memory) trusted(now time.Time) bool {
	return int64(m.mono(now))-m.heardMono.Load() < int64(silence) && now.UnixNano()-m.heardWall.Load() < int64(silence)
}

// recall returns what may be used, or nil.
func (m *memory) recall(k key, now time.Time) *entry {
	if !m.trusted(now) {
		return nil
	}
	for _, t := range [...]*table{m.answers, m.refusals} {
		if e := t.get(k); e != nil && e.sound(m.mono(now), now) {
			t.hit(e)
			return e
		}
	}
	return nil
}

// usable reports whether an entry that was asked for may be used by others than who asked.
func (m *memory) usable(e *entry, now time.Time) bool {
	return (e.token == nil || e.ofToken != nil) && m.trusted(now) && e.sound(m.mono(now), now)
}

// ticket is taken before a question is sent.
type ticket struct {
	epoch uint64
	sent  time.Time
}

func (m *memory) ticket(now time.Time) ticket {
	m.mu.Lock()
	defer m.mu.Unlock()
	return ticket{epoch: m.epoch, sent: now}
}

// keep remembers an answer, unless something that was told of speaks against it. It also reports whether that something
// was told of this very token or user, so that the answer is known to be outdated.
func (m *memory) keep(e *entry, t ticket, sequence uint64) (outdated bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t.epoch != m.epoch {
		return true
	}
	if e.token == nil {
		if e.decision.final() && m.refusals.fits(e) {
			m.refusals.put(e)
		}
		return false
	}
	if m.changes.after(sequence, e.token.ID, e.token.User) {
		return true
	}
	if e.token.Stale || sequence < m.changes.floor || !m.answers.fits(e) {
		return false
	}
	e.sequence = sequence
	e.ofToken, e.ofUser = own(m.byToken, e.token.ID), own(m.byUser, e.token.User)
	for _, gone := range m.answers.put(e) {
		disown(m.byToken, gone.ofToken)
		disown(m.byUser, gone.ofUser)
	}
	return false
}

func own(by map[string]*owner, name string) *owner {
	o := by[name]
	if o == nil {
		o = &owner{name: name}
		by[name] = o
	}
	o.entries++
	return o
}

func disown(by map[string]*owner, o *owner) {
	if o.entries--; o.entries == 0 && by[o.name] == o {
		delete(by, o.name)
	}
}

// apply takes in what a message of the watch tells. When it returns, nothing that was said before is used any more.
func (m *memory) apply(news *patdv1.WatchInvalidationsResponse, startOver bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if startOver {
		m.forget()
		m.changes = newChanges()
		m.changes.floor = news.GetSequence() // what changed before is not known
	}
	for _, id := range news.GetTokenIds() {
		m.changes.note(tokenChange, id, news.GetSequence())
		revoke(m.byToken, id, news.GetSequence())
	}
	for _, user := range news.GetUsers() {
		m.changes.note(userChange, user, news.GetSequence())
		revoke(m.byUser, user, news.GetSequence())
	}
}

// revoke voids what is from before a change.
func revoke(by map[string]*owner, name string, sequence uint64) {
	if o := by[name]; o != nil {
		o.changed.Store(max(o.changed.Load(), sequence))
	}
}

// forget drops everything, and what is on its way.
func (m *memory) forget() {
	m.epoch++
	for _, by := range []map[string]*owner{m.byToken, m.byUser} {
		for _, o := range by {
			o.changed.Store(math.MaxUint64)
		}
		clear(by)
	}
	m.answers.clear()
	m.refusals.clear()
}
