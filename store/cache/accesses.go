package cache

import (
	"context"
	"sync"
	"sync/atomic"

	"patd/internal/flight"
	"patd/tokens"
)

// accesses are the short-lived access tokens in memory. Whatever ends one is a change of the personal access token that
// it came of, so all of a token's are dropped with it. They live for a day at most by default, and are fewer than
// tokens: they are kept as they are.
type accesses struct {
	limit        int // of bytes
	hits, misses atomic.Uint64

	mu      sync.Mutex
	known   map[tokens.ID]*tokens.AccessCredential
	of      map[tokens.ID][]tokens.ID // by the personal access token
	bytes   int
	evicted uint64
	flights flights[tokens.AccessCredential]
	changed recently // personal access tokens: which one a flight's came of is not known before it has landed
}

func (a *accesses) init(limit int) {
	a.limit = limit
	a.clear()
}

func (a *accesses) get(id tokens.ID) (*tokens.AccessCredential, bool) {
	a.mu.Lock()
	one, ok := a.known[id]
	a.mu.Unlock()
	if ok {
		a.hits.Add(1)
	}
	return one, ok
}

// fetch reads an access token by lookup, or waits for another who is reading it, and keeps it.
func (a *accesses) fetch(ctx context.Context, id tokens.ID,
	lookup func(context.Context, tokens.ID) (tokens.AccessCredential, error),
) (tokens.AccessCredential, error) {
	a.misses.Add(1)
	return fetch(ctx, "look up an access token", &a.mu, &a.flights, id, func() uint64 { return a.changed.seq },
		func(f *reading[tokens.AccessCredential]) (one tokens.AccessCredential, err error) {
			err = flight.ErrAbandoned // unless lookup comes back
			defer func() {
				a.mu.Lock()
				defer a.mu.Unlock()
				a.flights.Land(id, f, one, err)
				if err == nil && !f.Stale() && !a.changed.since(uint64(one.Access.TokenID), f.Begun) {
					kept := one
					a.put(&kept)
				}
			}()
			one, err = lookup(ctx, id)
			return one, err
		})
}

// put keeps one, and makes room for it by dropping any others.
func (a *accesses) put(one *tokens.AccessCredential) {
	a.remove(one.Access.ID)
	for id := range a.known {
		if a.bytes+accessSize(one) <= a.limit {
			break
		}
		a.remove(id)
		a.evicted++
	}
	if accessSize(one) > a.limit {
		return
	}
	a.known[one.Access.ID] = one
	a.of[one.Access.TokenID] = append(a.of[one.Access.TokenID], one.Access.ID)
	a.bytes += accessSize(one)
}

// accessSize is about the memory that one takes.
func accessSize(one *tokens.AccessCredential) int {
	n := 400 + len(one.Access.ClientID)
	for _, list := range [...][]string{one.Access.Scopes, one.Access.Audiences} {
		for _, s := range list {
			n += 16 + len(s)
		}
	}
	return n
}

func (a *accesses) remove(id tokens.ID) {
	one, ok := a.known[id]
	if !ok {
		return
	}
	delete(a.known, id)
	a.bytes -= accessSize(one)
	siblings := a.of[one.Access.TokenID]
	for i, s := range siblings {
		if s == id {
			siblings[i] = siblings[len(siblings)-1]
			siblings = siblings[:len(siblings)-1]
			break
		}
	}
	if len(siblings) == 0 {
		delete(a.of, one.Access.TokenID)
		return
	}
	a.of[one.Access.TokenID] = siblings
}

// drop drops all that came of a personal access token, or the access token, whichever has the id, and keeps readings of
// them under way from being kept.
func (a *accesses) drop(id tokens.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.changed.note(uint64(id))
	a.flights.Invalidate(id)
	a.remove(id)
	for siblings := a.of[id]; len(siblings) > 0; siblings = a.of[id] {
		a.remove(siblings[len(siblings)-1])
	}
}

func (a *accesses) clear() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.changed.noteAll()
	a.flights.InvalidateAll()
	a.known, a.of, a.bytes = map[tokens.ID]*tokens.AccessCredential{}, map[tokens.ID][]tokens.ID{}, 0
}
