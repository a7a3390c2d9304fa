package clienttest

import (
	"maps"

	patdv1 "patd/gen/patd/v1"
)

// Hang stops the bytes on all connections, which stay up, as a proxy does that hangs.
func (s *Server) Hang() { s.wire.hang() }

// Release ends Hang: what was held back arrives.
func (s *Server) Release() { s.wire.release() }

// Cut ends all connections and refuses new ones until Mend, as when a server is killed.
func (s *Server) Cut() { s.wire.cut(true) }

// Drop ends all connections; new ones are taken.
func (s *Server) Drop() { s.wire.cut(false) }

// Mend takes connections again.
func (s *Server) Mend() { s.wire.cut(false) }

// NewHistory turns the server into one with another history, as after a restore: the same position in its change feed
// means something else, and nobody is told what changed.
func (s *Server) NewHistory() {
	s.mu.Lock()
	s.history++
	s.first, s.feed = s.now.sequence, nil
	s.tell()
	s.mu.Unlock()
	s.Drop()
}

// RevokeQuietly revokes a token and tells no watcher: what a restored store has done in its other past.
func (s *Server) RevokeQuietly(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.editQuietly(id, revoke)
}

// Fail makes introspection fail from now on, as when the store is out; nil ends it. Watching goes on.
func (s *Server) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = err
}

// Freeze makes introspection answer by what is so now, whatever changes, as a replica that lags behind. Watching goes on.
func (s *Server) Freeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	frozen := s.now.clone()
	s.frozen = &frozen
}

// Thaw ends Freeze.
func (s *Server) Thaw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozen = nil
}

// Hold has introspection decide, and then keep the answer back until Unhold.
func (s *Server) Hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		s.held = make(chan struct{})
	}
}

// Unhold lets the answers go.
func (s *Server) Unhold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != nil {
		close(s.held)
		s.held = nil
	}
}

// Step lets the answers go that are kept back now, and keeps back those that come later.
func (s *Server) Step() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != nil {
		close(s.held)
	}
	s.held = make(chan struct{})
}

// Holding returns how many answers are kept back.
func (s *Server) Holding() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holding
}

// Calls returns how often the server was called so far.
func (s *Server) Calls() Calls {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// Uses returns the latest use of each token, by its id, that was reported.
func (s *Server) Uses() map[string]*patdv1.ReportUsesRequest_Use {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.uses)
}
