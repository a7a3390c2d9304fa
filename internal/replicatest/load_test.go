package replicatest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load is mixed work of several clients, who go to any replica as through a load balancer, until it is ended.
type load struct {
	calls   atomic.Int64
	stop    context.CancelFunc
	done    sync.WaitGroup
	balance func(call func(*api) error) error

	mu    sync.Mutex
	ended []token // their lives are over
}

// pace is the pause between two calls of a client: what is asked for is work in the replicas' way, not as much as they
// bear.
const pace = 20 * time.Millisecond

// loads counts them, so that each has users of its own.
var loads atomic.Int64

// startLoad starts clients with users of their own. No call of theirs may fail.
func startLoad(t *testing.T, c *cluster, clients int) *load {
	t.Helper()
	return startLoadOver(
		t,
		clients,
		func(call func(*api) error) error { return call(c.replicas[rand.IntN(len(c.replicas))].now()) },
	)
}

// startLoadOver is startLoad with a balancer, which has each call made at a replica.
func startLoadOver(t *testing.T, clients int, balance func(call func(*api) error) error) *load {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	l, serial := &load{stop: stop, balance: balance}, loads.Add(1)
	for n := range clients {
		l.done.Go(func() {
			user := fmt.Sprintf("load-%d-%d", serial, n)
			if err := l.work(ctx, user); err != nil && ctx.Err() == nil {
				t.Errorf("a client of the load: %v", err)
			}
		})
	}
	return l
}

// end ends the load and tells how many calls it made.
func (l *load) end() int64 {
	l.stop()
	l.done.Wait()
	return l.calls.Load()
}

func (l *load) work(ctx context.Context, user string) error {
	pause := time.NewTicker(pace)
	defer pause.Stop()
	anywhere := func(what string, call func(*api) error) error {
		l.calls.Add(1)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		if err := l.balance(call); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	}
	for n := 0; ctx.Err() == nil; n++ {
		if err := l.round(ctx, anywhere, user, n); err != nil {
			return err
		}
	}
	return nil
}

// round is the life of one token: every kind of change, and introspections between them.
func (l *load) round(
	ctx context.Context,
	anywhere func(string, func(*api) error) error,
	user string,
	n int,
) (err error) {
	do := func(what string, call func(*api) error) {
		if err == nil {
			err = anywhere(what, call)
		}
	}
	var tok token
	introspect := func(a *api) error { _, err := a.decide(ctx, tok.secret); return err }
	do("set features", func(a *api) error { return a.hold(ctx, user, "a", fmt.Sprintf("feature-%d", n)) })
	do("mint", func(a *api) (err error) {
		tok, _, err = a.mint(ctx, user, fmt.Sprint(n), fmt.Sprintf("%s, token %d", user, n))
		return err
	})
	for range 4 {
		do("introspect", introspect)
	}
	do("rotate", func(a *api) (err error) { tok.secret, err = a.rotate(ctx, tok); return err })
	do("suspend", func(a *api) error { return a.suspend(ctx, user) })
	do("resume", func(a *api) error { return a.resume(ctx, user) })
	do("introspect", introspect)
	do("revoke", func(a *api) error { return a.revoke(ctx, tok) })
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ended = append(l.ended, tok)
	}
	return err
}
