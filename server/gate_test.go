package server_test

import (
	"context"
	"sync"
	"time"

	"patd/tokens"
)

// gate is a store in front of the real one, which can be told to fail or to panic, by the name of the method.
type gate struct {
	tokens.Store
	mu   sync.Mutex
	hook func(op string) error
	park chan struct{}  // lookups wait for its end, or that of their call; nil: they do not
	seen []tokens.Usage // what was noted to be written behind
}

var (
	_ tokens.Store  = (*gate)(nil)
	_ tokens.Memory = (*gate)(nil)
)

func (g *gate) set(hook func(op string) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hook = hook
}

func (g *gate) pass(op string) error {
	g.mu.Lock()
	hook := g.hook
	g.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(op)
}

func (g *gate) Lookup(ctx context.Context, id tokens.ID) (tokens.Credential, error) {
	if err := g.pass("Lookup"); err != nil {
		return tokens.Credential{}, err
	}
	g.mu.Lock()
	park := g.park
	g.mu.Unlock()
	if park != nil {
		select {
		case <-park:
		case <-ctx.Done():
			return tokens.Credential{}, ctx.Err()
		}
	}
	return g.Store.Lookup(ctx, id)
}

func (g *gate) LookupService(ctx context.Context, id tokens.ID) (tokens.ServiceCredential, error) {
	if err := g.pass("LookupService"); err != nil {
		return tokens.ServiceCredential{}, err
	}
	return g.Store.LookupService(ctx, id)
}

// memory is the store as it reads from memory; nil: it does not, or lookups are not left to it.
func (g *gate) memory() tokens.Memory {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hook != nil || g.park != nil {
		return nil
	}
	m, _ := g.Store.(tokens.Memory)
	return m
}

func (g *gate) Recall(now time.Time, id tokens.ID, room *tokens.Lists) (tokens.Credential, bool) {
	if m := g.memory(); m != nil {
		return m.Recall(now, id, room)
	}
	return tokens.Credential{}, false
}

func (g *gate) RecallService(now time.Time, id tokens.ID) *tokens.ServiceCredential {
	if m := g.memory(); m != nil {
		return m.RecallService(now, id)
	}
	return nil
}

func (g *gate) ServiceMark(now time.Time) uint64 {
	if m := g.memory(); m != nil {
		return m.ServiceMark(now)
	}
	return 0
}

func (g *gate) FlushUses(ctx context.Context, of []tokens.ID) error {
	return g.Store.(tokens.UseFlusher).FlushUses(ctx, of)
}

func (g *gate) RecordUse(seen tokens.Usage) {
	g.mu.Lock()
	g.seen = append(g.seen, tokens.Usage{ID: seen.ID, Use: seen.Use}) // its scopes are a part of the stream's memory
	g.mu.Unlock()
	g.Store.RecordUse(seen)
}

// noted is the latest use that was noted of a token.
func (g *gate) noted(id string) (last tokens.Use) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.seen {
		if s.ID.String() == id && s.Use.Time.After(last.Time) {
			last = s.Use
		}
	}
	return last
}

// parking has lookups wait until the answer is called.
func (g *gate) parking() (release func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	park := make(chan struct{})
	g.park = park
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.park = nil
		close(park)
	}
}

func (g *gate) View(ctx context.Context, fn func(tokens.ReadTx) error) error {
	if err := g.pass("View"); err != nil {
		return err
	}
	return g.Store.View(ctx, fn)
}

func (g *gate) Update(ctx context.Context, fn func(tokens.Tx) ([]tokens.Event, error)) error {
	if err := g.pass("Update"); err != nil {
		return err
	}
	return g.Store.Update(ctx, fn)
}
