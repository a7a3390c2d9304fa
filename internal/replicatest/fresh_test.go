package replicatest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Each of the two measurements lasts for PATD_FRESH, and goes on until it has a few.
const (
	measureFor   = 3 * time.Second
	measureLeast = 40
)

// freshness is how long the other replicas went on accepting what one had revoked.
type freshness struct {
	mu    sync.Mutex
	lags  []time.Duration
	stale int // accepted by the replica that had revoked it
}

func (f *freshness) add(lag time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lags = append(f.lags, lag)
}

func (f *freshness) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.lags)
}

// String is what is known when all is measured.
func (f *freshness) String() string {
	return fmt.Sprintf(
		"%d measured: p50 %s, p99 %s, max %s; %d stale on the replica that revoked",
		len(f.lags),
		f.quantile(50).
			Round(100*time.Microsecond),
		f.quantile(99).Round(100*time.Microsecond),
		f.quantile(100).Round(100*time.Microsecond),
		f.stale,
	)
}

func (f *freshness) quantile(percent int) time.Duration {
	slices.Sort(f.lags)
	return f.lags[(len(f.lags)-1)*percent/100]
}

// judge holds what was measured against the contract.
func (f *freshness) judge(t *testing.T) {
	t.Helper()
	if f.stale > 0 || f.quantile(99) >= soon || f.quantile(100) > bound {
		t.Errorf("%s: want p99 under %s, none over %s, none stale", f, soon, bound)
	}
}

// measure revokes tokens that every replica has in memory, on each replica in turn, and looks when the others refuse
// them.
func measure(t *testing.T, c *cluster) *freshness {
	t.Helper()
	f := &freshness{}
	deadline := time.Now().Add(lasting(t, "PATD_FRESH", measureFor))
	var g sync.WaitGroup
	for n := range 3 {
		user := fmt.Sprintf("fresh-%s-%d", t.Name(), n)
		must(t, c.replicas[0].now().hold(t.Context(), user, "a"))
		g.Go(func() {
			for round := 0; time.Now().Before(deadline) || f.count() < measureLeast; round++ {
				if err := f.round(t.Context(), c, round%len(c.replicas), user, fmt.Sprint(round)); err != nil {
					t.Errorf("measure: %v", err)
					return
				}
			}
		})
	}
	g.Wait()
	return f
}

func (f *freshness) round(ctx context.Context, c *cluster, home int, user, name string) error {
	at := c.replicas[home].now()
	tok, _, err := at.mint(ctx, user, name, "")
	if err != nil {
		return err
	}
	for _, r := range c.replicas {
		for range 2 { // the second from memory
			if got, err := r.now().decide(ctx, tok.secret); err != nil || got != allow {
				return fmt.Errorf("%s says of a new token: %s, %w", r.name, got, err)
			}
		}
	}
	var g sync.WaitGroup
	defer g.Wait()
	var failure atomic.Pointer[error]
	refused := make([]time.Time, len(c.replicas))
	for n, r := range c.replicas {
		if n != home {
			g.Go(func() {
				if err := untilRefused(ctx, r.now(), tok, &refused[n]); err != nil {
					failure.Store(&err)
				}
			})
		}
	}
	if err := at.revoke(ctx, tok); err != nil {
		return err
	}
	answered := time.Now()
	got, err := at.decide(ctx, tok.secret)
	if err != nil {
		return err
	}
	if got != revoked {
		f.mu.Lock()
		f.stale++
		f.mu.Unlock()
	}
	g.Wait()
	if err := failure.Load(); err != nil {
		return *err
	}
	for n := range c.replicas {
		if n != home {
			f.add(max(0, refused[n].Sub(answered)))
		}
	}
	return nil
}

// untilRefused asks a replica about a token until it is refused, and notes when that answer came.
func untilRefused(ctx context.Context, a *api, tok token, at *time.Time) error {
	pause := time.NewTicker(5 * time.Millisecond)
	defer pause.Stop()
	for {
		got, err := a.decide(ctx, tok.secret)
		switch {
		case err != nil:
			return err
		case got == revoked:
			*at = time.Now()
			return nil
		case got != allow:
			return fmt.Errorf("a token that was revoked is %s", got)
		}
		<-pause.C
	}
}

// What ends connections to the database, and returns how many.
const (
	terminateListeners = `
SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'patd listener%') AS t`

	terminateWorkers = `
SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE ` + isWorker + `) AS t`

	terminateOne = `
SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE ` + isWorker + ` ORDER BY random() LIMIT 1) AS t`

	// A connection is named after its purpose and the version.
	isWorker = `application_name LIKE 'patd%' AND application_name NOT LIKE 'patd listener%'`
)

// cutting ends connections every now and then, until it is stopped. Then it tells how many.
func cutting(t *testing.T, c *cluster, terminate string, every time.Duration) (stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	total := 0
	var g sync.WaitGroup
	g.Go(func() {
		next := time.NewTicker(every)
		defer next.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-next.C:
			}
			var n int
			if err := c.db.Admin().QueryRowContext(ctx, terminate).Scan(&n); err != nil && ctx.Err() == nil {
				t.Errorf("end connections: %v", err)
				return
			}
			total += n
		}
	})
	return func() int {
		cancel()
		g.Wait()
		return total
	}
}

// revokedIsRefusedEverywhereInTime measures under load.
func revokedIsRefusedEverywhereInTime(t *testing.T, c *cluster) {
	l := startLoad(t, c, 4)
	f := measure(t, c)
	t.Logf("%s; %d other calls", f, l.end())
	f.judge(t)
}

// revokedIsRefusedInTimeThoughNobodyIsNotified is the same while each second every replica's connection that listens is
// cut.
func revokedIsRefusedInTimeThoughNobodyIsNotified(t *testing.T, c *cluster) {
	stop := cutting(t, c, terminateListeners, time.Second)
	l := startLoad(t, c, 4)
	f := measure(t, c)
	cut := stop()
	t.Logf("%s; %d other calls; %d listeners cut", f, l.end(), cut)
	f.judge(t)
	if cut < len(c.replicas) {
		t.Errorf("only %d listeners were cut: the test proves nothing", cut)
	}
}
