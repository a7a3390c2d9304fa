package features

import (
	"container/list"
	"strings"
	"time"
)

// entry is the last good answer for one user.
type entry struct {
	user     string
	features []string
	asked    time.Time // when the request was made: the answer is at least as new as that
	failedAt time.Time // when a later request failed; zero: none has
	// announced reports that it, or the same before, was announced.
	announced bool
}

// entryOverhead is about the cost of an entry beside its text: map, list and slice headers.
const entryOverhead = 256

func (e *entry) size() int64 {
	n := entryOverhead + len(e.user)
	for _, f := range e.features {
		n += len(f) + 16
	}
	return int64(n)
}

// memory keeps the last good answers of the most recently used users, within a number and a size.
type memory struct {
	maxUsers int
	maxBytes int64
	bytes    int64
	entries  map[string]*list.Element // of *entry
	recent   *list.List               // most recently used first
}

func newMemory(maxUsers int, maxBytes int64) memory {
	return memory{maxUsers: maxUsers, maxBytes: maxBytes, entries: map[string]*list.Element{}, recent: list.New()}
}

// get returns the entry of a user, or nil.
func (m *memory) get(user string) *entry {
	at, ok := m.entries[user]
	if !ok {
		return nil
	}
	m.recent.MoveToFront(at)
	e, _ := at.Value.(*entry)
	return e
}

// put stores an entry in place of the user's present one, and drops those least recently used.
func (m *memory) put(e *entry) {
	m.drop(e.user)
	e.user = strings.Clone(e.user) // it may be part of a large piece of the store's memory
	m.entries[e.user] = m.recent.PushFront(e)
	m.bytes += e.size()
	for m.recent.Len() > m.maxUsers || m.bytes > m.maxBytes {
		last, _ := m.recent.Back().Value.(*entry)
		m.drop(last.user)
	}
}

// drop removes a user's entry.
func (m *memory) drop(user string) {
	at, ok := m.entries[user]
	if !ok {
		return
	}
	e, _ := m.recent.Remove(at).(*entry)
	m.bytes -= e.size()
	delete(m.entries, user)
}
