package webhook

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"patd/tokens"
)

const (
	// leaseFor is how long a server delivers for a webhook without renewing that, and so how long after its death
	// another takes over at most, but for leaseEvery; it is renewed every leaseEvery.
	leaseFor   = 8 * time.Second
	leaseEvery = 2 * time.Second
	// leaseSpare is how long before the end of a lease that could not be renewed its holder stops.
	leaseSpare = time.Second
	// finishWithin is how long a stopping server waits for the attempts under way.
	finishWithin = 3 * time.Second
)

// Queue is a store with what is to be sent.
type Queue interface {
	tokens.WebhookQueue
	View(ctx context.Context, fn func(tokens.ReadTx) error) error
}

// Domain decides about webhooks.
type Domain interface {
	// OpenWebhookSecrets returns the secrets that sign what is sent to a webhook now.
	OpenWebhookSecrets(w tokens.Webhook) ([]tokens.Secret, error)
	// DisableWebhook disables a webhook for a reason, and records that.
	DisableWebhook(ctx context.Context, lease tokens.WebhookLease, reason string) error
}

// Config configures an Engine. Queue, Domain, News, Holder and Now are required.
type Config struct {
	Queue  Queue
	Domain Domain
	// News returns a channel that is closed when something has changed since the call.
	News func() <-chan struct{}
	// Holder names this process among all servers on the store.
	Holder string
	// AllowPrivate are networks that may be connected to although they are not public.
	AllowPrivate []netip.Prefix
	// Now is the clock of messages, leases and attempts.
	Now func() time.Time
	// Logger gets what an operator must know. Nil: no log.
	Logger *slog.Logger
	// Failed is called with failures of the store, which are tried again. Nil: they are not reported.
	Failed func(error)

	open func(SenderConfig) (sender, error) // for tests; nil: NewSender
}

// sender is a Sender.
type sender interface {
	Send(ctx context.Context, id string, body []byte, secrets ...tokens.Secret) Outcome
	Close()
}

// Engine sends to webhooks what happened, see the package's documentation.
type Engine struct {
	Config
	counts counts
	mu     sync.Mutex
	held   map[tokens.ID]*worker // by the goroutine of Run; read by others under mu
}

// New returns an engine that does nothing yet.
func New(c Config) *Engine {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Failed == nil {
		c.Failed = func(error) {}
	}
	if c.open == nil {
		c.open = func(c SenderConfig) (sender, error) { return NewSender(c) }
	}
	return &Engine{Config: c, held: map[tokens.ID]*worker{}}
}

// Run sends until ctx ends. It then waits some seconds for the attempts under way, and gives back the leases.
func (e *Engine) Run(ctx context.Context) {
	defer e.release(context.WithoutCancel(ctx))
	tick := time.NewTicker(leaseEvery)
	defer tick.Stop()
	for {
		e.lease(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// lease renews the leases of this server, takes those that are free, and begins or ends the work for webhooks
// accordingly. What cannot be renewed ends by itself before its lease does.
func (e *Engine) lease(ctx context.Context) {
	within, cancel := context.WithTimeout(ctx, leaseFor-leaseSpare)
	defer cancel()
	asked, now := time.Now(), e.Now()
	leases, err := e.Queue.LeaseWebhooks(within, e.Holder, now, now.Add(leaseFor))
	if err != nil {
		if ctx.Err() == nil {
			e.Failed(fmt.Errorf("renew the leases of webhooks: %w", err))
		}
		return
	}
	current := make(map[tokens.ID]tokens.WebhookLease, len(leases))
	for _, l := range leases {
		current[l.Webhook] = l
	}
	for num, w := range e.held {
		l, ok := current[num]
		switch {
		case w.ended():
			e.drop(num)
		case !ok, l.Number != w.lease.Number:
			w.stop() // it is taken up again once it has ended
		default:
			w.extend(asked.Add(leaseFor - leaseSpare))
		}
	}
	for num, l := range current {
		if e.held[num] == nil && ctx.Err() == nil {
			e.take(ctx, l, asked.Add(leaseFor-leaseSpare))
		}
	}
}

func (e *Engine) take(ctx context.Context, l tokens.WebhookLease, until time.Time) {
	w := newWorker(e, l)
	e.mu.Lock()
	e.held[l.Webhook] = w
	e.mu.Unlock()
	w.start(ctx, until)
}

func (e *Engine) drop(num tokens.ID) {
	e.mu.Lock()
	delete(e.held, num)
	e.mu.Unlock()
}

// workers returns those that work for webhooks now.
func (e *Engine) workers() []*worker {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := make([]*worker, 0, len(e.held))
	for _, w := range e.held {
		if !w.ended() {
			list = append(list, w)
		}
	}
	return list
}

// release waits for the workers, whose context has ended, and gives the leases back, so that no other server waits for
// their end.
func (e *Engine) release(ctx context.Context) {
	for _, w := range e.held {
		<-w.done
	}
	ctx, cancel := context.WithTimeout(ctx, finishWithin)
	defer cancel()
	if len(e.held) == 0 {
		return
	}
	if err := e.Queue.ReleaseWebhooks(ctx, e.Holder); err != nil {
		e.Failed(fmt.Errorf("give back the leases of webhooks: %w", err))
	}
}
