package call

import (
	"context"
	"fmt"
	"time"

	"patd/server/internal/limit"
)

// SharedLimit counts for all servers on one store what a name does: at most burst at once, and rate each second over time. It
// takes one, if there is one, and answers otherwise how long until there is.
type SharedLimit func(ctx context.Context, name string, rate float64, burst int) (ok bool, after time.Duration, err error)

// budget is how often each of those who have a name may do something. Each server counts by itself first, which costs
// nothing, and only what it lets pass is counted with the others.
type budget struct {
	what   string
	rate   float64
	burst  int
	own    *limit.Limiter
	shared SharedLimit // nil: there are no others
}

// newBudget makes a budget; what names it among others, and in errors.
func newBudget(what string, rate float64, burst int, now func() time.Time, shared SharedLimit) (*budget, error) {
	own, err := limit.New(limit.Config{Rate: rate, Burst: burst, Now: now})
	if err != nil {
		return nil, fmt.Errorf("limit %s: %w", what, err)
	}
	return &budget{what: what, rate: rate, burst: burst, own: own, shared: shared}, nil
}

// allow takes one of a name's, or tells when there is one again. A nil budget is unlimited. While the others cannot be asked the
// server's own count is the limit: what is limited needs the store too, and says so better.
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
