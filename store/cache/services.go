package cache

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"

	"patd/internal/flight"
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
	return fetch(ctx, "look up a service", &s.mu, &s.flights, id, func() uint64 { return 0 },
		func(f *reading[tokens.ServiceCredential]) (one tokens.ServiceCredential, err error) {
			err = flight.ErrAbandoned // unless lookup comes back
			defer func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.flights.Land(id, f, one, err)
				if err == nil && !f.Stale() {
					s.put(id, one)
				}
			}()
			one, err = lookup(ctx, id)
			return one, err
		})
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
	s.flights.Invalidate(id)
	if _, ok := (*s.known.Load())[id]; ok {
		known := maps.Clone(*s.known.Load())
		delete(known, id)
		s.known.Store(&known)
	}
}

func (s *services) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flights.InvalidateAll()
	s.known.Store(&map[tokens.ID]*tokens.ServiceCredential{})
}

func (s *services) stats() (n int, hits, misses uint64) {
	return len(*s.known.Load()), s.hits.Load(), s.misses.Load()
}
