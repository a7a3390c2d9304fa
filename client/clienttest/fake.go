package clienttest

import (
	"context"
	"slices"
	"sync"

	"patd/client"
	"patd/tokens"
)

// Fake is a Checker that returns configured results. A token without one is not found. It is safe for concurrent use.
type Fake struct {
	mu      sync.Mutex
	tokens  map[string]client.Token
	refused map[string]client.Decision
	err     error
	calls   []client.Call
}

var _ client.Checker = (*Fake)(nil)

// NewFake makes a Fake without any tokens.
func NewFake() *Fake {
	return &Fake{tokens: map[string]client.Token{}, refused: map[string]client.Decision{}}
}

// Allow makes a token active, with the scopes of t. The text need not look like a token.
func (f *Fake) Allow(token string, t client.Token) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t.Scopes = slices.Sorted(slices.Values(t.Scopes))
	delete(f.refused, token)
	f.tokens[token] = t
}

// Refuse makes Verify refuse a token.
func (f *Fake) Refuse(token string, d client.Decision) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.tokens, token)
	f.refused[token] = d
}

// Fail makes each check fail from now on, as in an outage; nil ends it.
func (f *Fake) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// Calls returns the calls of Verify so far.
func (f *Fake) Calls() []client.Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// Verify returns the configured result.
func (f *Fake) Verify(_ context.Context, token string, call client.Call) (client.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call)
	if f.err != nil {
		return client.Result{}, f.err
	}
	t, ok := f.tokens[token]
	if !ok {
		d, refused := f.refused[token]
		if !refused {
			d = client.NotFound
		}
		return client.Result{Decision: d}, nil
	}
	if missing := tokens.Missing(call.Scopes, t.Scopes); len(missing) > 0 {
		return client.Result{Decision: client.InsufficientScope, Token: &t, Missing: missing}, nil
	}
	return client.Result{Decision: client.Allow, Token: &t}, nil
}
