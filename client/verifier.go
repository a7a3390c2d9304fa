package client

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens/secret"
)

// Config configures a [Verifier]. The zero Config is sensible.
type Config struct {
	// Audience is the API of the program, for a [Call] that names none. Empty: audiences are not checked, unless the
	// service token is bound to one.
	Audience string
	// Prefixes are the token prefixes to ask about; a token with any other is not found, without a request. Empty: all
	// but those of service and refresh tokens, so that a new prefix of patd needs no change here.
	Prefixes []string
	// MaxEntries is how many answers are cached. 0: 100 000.
	MaxEntries int
	// MaxBytes bounds the bytes of memory for cached answers and unreported uses, by an estimate from above. An answer
	// larger than about an 85th of it is not cached, and a use without room is not reported (see [Stats].DroppedUses).
	// 0: 64 MiB.
	MaxBytes int
	// MaxAge is how long an answer is used at most. It bounds what a fault could cost, and the delay of a change in the
	// company's own system, which the feed does not report, in addition to the server's --features-ttl. 0: a minute.
	MaxAge time.Duration
	// MaxInFlight is how many requests may be under way at a time; further ones wait for a slot. 0: 512.
	MaxInFlight int
	// Timeout bounds one request. 0: 5 seconds.
	Timeout time.Duration
	// ReportEvery is how often uses decided from the cache are reported. 0: 10 seconds. Negative: never, not even by
	// Close; last_used_time then leaves them out.
	ReportEvery time.Duration
	// Logger logs when the watch breaks and comes back, and from 30 days before, once a day, that the service token
	// expires. Nil: no log. No token is ever logged.
	Logger *slog.Logger
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	orDefault(&c.MaxEntries, 100_000)
	orDefault(&c.MaxBytes, 64<<20)
	orDefault(&c.MaxAge, time.Minute)
	orDefault(&c.MaxInFlight, 512)
	orDefault(&c.Timeout, 5*time.Second)
	if c.ReportEvery == 0 {
		c.ReportEvery = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // where the clock comes in
	}
	return c
}

func orDefault[T int | time.Duration](v *T, value T) {
	if *v <= 0 {
		*v = value
	}
}

// ErrClosed reports that the Verifier was closed.
var ErrClosed = errors.New("the verifier is closed")

// Verifier decides about tokens by asking patd, and from its cache while it receives every change. [New] makes it. It
// is safe for concurrent use.
type Verifier struct {
	config  Config
	form    form
	digests digester
	memory  *memory
	asker   *asker
	uses    *uses
	expiry  *serviceExpiry

	flights flights
	asked   atomic.Uint64

	stop    context.CancelFunc
	running sync.WaitGroup
}

var _ Checker = (*Verifier)(nil)

// New makes a Verifier over a connection that carries a service token with the permission introspect (see
// [ServiceToken] and [Dial]). It does not wait for the server: until the first message of the watch, every check asks.
// The caller owns the connection, which must outlive Close.
func New(conn grpc.ClientConnInterface, config Config) (*Verifier, error) {
	config = config.withDefaults()
	f, err := newForm(config.Prefixes)
	if err != nil {
		return nil, err
	}
	if !utf8.ValidString(config.Audience) {
		return nil, errors.New("the audience is not UTF-8")
	}
	digests, err := newDigester()
	if err != nil {
		return nil, err
	}
	rpc := patdv1.NewIntrospectionServiceClient(conn)
	ctx, stop := context.WithCancel(context.Background())
	v := &Verifier{
		config:  config,
		form:    f,
		digests: digests,
		memory:  newMemory(config.MaxEntries, config.MaxBytes, config.Now()),
		stop:    stop,
		asker: newAsker(
			rpc,
			config.Now,
		),
		uses:    newUses(rpc, min(config.MaxEntries, config.MaxBytes/usesShare/useBytes)),
		flights: flights{slots: make(chan struct{}, config.MaxInFlight), ctx: ctx},
	}
	w := &watcher{rpc: rpc, memory: v.memory, now: config.Now, log: config.Logger, acks: newAcknowledger(rpc)}
	v.expiry = &w.expiry
	v.running.Go(func() { w.run(ctx) })
	v.running.Go(func() { w.acks.run(ctx) })
	v.running.Go(func() { v.asker.keepLine(ctx) })
	if config.ReportEvery > 0 {
		v.running.Go(func() { v.uses.run(ctx, config.ReportEvery) })
	}
	return v, nil
}

// closingReport bounds the last report of uses.
const closingReport = 5 * time.Second

// Close stops all background work, waits for it, and reports the last uses. Checks that wait for an answer fail. An
// error means that the last uses were not reported, and nothing else.
func (v *Verifier) Close() error {
	if !v.flights.close() {
		return nil
	}
	v.stop()
	v.running.Wait()
	v.memory.distrust()
	v.flights.running.Wait()
	if v.config.ReportEvery < 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closingReport)
	defer cancel()
	return v.uses.report(ctx)
}

// Verify decides about a token. Text without the form of a token, checksum included, is not found without a request. A
// cached answer without a change since decides at once. Anything else is asked; if that fails, so does the check,
// whatever was cached before.
func (v *Verifier) Verify(ctx context.Context, token string, call Call) (Result, error) {
	if len(token) > secret.MaxInput {
		return Result{Decision: NotFound}, nil
	}
	if call.Audience == "" {
		call.Audience = v.config.Audience
	}
	call.ClientIP = call.ClientIP.Unmap().WithZone("")
	k := keys{everywhere: v.digests.key(token, call.Audience)}
	now := v.config.Now()
	if e := v.memory.recall(k.everywhere, now); e != nil {
		return v.let(e, call, now), nil
	}
	k.here = v.digests.at(k.everywhere, call.ClientIP)
	if e := v.memory.recall(k.here, now); e != nil {
		return v.let(e, call, now), nil
	}
	if !v.form.plausible(token) {
		return Result{Decision: NotFound}, nil
	}
	return v.ask(ctx, k, token, call, now)
}

// let decides from the cache, and counts a use if the token passes.
func (v *Verifier) let(e *entry, call Call, now time.Time) Result {
	out := e.result(call.Scopes)
	if out.Decision == Allow && v.config.ReportEvery > 0 {
		v.uses.note(e, call.ClientIP, call.Scopes, now)
	}
	return out
}

// Stats are the counters of a Verifier.
type Stats struct {
	// Entries is how many answers are cached.
	Entries int
	// Hits is how many checks were decided from the cache.
	Hits uint64
	// Asked is how many requests were sent to the server.
	Asked uint64
	// DroppedUses is how many uses will not be reported, for lack of room.
	DroppedUses uint64
	// Watching reports whether the cache may be used at this moment.
	Watching bool
	// ServiceTokenExpireTime is when the service token of the program expires, as of the latest watch; zero: never, or
	// no watch has begun yet. From 30 days before, the Logger has a warning once a day.
	ServiceTokenExpireTime time.Time
}

// Stats returns the counters, for the program's metrics.
func (v *Verifier) Stats() Stats {
	entries, hits := v.memory.answers.count()
	refusals, more := v.memory.refusals.count()
	return Stats{
		Entries: entries + refusals, Hits: hits + more, Asked: v.asked.Load(),
		DroppedUses: v.uses.dropped.Load(), Watching: v.memory.trusted(v.config.Now()),
		ServiceTokenExpireTime: v.expiry.get(),
	}
}
