package server

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"patd/server/limit"
	"patd/tokens"
)

// What is limited unless configured. A user holds 100 live tokens, and may replace them all at once. Secrets are too long to be
// guessed, so what the limit of failures bounds is their cost, and it leaves room for many callers behind one address.
const (
	defaultMintRate         = 1
	defaultMintBurst        = 100
	defaultServiceMintRate  = 1000
	defaultServiceMintBurst = 20_000
	defaultFailureRate      = 10
	defaultFailureBurst     = 1000
	// One caller's refused attempts that the audit log takes.
	refusalRate  = 10
	refusalBurst = 100
	// One caller's calls to the catalogue, which people and scripts make, not requests of customers.
	catalogRate  = 100
	catalogBurst = 1000
	// One address's reports of leaks, each of which may cost a thousand looks at the store.
	defaultLeakRate  = 1
	defaultLeakBurst = 60
)

// Names of the limits in metrics.
const (
	limitMint     = "mint"
	limitFailures = "authentication"
	limitCatalog  = "catalog"
	limitLeaks    = "leaks"
)

// limits are how often callers may do what costs.
type limits struct {
	users, services                    *budget        // nil: unlimited
	failures, refusals, catalog, leaks *limit.Limiter // nil: unlimited
	reads                              *limit.Limiter // of the store, for credentials that then are of no record; nil: unlimited
	metrics                            *metrics
	shared                             SharedLimit
	clock                              func() time.Time
}

// limitsConfig says what is limited to how much; see Config.
type limitsConfig struct {
	mintRate, serviceMintRate   float64
	mintBurst, serviceMintBurst int
	failureRate                 float64
	failureBurst                int
	leakRate                    float64
	leakBurst                   int
	shared                      SharedLimit
	now                         func() time.Time
}

func newLimits(c limitsConfig, m *metrics) (*limits, error) {
	for _, name := range []string{limitMint, limitFailures, limitCatalog, limitLeaks} {
		m.limited.WithLabelValues(name) // it exists from the start
	}
	l := &limits{metrics: m, shared: c.shared, clock: c.now}
	own := func(to **limit.Limiter) func(string, float64, int) error {
		return func(name string, rate float64, burst int) (err error) {
			if *to, err = limit.New(limit.Config{Rate: rate, Burst: burst, Now: c.now}); err != nil {
				return fmt.Errorf("limit %s: %w", name, err)
			}
			return nil
		}
	}
	shared := func(to **budget) func(string, float64, int) error {
		return func(name string, rate float64, burst int) (err error) {
			*to, err = newBudget(name, rate, burst, c.now, c.shared)
			return err
		}
	}
	for _, e := range []struct {
		make         func(name string, rate float64, burst int) error
		name         string
		rate         float64
		burst        int
		defaultRate  float64
		defaultBurst int
	}{
		{shared(&l.users), "minting by users", c.mintRate, c.mintBurst, defaultMintRate, defaultMintBurst},
		{shared(&l.services), "minting by services", c.serviceMintRate, c.serviceMintBurst, defaultServiceMintRate, defaultServiceMintBurst},
		{own(&l.failures), "bad credentials", c.failureRate, c.failureBurst, defaultFailureRate, defaultFailureBurst},
		{own(&l.reads), "reads for bad credentials", c.failureRate, c.failureBurst, defaultFailureRate, defaultFailureBurst},
		{own(&l.refusals), "refused attempts", refusalRate, refusalBurst, 0, 0},
		{own(&l.catalog), "calls to the catalogue", catalogRate, catalogBurst, 0, 0},
		{own(&l.leaks), "reports of leaks", c.leakRate, c.leakBurst, defaultLeakRate, defaultLeakBurst},
	} {
		if e.rate < 0 || e.burst < 0 {
			continue
		}
		if e.rate == 0 {
			e.rate = e.defaultRate
		}
		if e.burst == 0 {
			e.burst = e.defaultBurst
		}
		if err := e.make(e.name, e.rate, e.burst); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// spend takes one mint of a caller's, where the method makes a secret, or one call to the catalogue.
func (l *limits) spend(ctx context.Context, r right, a tokens.Actor) error {
	if r.any == tokens.PermCatalog {
		if ok, after := l.catalog.Allow(limit.Name(a.String())); !ok {
			return l.refuse(limitCatalog, after, "this caller calls the catalogue too often")
		}
	}
	if !r.mints {
		return nil
	}
	bucket := l.services
	if a.Kind == tokens.UserActor {
		bucket = l.users
	}
	if ok, after := bucket.allow(ctx, a.String()); !ok {
		return l.refuse(limitMint, after, "this caller mints too many tokens")
	}
	return nil
}

// report takes one report of leaks of an address. A trusted proxy's own address, which stands for callers whom it does not name,
// is limited too: reports are rare, and dear.
func (l *limits) report(from netip.Addr) error {
	if ok, after := l.leaks.Allow(limit.Address(from)); !ok {
		return l.refuse(limitLeaks, after, "too many reports of leaks came from this address")
	}
	return nil
}

// recordable tells whether the audit log takes another refused attempt of a caller, so that nobody floods it.
func (l *limits) recordable(a tokens.Actor) bool {
	ok, _ := l.refusals.Allow(limit.Name(a.String()))
	if !ok {
		l.metrics.unrecorded.Inc()
	}
	return ok
}

func (l *limits) refuse(name string, after time.Duration, text string) error {
	l.metrics.limited.WithLabelValues(name).Inc()
	return &tooOften{
		refusal: tokens.Fail(tokens.CodeExhausted, "RATE_LIMITED", text+"; try again in "+wholeSeconds(after)+" s"),
		after:   after,
	}
}
