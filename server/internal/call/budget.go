package call

import (
	"context"
	"fmt"
	"time"

	"patd/server/internal/limit"
)

// SharedLimit counts the actions of one name across all servers on one store: at most burst at once, and rate each
// second over time. It takes one token and returns true, or returns false and the time until one is available.
type SharedLimit func(ctx context.Context, name string, rate float64, burst int) (ok bool, after time.Duration, err error)

// budget limits how often each named caller may do something. Each server counts locally first, which costs nothing,
// and adds to the shared count only what its own count allows.
type budget struct {
	what   string
	rate   float64
	burst  int
	own    *limit.Limiter
	shared SharedLimit // nil: there are no other servers
}

// newBudget makes a budget; what is its name in the shared count and in errors.
func newBudget(what string, rate float64, burst int, now func() time.Time, shared SharedLimit) (*budget, error) {
	own, err := limit.New(limit.Config{Rate: rate, Burst: burst, Now: now})
	if err != nil {
		return nil, fmt.Errorf("limit %s: %w", what, err)
	}
	return &budget{what: what, rate: rate, burst: burst, own: own, shared: shared}, nil
}

// allow takes one token of a name, or returns the time until one is available. A nil budget is unlimited. While the
// shared count is unavailable the local count is the limit: the limited action needs the store too, and reports the
// outage better.
func (b *budget) allow(ctx context.Context, name string) (ok bool, after time.Duration) {
	if b == nil {
		return true, 0
	}
	if ok, after = b.own.Allow(limit.Name(name)); !ok || b.shared == nil {
		return ok, after
	}
	ok, after, err := b.shared(ctx, b.what+" "+name, b.rate, b.burst)
	return ok || err != nil, after
}
