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

// Config says how a [Verifier] works. The zero Config is a sensible one.
type Config struct {
	// Audience is the API that the program speaks for, when a [Call] names none. Empty: audiences are not checked, unless
	// the service token is bound to one.
	Audience string
	// Prefixes are the prefixes of tokens to ask about; what has another is not found, without a question. Empty: all but those of
	// service and refresh tokens, so that a prefix that patd begins to use needs no change here.
	Prefixes []string
	// MaxEntries is how many answers are remembered. 0: 100 000.
	MaxEntries int
	// MaxBytes is how many bytes of memory the remembered answers, and the uses that are not reported yet, hold at most, by an
	// estimate from above. An answer larger than about an 85th of it is not remembered, and a use without room is not
	// reported (see [Stats].DroppedUses). 0: 64 MiB.
	MaxBytes int
	// MaxAge is how long an answer is used at most. It bounds how long a change in the company's own system, which the
	// feed does not tell of, takes in addition to the server's --features-ttl; and what a fault could cost. 0: a minute.
	MaxAge time.Duration
	// MaxInFlight is how many questions may wait for the server at a time; more wait for their turn. 0: 512.
	MaxInFlight int
	// Timeout bounds one question. 0: 5 seconds.
	Timeout time.Duration
	// ReportEvery is how often uses out of memory are reported. 0: 10 seconds. Negative: never, not even by Close; last_used_time
	// then knows nothing of them.
	ReportEvery time.Duration
	// Logger hears when the watch breaks and comes back. Nil: nobody does. No token is ever logged.
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

// ErrClosed says that the Verifier was closed.
var ErrClosed = errors.New("the verifier is closed")

// Verifier decides about tokens by asking patd, and out of its own memory while it hears of every change. It is made by
// [New] and may be used by many at once.
type Verifier struct {
	config  Config
	form    form
	digests digester
	memory  *memory
	asker   *asker
	uses    *uses

	flights flights
	asked   atomic.Uint64

	stop    context.CancelFunc
	running sync.WaitGroup
}

var _ Checker = (*Verifier)(nil)

// New makes a Verifier over a connection that carries a service token with the permission introspect (see [ServiceToken]
// and [Dial]). It does not wait for the server: until the watch is heard, every check asks. The connection stays the caller's,
// and must outlive Close.
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
		config: config, form: f, digests: digests, memory: newMemory(config.MaxEntries, config.MaxBytes, config.Now()), stop: stop,
		asker: newAsker(rpc, config.Now), uses: newUses(rpc, min(config.MaxEntries, config.MaxBytes/usesShare/useBytes)),
		flights: flights{slots: make(chan struct{}, config.MaxInFlight), ctx: ctx},
	}
	w := &watcher{rpc: rpc, memory: v.memory, now: config.Now, log: config.Logger}
	v.running.Go(func() { w.run(ctx) })
	v.running.Go(func() { v.asker.keepLine(ctx) })
	if config.ReportEvery > 0 {
		v.running.Go(func() { v.uses.run(ctx, config.ReportEvery) })
	}
	return v, nil
}

// closingReport bounds the last report of uses.
const closingReport = 5 * time.Second

// Close ends all that the Verifier does in the background, waits for it, and reports the last uses. Checks that wait for
// an answer fail. The error is of the report: uses are then lost, and nothing else.
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

// Verify decides about a token. What has not the form of a token, checksum included, is not found without a question.
// What is remembered, and was heard not to have changed, is decided at once. Anything else is asked; if that fails, so does
// the check, whatever was known before.
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

// let decides out of memory, and has what passes counted as a use.
func (v *Verifier) let(e *entry, call Call, now time.Time) Result {
	out := e.result(call.Scopes)
	if out.Decision == Allow && v.config.ReportEvery > 0 {
		v.uses.note(e, call.ClientIP, now)
	}
	return out
}

// Stats is what a Verifier has been doing.
type Stats struct {
	// Entries is how many answers are remembered.
	Entries int
	// Hits is how many checks were decided out of memory.
	Hits uint64
	// Asked is how many questions the server was asked.
	Asked uint64
	// DroppedUses is how many uses will not be reported, for want of room.
	DroppedUses uint64
	// Watching reports whether memory may be used at this moment.
	Watching bool
}

// Stats returns what the Verifier has been doing, for the program's metrics.
func (v *Verifier) Stats() Stats {
	entries, hits := v.memory.answers.count()
	refusals, more := v.memory.refusals.count()
	return Stats{
		Entries: entries + refusals, Hits: hits + more, Asked: v.asked.Load(),
		DroppedUses: v.uses.dropped.Load(), Watching: v.memory.trusted(v.config.Now()),
	}
}
