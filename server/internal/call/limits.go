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

// Default limits. A user holds up to 100 live tokens, and may replace them all at once. Secrets are too long to guess,
// so the limit of failures bounds only their cost, and leaves room for many callers behind one address.
const (
	defaultMintRate         = 1
	defaultMintBurst        = 100
	defaultServiceMintRate  = 1000
	defaultServiceMintBurst = 20_000
	defaultFailureRate      = 10
	defaultFailureBurst     = 1000
	// One signed-in user's changes other than mints, and its revocations. Below, the same for a service, which makes
	// them for many users, as when it copies a whole directory.
	defaultChangeRate         = 1
	defaultChangeBurst        = 100
	defaultServiceChangeRate  = 2000
	defaultServiceChangeBurst = 100_000
	// One personal access token's exchanges and refreshes. A job needs one, and a token may have many jobs.
	defaultExchangeRate  = 1
	defaultExchangeBurst = 100
	// Lookups of one refresh token that has ended: each costs a read of the store.
	endedRate  = 10
	endedBurst = 100
	// Reads of the store for credentials without a record, from one address: some percent of a core. Past that a good
	// credential that is not in memory is rejected too, so the limit leaves room for reads of good ones.
	guessReadRate  = 200
	guessReadBurst = 10_000
	// One caller's refused attempts that the audit log records.
	defaultRefusalRate  = 1
	defaultRefusalBurst = 100
	// One caller's calls to the catalogue: people and scripts make them, not requests of customers.
	catalogRate  = 100
	catalogBurst = 1000
	// One address's leak reports. Each may cost a thousand lookups in the store.
	defaultLeakRate  = 1
	defaultLeakBurst = 60
)

// Names of the limits in metrics.
const (
	limitMint     = "mint"
	limitChange   = "change"
	LimitRevoke   = "revocation"
	LimitExchange = "exchange"
	limitFailures = "authentication"
	limitCatalog  = "catalog"
	limitLeaks    = "leaks"
)

// Limits bound how often callers may make costly calls.
type Limits struct {
	users, services, exchanges         *budget        // nil: unlimited
	userChanges, serviceChanges, Ended *limit.Limiter // nil: unlimited; revocations have a key of their own
	failures, refusals, catalog, leaks *limit.Limiter // nil: unlimited
	reads                              *limit.Limiter // of the store, for credentials without a record; nil: unlimited
	metrics                            *metrics.Set
	shared                             SharedLimit
	clock                              func() time.Time
}

// LimitsConfig configures Limits; see Config.
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

// NewLimits makes the limits; zero values in c stand for the defaults.
func NewLimits(c LimitsConfig, m *metrics.Set) (*Limits, error) {
	for _, name := range []string{limitMint, limitChange, LimitRevoke, LimitExchange, limitFailures, limitCatalog, limitLeaks} {
		m.Limited.WithLabelValues(name) // the series exists from the start
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

// spend charges the caller for a call: a mint, a change, a revocation, or a call to the catalogue. Each kind has a
// budget of its own, so that no number of other calls keeps a caller from revoking. Reads cost nothing.
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
	if a.Kind == tokens.UserActor || a.Kind == tokens.TokenActor { // a token that rotates itself
		bucket = l.users
	}
	if ok, after := bucket.allow(ctx, a.String()); !ok {
		return l.Refuse(limitMint, after, "this caller mints too many tokens")
	}
	return nil
}

// SignIn charges a user for one sign-in on the page, which is an event.
func (l *Limits) SignIn(a tokens.Actor) error {
	if ok, after := l.changes(a).Allow(limit.Name("sign-ins " + a.String())); !ok {
		return l.Refuse(limitChange, after, "this user signs in too often")
	}
	return nil
}

// Draft charges a session of the page that has ended, by its secret, for a form that is kept for its user.
func (l *Limits) Draft(session tokens.Secret) error {
	if ok, after := l.userChanges.Allow(limit.Name("drafts " + session.Reveal())); !ok {
		return l.Refuse(limitChange, after, "forms are sent too often without signing in")
	}
	return nil
}

// Revocation charges a caller for one revocation, suspension or deletion. Without a credential its address is charged,
// which a whole company may share.
func (l *Limits) Revocation(a tokens.Actor) error {
	key := limit.Name("revocations " + a.String())
	if a.Kind == tokens.Nobody {
		key = limit.Address(a.Peer.IP)
	}
	if ok, after := l.changes(a).Allow(key); !ok {
		return l.Refuse(LimitRevoke, after, "this caller revokes too often")
	}
	return nil
}

// changes returns the limiter of a caller's changes.
func (l *Limits) changes(a tokens.Actor) *limit.Limiter {
	if a.Kind == tokens.UserActor || a.Kind == tokens.TokenActor {
		return l.userChanges
	}
	return l.serviceChanges
}

// Exchange charges a personal access token for one exchange or refresh.
func (l *Limits) Exchange(ctx context.Context, token tokens.Actor) error {
	if ok, after := l.exchanges.allow(ctx, token.String()); !ok {
		return l.Refuse(LimitExchange, after, "this token is exchanged too often")
	}
	return nil
}

// report charges an address for one leak report. The address of a trusted proxy, which stands for callers that it does
// not name, is limited too: reports are rare and expensive.
func (l *Limits) report(from netip.Addr) error {
	if ok, after := l.leaks.Allow(limit.Address(from)); !ok {
		return l.Refuse(limitLeaks, after, "too many reports of leaks came from this address")
	}
	return nil
}

// Forged charges an address for a report whose signature is wrong, and returns err, or RATE_LIMITED past the limit of
// reports.
func (l *Limits) Forged(from netip.Addr, err error) error {
	if often := l.report(from); often != nil {
		return often
	}
	return err
}

// Recordable reports whether the audit log records another refused attempt of a caller, so that no caller floods it.
func (l *Limits) Recordable(a tokens.Actor) bool {
	ok, _ := l.refusals.Allow(limit.Name(a.String()))
	if !ok {
		l.metrics.Unrecorded.Inc()
	}
	return ok
}

// Refuse counts a call past the limit of that name, and returns its error.
func (l *Limits) Refuse(name string, after time.Duration, text string) *fault.TooOften {
	l.metrics.Limited.WithLabelValues(name).Inc()
	return &fault.TooOften{
		Refusal: tokens.Fail(
			tokens.CodeExhausted,
			"RATE_LIMITED",
			text+"; try again in "+fault.WholeSeconds(after)+" s",
		),
		After: after,
	}
}
