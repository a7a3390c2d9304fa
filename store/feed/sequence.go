package feed

import (
	"sync"
	"sync/atomic"
)

// History numbers the histories that the change feed was seen to have: a restore or a failover can put another in the
// place of one, with smaller positions.
type History uint64

// sequence is a position in the change feed: everything up to it is on disk and seen by every read that begins from now
// on.
type sequence struct {
	at atomic.Uint64

	mu      sync.Mutex
	history History
}

func (s *sequence) historyNow() History {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.history
}

// advance moves the sequence forward to a position of a history, unless another has taken its place.
func (s *sequence) advance(seq uint64, of History) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if of == s.history && seq > s.at.Load() {
		s.at.Store(seq)
	}
}

// beginHistory takes the sequence to where another history ends, which may be back: a lookup that named a position
// ahead of it would be believed over changes to come.
func (s *sequence) beginHistory(seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history++
	s.at.Store(seq)
}

// Sequence is a position in the change feed: everything up to it is on disk and seen by every read that begins from now
// on. It may be behind what another process wrote, never ahead of what a reader sees.
func (f *Feed) Sequence() uint64 { return f.sequence.at.Load() }

// History is the history of the feed at present, for Advance.
func (f *Feed) History() History { return f.sequence.historyNow() }

// Advance moves the sequence forward, after the commit of the entry at seq, and has the feed read on. of is the history
// from before the transaction: a position of another is not taken.
func (f *Feed) Advance(seq uint64, of History) {
	f.sequence.advance(seq, of)
	f.Nudge()
}
