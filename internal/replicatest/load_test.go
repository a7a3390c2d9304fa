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
	calls atomic.Int64
	stop  context.CancelFunc
	done  sync.WaitGroup
}

// pace is the pause between two calls of a client: what is asked for is work in the replicas' way, not as much as they bear.
const pace = 20 * time.Millisecond

// loads counts them, so that each has users of its own.
var loads atomic.Int64

// startLoad starts clients with users of their own. No call of theirs may fail.
func startLoad(t *testing.T, c *cluster, clients int) *load {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	l, serial := &load{stop: stop}, loads.Add(1)
	for n := range clients {
		l.done.Go(func() {
			user := fmt.Sprintf("load-%d-%d", serial, n)
			if err := l.work(ctx, c, user); err != nil && ctx.Err() == nil {
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

func (l *load) work(ctx context.Context, c *cluster, user string) error {
	pause := time.NewTicker(pace)
	defer pause.Stop()
	anywhere := func() *api {
		l.calls.Add(1)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		return c.replicas[rand.IntN(len(c.replicas))].now()
	}
	for n := 0; ctx.Err() == nil; n++ {
		if err := l.round(ctx, anywhere, user, n); err != nil {
			return err
		}
	}
	return nil
}

// round is the life of one token: every kind of change, and introspections between them.
func (l *load) round(ctx context.Context, anywhere func() *api, user string, n int) error {
	if err := anywhere().hold(ctx, user, "a", fmt.Sprintf("feature-%d", n)); err != nil {
		return fmt.Errorf("set features: %w", err)
	}
	tok, _, err := anywhere().mint(ctx, user, fmt.Sprint(n), fmt.Sprintf("%s, token %d", user, n))
	if err != nil {
		return fmt.Errorf("mint: %w", err)
	}
	for range 4 {
		if _, err := anywhere().decide(ctx, tok.secret); err != nil {
			return fmt.Errorf("introspect: %w", err)
		}
	}
	if tok.secret, err = anywhere().rotate(ctx, tok); err != nil {
		return fmt.Errorf("rotate: %w", err)
	}
	if err := anywhere().suspend(ctx, user); err != nil {
		return fmt.Errorf("suspend: %w", err)
	}
	if err := anywhere().resume(ctx, user); err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	if _, err := anywhere().decide(ctx, tok.secret); err != nil {
		return fmt.Errorf("introspect: %w", err)
	}
	if err := anywhere().revoke(ctx, tok); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	return nil
}
