package replicatest

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"patd/internal/dbtest"
)

// TestAnOutageIsNeverAWrongAnswer holds guarantees of replicas whose database stands still, is full, or is cut off from them.
func TestAnOutageIsNeverAWrongAnswer(t *testing.T) {
	t.Parallel()
	c := newCluster(t, dbtest.Postgres(t), "patd", 3)
	for _, g := range []struct {
		name string
		test func(*testing.T, *cluster)
	}{
		{"ADatabaseThatStandsStillIsTrustedForMoments", aDatabaseThatStandsStillIsTrustedForMoments},
		{"WithoutConnectionsNothingIsWrong", withoutConnectionsNothingIsWrong},
		{"ACommitThatIsCutOffIsAnswered", aCommitThatIsCutOffIsAnswered},
		{"ACommitNobodyKnowsOfIsReportedAsSuch", aCommitNobodyKnowsOfIsReportedAsSuch},
	} {
		t.Run(g.name, func(t *testing.T) { g.test(t, c) })
	}
}

// trust is how long a replica believes what it knows without news, and a little for it to find out.
const trust = 6 * time.Second

// looked is an introspection during an outage.
type looked struct {
	began, ended time.Time
	got          decision
	err          error
}

// look asks about a token all the time, many at once, since each may hang, until it is stopped.
func look(ctx context.Context, r *replica, secret string) (stop func() []looked) {
	ctx, cancel := context.WithCancel(ctx)
	var mu sync.Mutex
	var all []looked
	var g sync.WaitGroup
	g.Go(func() {
		next := time.NewTicker(100 * time.Millisecond)
		defer next.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-next.C:
			}
			g.Go(func() {
				one := looked{began: time.Now()}
				one.got, one.err = r.now().decide(context.WithoutCancel(ctx), secret)
				one.ended = time.Now()
				mu.Lock()
				defer mu.Unlock()
				all = append(all, one)
			})
		}
	})
	return func() []looked {
		cancel()
		g.Wait()
		return all
	}
}

// aDatabaseThatStandsStillIsTrustedForMoments freezes the database. For a few seconds replicas answer from memory, and then
// not any more; all is well again without a restart.
func aDatabaseThatStandsStillIsTrustedForMoments(t *testing.T, c *cluster) {
	a := c.replicas[0].now()
	must(t, a.hold(t.Context(), "frozen", "a"))
	kept, _, err := a.mint(t.Context(), "frozen", "kept", "")
	must(t, err)
	gone, _, err := a.mint(t.Context(), "frozen", "gone", "")
	must(t, err)
	for _, r := range c.replicas {
		for _, tok := range []token{kept, gone} {
			if got, err := r.now().decide(t.Context(), tok.secret); err != nil || got != allow {
				t.Fatalf("%s says %s, %v of a new token", r.name, got, err)
			}
		}
	}
	must(t, a.revoke(t.Context(), gone))
	var stops []func() []looked
	for _, r := range c.replicas {
		stops = append(stops, look(t.Context(), r, kept.secret), look(t.Context(), r, gone.secret))
	}
	c.db.Freeze(t)
	frozen := time.Now()
	for _, r := range c.replicas {
		eventually(t, "the replica says that it is not ready", func() bool {
			code, _, err := r.now().get("/readyz")
			return err == nil && code == http.StatusServiceUnavailable
		})
	}
	if silent := time.Since(frozen); silent > bound {
		t.Errorf("replicas are ready %s after the database froze", silent)
	}
	eventually(t, "the outage has lasted", func() bool { return time.Since(frozen) > trust+2*time.Second })
	for _, r := range c.replicas {
		if got := r.now().figure(t, "patd_feed_following"); got != "0" {
			t.Errorf("%s follows the feed of a frozen database: %s", r.name, got)
		}
	}
	thawed := time.Now()
	c.db.Thaw(t)
	recovers(t, c, kept, gone)
	back := time.Since(thawed)
	answered := 0
	for n, stop := range stops {
		for _, one := range stop() {
			during := one.began.After(frozen) && one.ended.Before(thawed)
			switch {
			case one.err != nil && !isOutage(one.err):
				t.Errorf("an outage is told as %v", one.err)
			case one.err != nil:
			case during && one.began.Sub(frozen) > trust:
				t.Errorf("%s after the database froze it is answered with %s, from memory", one.began.Sub(frozen), one.got)
			case n%2 == 0 && one.got != allow, n%2 == 1 && one.got != revoked && (n == 1 || one.got != allow || one.began.Sub(frozen) > bound):
				t.Errorf("%s after the database froze token %d is %s", one.began.Sub(frozen), n, one.got)
			case during:
				answered++
			}
		}
	}
	t.Logf("%d introspections were answered while the database stood still; it was well again %s after", answered, back.Round(time.Millisecond))
	if answered == 0 {
		t.Error("nothing was answered from memory, though the feed had just been heard")
	}
}

// recovers waits until every replica answers and changes again.
func recovers(t *testing.T, c *cluster, kept, gone token) {
	t.Helper()
	for _, r := range c.replicas {
		eventually(t, r.name+" is well again", func() bool {
			first, err := r.now().decide(t.Context(), kept.secret)
			second, err2 := r.now().decide(t.Context(), gone.secret)
			code, _, err3 := r.now().get("/readyz")
			return err == nil && err2 == nil && err3 == nil && first == allow && second == revoked && code == http.StatusOK &&
				r.now().figure(t, "patd_feed_following") == "1" && r.now().hold(t.Context(), kept.user, "a") == nil
		})
	}
}

// occupy takes every connection that the database has left, for somebody else.
func occupy(t *testing.T, c *cluster) (release func()) {
	t.Helper()
	db, err := sql.Open("pgx/v5", c.db.PostgresURL(c.db.Password))
	must(t, err)
	var held []*sql.Conn
	for {
		conn, err := db.Conn(t.Context())
		var full *pgconn.PgError
		if errors.As(err, &full) && full.Code == "53300" { // too_many_connections
			break
		}
		must(t, err)
		held = append(held, conn)
	}
	return func() {
		for _, conn := range held {
			conn.Close()
		}
		db.Close()
	}
}

// withoutConnectionsNothingIsWrong has somebody else take all connections of the database, patd's too when these are cut.
func withoutConnectionsNothingIsWrong(t *testing.T, c *cluster) {
	a := c.replicas[0].now()
	must(t, a.hold(t.Context(), "crowd", "a"))
	kept, _, err := a.mint(t.Context(), "crowd", "kept", "")
	must(t, err)
	gone, _, err := a.mint(t.Context(), "crowd", "gone", "")
	must(t, err)
	must(t, a.revoke(t.Context(), gone))

	// Ended while nothing is left, so that somebody else is there first, whoever is faster.
	var cut int
	release := []func(){occupy(t, c)}
	eventually(t, "patd has no connection", func() bool {
		must(t, c.db.Admin().QueryRowContext(t.Context(), terminateWorkers).Scan(&cut))
		release = append(release, occupy(t, c))
		var left int
		must(t, c.db.Admin().QueryRowContext(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'patd'`).Scan(&left))
		return left == 0
	})
	for _, r := range c.replicas {
		_, _, err := r.now().mint(t.Context(), "crowd", "more", "")
		if status.Code(err) != codes.Unavailable || reason(err) != "STORE_UNAVAILABLE" {
			t.Errorf("%s mints without a connection: %v, reason %q", r.name, err, reason(err))
		}
		if got, err := r.now().decide(t.Context(), gone.secret); err == nil && got != revoked || err != nil && status.Code(err) != codes.Unavailable {
			t.Errorf("%s says %s, %v of a revoked token", r.name, got, err)
		}
		eventually(t, "nothing is answered from memory", func() bool {
			got, err := r.now().decide(t.Context(), kept.secret)
			if err == nil && got != allow || err != nil && status.Code(err) != codes.Unavailable {
				t.Fatalf("%s says %s, %v of a good token", r.name, got, err)
			}
			return err != nil
		})
	}
	for _, f := range release {
		f()
	}
	recovers(t, c, kept, gone)
	if n := len(active(t, c.replicas[0], "crowd")); n != 1 {
		t.Errorf("the user has %d tokens, want the one that was answered", n)
	}
}
