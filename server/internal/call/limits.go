package call

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"patd/server/internal/fault"
	"patd/server/internal/limit"
	"patd/server/internal/metrics"
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
	// One signed-in user's changes other than mints, and its revocations. The same for a service, which makes them for many users:
	// as when it copies a whole directory.
	defaultChangeRate         = 1
	defaultChangeBurst        = 100
	defaultServiceChangeRate  = 2000
	defaultServiceChangeBurst = 100_000
	// One personal access token's exchanges and refreshes. A job needs one, and a token may have many jobs.
	defaultExchangeRate  = 1
	defaultExchangeBurst = 100
	// Looks at one refresh token that has ended, which each cost a read of the store.
	endedRate  = 10
	endedBurst = 100
	// Reads of the store for credentials from one address that then are of no record: some percent of a core. Past that a good one
	// that is not in memory is refused too, so it leaves room for the reads of those.
	guessReadRate  = 200
	guessReadBurst = 10_000
	// One caller's refused attempts that the audit log takes.
	defaultRefusalRate  = 1
	defaultRefusalBurst = 100
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
	limitChange   = "change"
	limitRevoke   = "revocation"
	LimitExchange = "exchange"
	limitFailures = "authentication"
	limitCatalog  = "catalog"
	limitLeaks    = "leaks"
)

// Limits are how often callers may do what costs.
type Limits struct {
	users, services, exchanges         *budget        // nil: unlimited
	userChanges, serviceChanges, Ended *limit.Limiter // nil: unlimited; revocations are counted by a key of their own
	failures, refusals, catalog, leaks *limit.Limiter // nil: unlimited
	reads                              *limit.Limiter // of the store, for credentials that then are of no record; nil: unlimited
	metrics                            *metrics.Set
	shared                             SharedLimit
	clock                              func() time.Time
}

// LimitsConfig says what is limited to how much; see Config.
type LimitsConfig struct {
	MintRate, ServiceMintRate   float64
	MintBurst, ServiceMintBurst int
	FailureRate                 float64
	FailureBurst                int
	ChangeRate                  float64
	ChangeBurst                 int
	ServiceChangeRate           float64
	ServiceChangeBurst          int
	ExchangeRate                float64
	ExchangeBurst               int
	RefusalRate                 float64
	RefusalBurst                int
	LeakRate                    float64
	LeakBurst                   int
	Shared                      SharedLimit
	Now                         func() time.Time
}

// NewLimits makes the limits; what is zero in c is the default.
func NewLimits(c LimitsConfig, m *metrics.Set) (*Limits, error) {
	for _, name := range []string{limitMint, limitChange, limitRevoke, LimitExchange, limitFailures, limitCatalog, limitLeaks} {
		m.Limited.WithLabelValues(name) // it exists from the start
	}
	l := &Limits{metrics: m, shared: c.Shared, clock: c.Now}
	own := func(to **limit.Limiter) func(string, float64, int) error {
		return func(name string, rate float64, burst int) (err error) {
			if *to, err = limit.New(limit.Config{Rate: rate, Burst: burst, Now: c.Now}); err != nil {
				return fmt.Errorf("limit %s: %w", name, err)
			}
			return nil
		}
	}
	shared := func(to **budget) func(string, float64, int) error {
		return func(name string, rate float64, burst int) (err error) {
			*to, err = newBudget(name, rate, burst, c.Now, c.Shared)
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
		{shared(&l.users), "minting by users", c.MintRate, c.MintBurst, defaultMintRate, defaultMintBurst},
		{shared(&l.services), "minting by services", c.ServiceMintRate, c.ServiceMintBurst, defaultServiceMintRate, defaultServiceMintBurst},
		{own(&l.failures), "bad credentials", c.FailureRate, c.FailureBurst, defaultFailureRate, defaultFailureBurst},
		{own(&l.reads), "reads for bad credentials", min(c.FailureRate, 0), 0, guessReadRate, guessReadBurst},
		{own(&l.userChanges), "changes by users", c.ChangeRate, c.ChangeBurst, defaultChangeRate, defaultChangeBurst},
		{own(&l.serviceChanges), "changes by services", c.ServiceChangeRate, c.ServiceChangeBurst, defaultServiceChangeRate, defaultServiceChangeBurst},
		{shared(&l.exchanges), "exchanges", c.ExchangeRate, c.ExchangeBurst, defaultExchangeRate, defaultExchangeBurst},
		{own(&l.Ended), "ended refresh tokens", endedRate, endedBurst, 0, 0},
		{own(&l.refusals), "refused attempts", c.RefusalRate, c.RefusalBurst, defaultRefusalRate, defaultRefusalBurst},
		{own(&l.catalog), "calls to the catalogue", catalogRate, catalogBurst, 0, 0},
		{own(&l.leaks), "reports of leaks", c.LeakRate, c.LeakBurst, defaultLeakRate, defaultLeakBurst},
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

// spend takes what a call costs its caller: a mint, a change or a revocation, each of which has a budget of its own, so that
// no number of the others keeps a caller from revoking; and a call to the catalogue. Reading costs nothing.
func (l *Limits) spend(ctx context.Context, r Right, a tokens.Actor) error {
	if r.any == tokens.PermCatalog && !r.ends {
		if ok, after := l.catalog.Allow(limit.Name(a.String())); !ok {
			return l.Refuse(limitCatalog, after, "this caller calls the catalogue too often")
		}
	}
	switch {
	case r.Reads:
		return nil
	case r.mints:
		return l.mint(ctx, a)
	case r.ends:
		return l.Revocation(a)
	}
	if ok, after := l.changes(a).Allow(limit.Name(a.String())); !ok {
		return l.Refuse(limitChange, after, "this caller makes too many changes")
	}
	return nil
}

func (l *Limits) mint(ctx context.Context, a tokens.Actor) error {
	bucket := l.services
	if a.Kind == tokens.UserActor {
		bucket = l.users
	}
	if ok, after := bucket.allow(ctx, a.String()); !ok {
		return l.Refuse(limitMint, after, "this caller mints too many tokens")
	}
	return nil
}

// Revocation takes one revocation, suspension or deletion of a caller's. One that shows no credential has that of its address,
// behind which there may be a whole company.
func (l *Limits) Revocation(a tokens.Actor) error {
	key := limit.Name("revocations " + a.String())
	if a.Kind == tokens.Nobody {
		key = limit.Address(a.Peer.IP)
	}
	if ok, after := l.changes(a).Allow(key); !ok {
		return l.Refuse(limitRevoke, after, "this caller revokes too often")
	}
	return nil
}

// changes is what counts a caller's changes.
func (l *Limits) changes(a tokens.Actor) *limit.Limiter {
	if a.Kind == tokens.UserActor || a.Kind == tokens.TokenActor {
		return l.userChanges
	}
	return l.serviceChanges
}

// Exchange takes one exchange or refresh of a personal access token's.
func (l *Limits) Exchange(ctx context.Context, token tokens.Actor) error {
	if ok, after := l.exchanges.allow(ctx, token.String()); !ok {
		return l.Refuse(LimitExchange, after, "this token is exchanged too often")
	}
	return nil
}

// report takes one report of leaks of an address. A trusted proxy's own address, which stands for callers whom it does not name,
// is limited too: reports are rare, and dear.
func (l *Limits) report(from netip.Addr) error {
	if ok, after := l.leaks.Allow(limit.Address(from)); !ok {
		return l.Refuse(limitLeaks, after, "too many reports of leaks came from this address")
	}
	return nil
}

// Recordable reports whether the audit log takes another refused attempt of a caller, so that nobody floods it.
func (l *Limits) Recordable(a tokens.Actor) bool {
	ok, _ := l.refusals.Allow(limit.Name(a.String()))
	if !ok {
		l.metrics.Unrecorded.Inc()
	}
	return ok
}

// Refuse is the refusal of a caller past the limit of that name, counted.
func (l *Limits) Refuse(name string, after time.Duration, text string) *fault.TooOften {
	l.metrics.Limited.WithLabelValues(name).Inc()
	return &fault.TooOften{
		Refusal: tokens.Fail(tokens.CodeExhausted, "RATE_LIMITED", text+"; try again in "+fault.WholeSeconds(after)+" s"),
		After:   after,
	}
}
