package client

import "context"

type resultKey struct{}

// NewContext returns a context that carries a Result, as handlers behind a [Guard] or an interceptor get it. It is for them,
// and for tests of handlers.
func NewContext(ctx context.Context, r Result) context.Context {
	return context.WithValue(ctx, resultKey{}, r)
}

// FromContext returns what was decided about the token of the call at hand; false: nothing was, the call is open to all.
// What it answers of a guarded call is Allowed, with a Token.
func FromContext(ctx context.Context) (Result, bool) {
	r, ok := ctx.Value(resultKey{}).(Result)
	return r, ok
}
