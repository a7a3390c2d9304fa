package cache

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"

	"patd/tokens"
)

// maxServices bounds how many services are in memory. There are few, and each calls often.
const maxServices = 4096

// services are the services in memory: a map that is replaced as a whole, so that no reader waits.
type services struct {
	known        atomic.Pointer[map[tokens.ID]*tokens.ServiceCredential]
	hits, misses atomic.Uint64

	mu      sync.Mutex
	flights flights[tokens.ServiceCredential]
}

func (s *services) get(id tokens.ID) (*tokens.ServiceCredential, bool) {
	one, ok := (*s.known.Load())[id]
	if ok {
		s.hits.Add(1)
	}
	return one, ok
}

// fetch reads a service by lookup, or waits for another who is reading it, and keeps it.
func (s *services) fetch(ctx context.Context, id tokens.ID,
	lookup func(context.Context, tokens.ID) (tokens.ServiceCredential, error),
) (tokens.ServiceCredential, error) {
	s.misses.Add(1)
	for {
		s.mu.Lock()
		f := s.flights[id]
		if f == nil {
			f = s.flights.begin(id, 0)
			s.mu.Unlock()
			return s.read(ctx, id, f, lookup)
		}
		if f.done == nil {
			f.done = make(chan struct{})
		}
		s.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return tokens.ServiceCredential{}, gaveUp(ctx, "look up a service")
		}
		if !again(ctx, f.err) {
			return f.value, f.err
		}
	}
}

func (s *services) read(ctx context.Context, id tokens.ID, f *flight[tokens.ServiceCredential],
	lookup func(context.Context, tokens.ID) (tokens.ServiceCredential, error),
) (tokens.ServiceCredential, error) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.flights.end(id, f)
		if f.err == nil && !f.stale {
			s.put(id, f.value)
		}
	}()
	f.value, f.err = lookup(ctx, id)
	return f.value, f.err
}

func (s *services) put(id tokens.ID, one tokens.ServiceCredential) {
	known := maps.Clone(*s.known.Load())
	if len(known) >= maxServices {
		clear(known)
	}
	known[id] = &one
	s.known.Store(&known)
}

// drop drops a service, and keeps a reading of it under way from being kept. Most ids are those of tokens.
func (s *services) drop(id tokens.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flights.drop(id)
	if _, ok := (*s.known.Load())[id]; ok {
		known := maps.Clone(*s.known.Load())
		delete(known, id)
		s.known.Store(&known)
	}
}

func (s *services) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flights.clear()
	s.known.Store(&map[tokens.ID]*tokens.ServiceCredential{})
}

func (s *services) stats() (n int, hits, misses uint64) {
	return len(*s.known.Load()), s.hits.Load(), s.misses.Load()
}
