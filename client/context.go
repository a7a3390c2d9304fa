package client

import "context"

type resultKey struct{}

// NewContext returns a context that carries a Result, for handlers behind a [Guard] or an interceptor, and for their
// tests.
func NewContext(ctx context.Context, r Result) context.Context {
	return context.WithValue(ctx, resultKey{}, r)
}

// FromContext returns the Result for the token of the call at hand; false: there is none, the call is open to all. The
// Result of a guarded call is Allowed, with a Token.
func FromContext(ctx context.Context) (Result, bool) {
	r, ok := ctx.Value(resultKey{}).(Result)
	return r, ok
}
