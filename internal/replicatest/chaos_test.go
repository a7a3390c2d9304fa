package replicatest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/internal/waittest"
)

// chaosFor is how long the chaos lasts, unless PATD_CHAOS says otherwise.
const chaosFor = 15 * time.Second

// chaos is what is done to a cluster.
type chaos struct {
	cluster                                      *cluster
	replicaKills, databaseKills, freezes, ending atomic.Int64
}

// TestChaosLosesNoAnsweredChange kills replicas and the database by SIGKILL at random moments, cuts connections in the
// middle of commits and at any other moment, and lets the database stand still, while clients mint, rotate, revoke and
// set features. They repeat whatever is not answered, on any replica, mints with an idempotency key. In the end every
// answered change stands, on every replica, nothing has happened twice or by half, and nothing that was told not to
// have happened has. Only LONG_TESTS and PATD_CHAOS run it.
func TestChaosLosesNoAnsweredChange(t *testing.T) {
	if !longtest.Enabled() && os.Getenv("PATD_CHAOS") == "" {
		t.Skip("LONG_TESTS runs it")
	}
	t.Parallel()
	c := newClusterBehind(t, dbtest.Postgres(t), "patd", 3)
	x := &chaos{cluster: c}
	s := startShift(t, c, 6)
	x.rage(t, lasting(t, "PATD_CHAOS", chaosFor))
	tokens := s.end()
	t.Logf("%s; %d tokens; %s", x, tokens, &s.counts)
	x.settle(t)
	s.verify(t)
	for _, r := range c.replicas {
		r.stop()
	}
	if s.answered.Load() < 30 || x.replicaKills.Load() < 2 || x.databaseKills.Load() < 1 {
		t.Error("too little happened: the test proves nothing")
	}
}

func (x *chaos) String() string {
	cuts := 0
	for _, k := range x.cluster.cutters {
		cuts += k.done()
	}
	return fmt.Sprintf(
		"%d replicas killed, %d times the database, %d commits cut, %d connections ended, %d times frozen",
		x.replicaKills.Load(),
		x.databaseKills.Load(),
		cuts,
		x.ending.Load(),
		x.freezes.Load(),
	)
}

// rage does harm for a while, and then leaves everything running.
func (x *chaos) rage(t *testing.T, lasts time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	var g sync.WaitGroup
	for _, r := range x.cluster.replicas {
		g.Go(func() {
			for await(ctx, time.Second, 10*time.Second) {
				r.kill()
				x.replicaKills.Add(1)
				if err := r.startSoon(); err != nil {
					t.Errorf("%v", err)
					return
				}
			}
		})
	}
	for await(ctx, 200*time.Millisecond, 2500*time.Millisecond) {
		x.harm(ctx, t)
	}
	g.Wait()
}

// harm does something to the database or to the way there.
func (x *chaos) harm(ctx context.Context, t *testing.T) {
	t.Helper()
	db := x.cluster.db
	switch n := rand.IntN(10); {
	case n < 2 || x.databaseKills.Load() == 0:
		db.Kill(t)
		await(ctx, 0, time.Second)
		db.Start(t)
		x.databaseKills.Add(1)
	case n < 3:
		db.Freeze(t)
		await(ctx, 0, 2*time.Second)
		db.Thaw(t)
		x.freezes.Add(1)
	case n < 5:
		var ended int64
		// The test's own connections may be of before the database was killed.
		if err := db.Admin().QueryRowContext(ctx, terminateWorkers).Scan(&ended); err == nil {
			x.ending.Add(ended)
		}
	default:
		k := x.cluster.cutters[rand.IntN(len(x.cluster.cutters))]
		last := rand.IntN(4) == 0
		k.arm([]cut{beforeCommit, afterCommit}[rand.IntN(2)], last)
		if last {
			await(ctx, 500*time.Millisecond, 9*time.Second) // nobody tries for that long to find out
			k.arm(none, false)
			k.open()
		}
	}
}

// await lets a random time pass. It reports whether there is more to come.
func await(ctx context.Context, least, most time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(least + rand.N(most-least)):
		return true
	}
}

// settle waits until every replica receives changes again.
func (x *chaos) settle(t *testing.T) {
	t.Helper()
	for n, r := range x.cluster.replicas {
		x.cluster.cutters[n].arm(none, false)
		x.cluster.cutters[n].open()
		waittest.Within(t, patience, r.name+" is ready", func() bool {
			code, _, err := r.now().get("/readyz")
			return err == nil && code == 200
		})
	}
	ended := time.Now()
	waittest.Within(
		t,
		patience,
		"what happened last is known everywhere",
		func() bool { return time.Since(ended) > soon },
	)
}

// What a change that happened by half or twice would look like: a token without the one event of its minting, with more
// or fewer rotations than events of them, or revoked without the one event of that, or the other way round.
const halfChanges = `
SELECT count(*) FROM tokens t,
  LATERAL (SELECT count(*) FILTER (WHERE action = 'token.create') AS minted, count(*) FILTER (WHERE action = 'token.rotate') AS rotated,
    count(*) FILTER (WHERE action = 'token.revoke') AS revoked FROM events WHERE token_id = t.id AND outcome = 1) e
WHERE e.minted <> 1 OR e.rotated <> t.rotations OR e.revoked <> CASE WHEN t.revoke_us IS NULL THEN 0 ELSE 1 END`

// Every event that was a success has its entry in the change feed. Entries are kept for an hour, which is longer than
// the chaos.
const (
	orphans = `
SELECT count(*) FROM events e WHERE e.outcome = 1 AND e.action LIKE 'token.%' AND NOT EXISTS (SELECT 1 FROM tokens t WHERE t.id = e.token_id)`

	unfed = `
SELECT (SELECT count(*) FROM events WHERE outcome = 1 AND token_id IS NOT NULL) - (SELECT count(*) FROM changes WHERE token_id IS NOT NULL)`
)

// wholeChanges looks into the tables.
func wholeChanges(t *testing.T, c *cluster) {
	t.Helper()
	tx, err := c.db.Admin().BeginTx(t.Context(), nil)
	must(t, err)
	defer func() { _ = tx.Rollback() }() // it only reads
	_, err = tx.ExecContext(t.Context(), `SET LOCAL search_path = `+c.schema)
	must(t, err)
	for _, q := range []struct{ what, query string }{
		{"tokens with half a change", halfChanges}, {"events without their token", orphans},
		{"events without their entry in the change feed", unfed},
	} {
		var n int
		must(t, tx.QueryRowContext(t.Context(), q.query).Scan(&n))
		if n != 0 {
			t.Errorf("%d %s", n, q.what)
		}
	}
}
