package webhook

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"patd/tokens"
)

const (
	// pollEvery is how often a webhook is looked after when nothing wakes its worker.
	pollEvery = 5 * time.Second
	// pauseAfterFailure is how long a worker waits after the store failed.
	pauseAfterFailure = time.Second
	// gatherResults is how long the results of attempts are gathered, to be recorded at once.
	gatherResults = 20 * time.Millisecond
	// dueLimit is how many deliveries are read at once.
	dueLimit = 64
)

// worker delivers for one webhook, as long as this server has its lease. All but what is said to be shared belongs to
// the goroutine of run.
type worker struct {
	*Engine
	lease  tokens.WebhookLease
	ctx    context.Context // of the lease
	stop   context.CancelFunc
	expire *time.Timer
	done   chan struct{}

	webhook tokens.Webhook // as last read
	sender  sender         // nil: none yet
	to      string         // the URL of sender
	health  health
	out     outbox

	results  chan result
	sending  map[place]*tokens.WebhookDelivery // under way, or not recorded yet
	retries  int                               // those of them that were tried before
	attempts sync.WaitGroup
	toRecord []tokens.WebhookAttempt
	disable  string    // the reason for which the webhook is to be disabled; empty: it is not
	wake     time.Time // when there is something to do at the latest

	// Shared, for figures.
	failing atomic.Bool
	oldest  atomic.Int64 // when the oldest pending delivery was made, in microseconds of Unix time; 0: there is none
}

// place names a delivery of a webhook.
type place struct {
	seq  uint64
	item int64
}

// result is the end of an attempt.
type result struct {
	place
	outcome Outcome
	begun   time.Time
	took    time.Duration
}

func newWorker(e *Engine, l tokens.WebhookLease) *worker {
	return &worker{Engine: e, lease: l, done: make(chan struct{}), results: make(chan result, upSlots),
		sending: map[place]*tokens.WebhookDelivery{}}
}

func (w *worker) ended() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// start begins the work, which ends at until unless the lease is extended, and finishWithin after ctx has ended.
func (w *worker) start(ctx context.Context, until time.Time) {
	w.ctx, w.stop = context.WithCancel(context.WithoutCancel(ctx))
	w.expire = time.AfterFunc(time.Until(until), w.stop)
	go func() {
		defer close(w.done)
		defer w.stop()
		defer w.expire.Stop()
		defer func() {
			if v := recover(); v != nil { // it is begun again with the next renewal
				w.Logger.Error(
					"a panic while messages were sent to a webhook",
					"webhook",
					w.webhook.ID,
					"stack",
					string(debug.Stack()),
				)
			}
		}()
		w.run(ctx)
	}()
}

// extend postpones the end of the work.
func (w *worker) extend(until time.Time) {
	if w.ctx.Err() == nil {
		w.expire.Reset(time.Until(until))
	}
}

// run delivers until the lease has ended. When stopping ends first, it begins no more attempts and waits some seconds
// for those under way.
func (w *worker) run(stopping context.Context) {
	defer func() {
		w.stop()
		w.attempts.Wait()
		if w.sender != nil {
			w.sender.Close()
		}
	}()
	news := w.News()
	for w.ctx.Err() == nil && stopping.Err() == nil {
		w.wake = time.Now().Add(pollEvery)
		if err := w.work(); err != nil {
			if w.over(err) {
				return
			}
			w.wake = time.Now().Add(pauseAfterFailure)
			w.Failed(fmt.Errorf("deliver for webhook %s: %w", w.webhook.ID, err))
			w.wait(stopping, nil)
		} else {
			w.wait(stopping, news)
		}
		select {
		case <-news:
			news = w.News() // before the log is read
			w.out.changed()
		default:
		}
	}
	w.finish()
}

// over reports whether the worker has no more to do: it lost the lease, or the webhook is disabled or deleted, or is
// not as patd wrote it. It is begun again with the next renewal, and so goes on when that was put right.
func (w *worker) over(err error) bool {
	return w.ctx.Err() != nil || errors.Is(err, tokens.ErrLeaseLost) || errors.Is(err, tokens.ErrNotFound) ||
		errors.Is(err, tokens.ErrRecordInvalid)
}

// work queues what has happened, and begins the attempts that are due.
func (w *worker) work() error {
	if err := w.record(); err != nil {
		return err
	}
	if err := w.out.fill(w); err != nil {
		return err
	}
	return w.begin()
}

// wait returns when an attempt has ended, something has changed, or it is time.
func (w *worker) wait(stopping context.Context, news <-chan struct{}) {
	timer := time.NewTimer(time.Until(w.wake))
	defer timer.Stop()
	select {
	case r := <-w.results:
		w.note(r)
		w.gather()
	case <-news:
	case <-timer.C:
		w.out.changed()
	case <-stopping.Done():
	case <-w.ctx.Done():
	}
}

// gather takes the results of further attempts that end now.
func (w *worker) gather() {
	enough := time.NewTimer(gatherResults)
	defer enough.Stop()
	for {
		select {
		case r := <-w.results:
			w.note(r)
		case <-enough.C:
			return
		case <-w.ctx.Done():
			return
		}
	}
}

// finish waits for the attempts under way, while the lease lasts, and records them.
func (w *worker) finish() {
	patience := time.AfterFunc(finishWithin, w.stop)
	defer patience.Stop()
	for w.ctx.Err() == nil && w.underWay() > 0 {
		select {
		case r := <-w.results:
			w.note(r)
			if w.record() != nil {
				return // at least once: what is not recorded is sent again
			}
		case <-w.ctx.Done():
		}
	}
}
