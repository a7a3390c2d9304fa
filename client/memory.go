package client

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	patdv1 "patd/gen/patd/v1"
)

const (
	// silence is the maximum age of the watch's last message while the cache is still used.
	silence = 3 * time.Second
	// refusalAge is how long a final refusal is cached: enough to spare the server a client that retries again and
	// again.
	refusalAge = 2 * time.Second
	// refusalShare is the refusals' part of the entries, in a table of their own: garbage evicts only garbage.
	refusalShare = 8
	// usesShare is the part of the bytes for uses that are not reported yet.
	usesShare = 8
)

// memory is the cache of answers. It is used only while the watch is alive, and for answers without a change since.
//
// An answer made before a change may arrive after the news of it. Positions in the change feed decide this race of fill
// and invalidation: an answer is kept only if it is at least as new as every change received of its token and its user,
// whatever the order of arrival and whatever the replicas.
type memory struct {
	base      time.Time // of the monotonic clock
	heardMono atomic.Int64
	heardWall atomic.Int64

	answers, refusals *table

	mu      sync.Mutex // guards all below, and every change to the tables
	epoch   uint64     // counts the calls of forget and resumed
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

// mono returns a time on the process's monotonic clock.
func (m *memory) mono(now time.Time) time.Duration { return now.Sub(m.base) }

// distrust closes the memory until the next call of heard.
func (m *memory) distrust() { m.heardMono.Store(-int64(2 * silence)) }

// heard opens the memory: at that time the watch had reported every change. By either clock it is no later than now,
// though one of them was set back or stood still since the watch began.
func (m *memory) heard(at, now time.Time) {
	m.heardWall.Store(min(at.UnixNano(), now.UnixNano()))
	m.heardMono.Store(int64(min(m.mono(at), m.mono(now))))
}

// trusted reports whether the last message of the watch is recent enough. Both clocks must agree: the monotonic one may
// stand still while a machine sleeps, the other may be set back.
func (m *memory) trusted(now time.Time) bool {
	return int64(m.mono(now))-m.heardMono.Load() < int64(silence) && now.UnixNano()-m.heardWall.Load() < int64(silence)
}

// recall returns a usable entry, or nil.
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

// usable reports whether the entry that a request brought may serve other checks than the one that asked.
func (m *memory) usable(e *entry, now time.Time) bool {
	return e.shared() && m.trusted(now) && e.sound(m.mono(now), now)
}

// ticket is made before a request is sent.
type ticket struct {
	epoch uint64
	sent  time.Time
}

func (m *memory) ticket(now time.Time) ticket {
	m.mu.Lock()
	defer m.mu.Unlock()
	return ticket{epoch: m.epoch, sent: now}
}

// keep stores an answer, unless a received change may be newer. It also reports whether a newer change of this very
// token or user was received, which means that the answer is outdated.
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
	if sequence == 0 {
		return false // it is for this check only
	}
	if m.changes.after(sequence, e.token.ID, e.token.User) {
		return true
	}
	if e.token.Stale || sequence < m.changes.floor || !m.answers.fits(e) {
		return false
	}
	e.sequence = sequence
	e.ofToken, e.ofUser = own(m.byToken, e.token.ID), own(m.byUser, e.token.User)
	e.ofToken.newest = max(e.ofToken.newest, sequence)
	for _, gone := range m.answers.put(e) {
		disown(m.byToken, gone.ofToken)
		disown(m.byUser, gone.ofUser)
	}
	return false
}

// replaced drops what was kept for the same request before an answer, under either key. Otherwise a check could pass by
// what memory holds, after patd refused another one, until the watch tells why.
func (m *memory) replaced(k keys, by *entry) {
	if !by.shared() {
		return // it was not kept, for a reason of its own
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, one := range [...]key{k.everywhere, k.here} {
		if gone := m.answers.drop(one, by); gone != nil {
			disown(m.byToken, gone.ofToken)
			disown(m.byUser, gone.ofUser)
		}
	}
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

// apply applies a message of the watch. When it returns, no answer from before those changes is used any more.
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

// resumed drops the answers that are newer than the position at which a watch was resumed, and those under way. They
// rest on changes that the watch never received. A server that was restored does not have these changes: it shares the
// history up to that position, so the watch does not start over, and nothing would ever invalidate them.
func (m *memory) resumed(at uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch++
	for name, o := range m.byToken {
		if o.newest > at {
			o.changed.Store(math.MaxUint64)
			delete(m.byToken, name)
		}
	}
}

// revoke invalidates the answers from before a change.
func revoke(by map[string]*owner, name string, sequence uint64) {
	if o := by[name]; o != nil {
		o.changed.Store(max(o.changed.Load(), sequence))
	}
}

// forget drops everything, including answers under way.
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
