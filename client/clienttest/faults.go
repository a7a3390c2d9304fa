package clienttest

import (
	"maps"

	patdv1 "patd/gen/patd/v1"
)

// Hang stops the bytes on all connections but keeps them up, like a proxy that hangs.
func (s *Server) Hang() { s.wire.hang() }

// Release ends Hang: bytes that were held back arrive.
func (s *Server) Release() { s.wire.release() }

// Cut ends all connections and refuses new ones until Mend, as when a server is killed.
func (s *Server) Cut() { s.wire.cut(true) }

// Drop ends all connections; new ones are accepted.
func (s *Server) Drop() { s.wire.cut(false) }

// Mend accepts connections again.
func (s *Server) Mend() { s.wire.cut(false) }

// NewHistory gives the server another history, as after a restore: the same position in its change feed means something
// else, and no watcher receives what changed.
func (s *Server) NewHistory() {
	s.mu.Lock()
	s.history++
	s.first, s.feed = s.now.sequence, nil
	s.tell()
	s.mu.Unlock()
	s.Drop()
}

// RevokeQuietly revokes a token without notifying the watchers, as in the lost history of a restored store.
func (s *Server) RevokeQuietly(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.editQuietly(id, revoke)
}

// Fail makes introspection fail from now on, as when the store is down; nil ends it. Watching goes on.
func (s *Server) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = err
}

// Freeze makes introspection answer from the state of this moment, like a replica that lags behind. Watching goes on.
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

// Hold makes introspection decide, and then hold the answers back until Unhold.
func (s *Server) Hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		s.held = make(chan struct{})
	}
}

// Unhold sends the answers.
func (s *Server) Unhold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != nil {
		close(s.held)
		s.held = nil
	}
}

// Step sends the answers held back now, and holds back later ones.
func (s *Server) Step() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != nil {
		close(s.held)
	}
	s.held = make(chan struct{})
}

// Holding returns how many answers are held back.
func (s *Server) Holding() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holding
}

// Calls returns the calls of the server so far.
func (s *Server) Calls() Calls {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// Uses returns the latest reported use of each token, by its id.
func (s *Server) Uses() map[string]*patdv1.ReportUsesRequest_Use {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.uses)
}
