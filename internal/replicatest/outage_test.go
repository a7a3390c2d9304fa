package replicatest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/internal/waittest"
)

// TestAnOutageIsNeverAWrongAnswer holds guarantees of replicas whose database stands still, is full, or is cut off from
// them.
func TestAnOutageIsNeverAWrongAnswer(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	c := newClusterBehind(t, dbtest.Postgres(t), "patd", 3)
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

// aDatabaseThatStandsStillIsTrustedForMoments freezes the database. For a few seconds replicas answer from memory, and
// then not any more; all is well again without a restart.
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
		waittest.Within(t, patience, "the replica says that it is not ready", func() bool {
			code, _, err := r.now().get("/readyz")
			return err == nil && code == http.StatusServiceUnavailable
		})
	}
	waittest.Within(
		t,
		patience,
		"the outage has lasted",
		func() bool { return time.Since(frozen) > trust+2*time.Second },
	)
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
				t.Errorf(
					"%s after the database froze it is answered with %s, from memory",
					one.began.Sub(frozen),
					one.got,
				)
			case n%2 == 0 && one.got != allow,
				n%2 == 1 && one.got != revoked && (n == 1 || one.got != allow || one.began.Sub(frozen) > bound):
				t.Errorf("%s after the database froze token %d is %s", one.began.Sub(frozen), n, one.got)
			case during:
				answered++
			}
		}
	}
	t.Logf(
		"%d introspections were answered while the database stood still; it was well again %s after",
		answered,
		back.Round(time.Millisecond),
	)
	if answered == 0 {
		t.Error("nothing was answered from memory, though the feed had just been heard")
	}
}

// recovers waits until every replica answers and changes again.
func recovers(t *testing.T, c *cluster, kept, gone token) {
	t.Helper()
	for _, r := range c.replicas {
		waittest.Within(t, patience, r.name+" is well again", func() bool {
			first, err := r.now().decide(t.Context(), kept.secret)
			second, err2 := r.now().decide(t.Context(), gone.secret)
			code, _, err3 := r.now().get("/readyz")
			return err == nil && err2 == nil && err3 == nil && first == allow && second == revoked &&
				code == http.StatusOK &&
				r.now().figure(t, "patd_feed_following") == "1" &&
				r.now().hold(t.Context(), kept.user, "a") == nil
		})
	}
}

// crowd is somebody else who takes all connections of a database.
type crowd struct {
	cluster *cluster
	admin   *sql.Conn // one that is never given back, as no other is
	db      *sql.DB
	held    []*sql.Conn
}

func newCrowd(t *testing.T, c *cluster) *crowd {
	t.Helper()
	admin, err := c.db.Admin().Conn(t.Context())
	must(t, err)
	db, err := sql.Open("pgx/v5", c.db.PostgresURL(c.db.Password))
	must(t, err)
	return &crowd{cluster: c, admin: admin, db: db}
}

// push ends patd's connections and takes every one that is left. A connection that patd was just making may still get
// through.
func (w *crowd) push(t *testing.T) {
	t.Helper()
	var cut int
	must(t, w.admin.QueryRowContext(t.Context(), terminateWorkers).Scan(&cut))
	for {
		conn, err := w.db.Conn(t.Context())
		var full *pgconn.PgError
		if errors.As(err, &full) && full.Code == "53300" { // too_many_connections
			return
		}
		must(t, err)
		w.held = append(w.held, conn)
	}
}

func (w *crowd) leave() {
	for _, conn := range w.held {
		conn.Close()
	}
	w.db.Close()
	w.admin.Close()
}

// withoutConnectionsNothingIsWrong has somebody else take all connections of the database, patd's too.
func withoutConnectionsNothingIsWrong(t *testing.T, c *cluster) {
	a := c.replicas[0].now()
	must(t, a.hold(t.Context(), "crowd", "a"))
	kept, _, err := a.mint(t.Context(), "crowd", "kept", "")
	must(t, err)
	gone, _, err := a.mint(t.Context(), "crowd", "gone", "")
	must(t, err)
	must(t, a.revoke(t.Context(), gone))

	w := newCrowd(t, c)
	defer w.leave()
	made, doubtful := 1, 0
	for n, r := range c.replicas {
		tries := 0
		waittest.Within(t, patience, "a mint fails for want of a connection", func() bool {
			w.push(t)
			tries++
			switch _, _, err := r.now().mint(t.Context(), "crowd", fmt.Sprint("more ", n, tries), ""); {
			case err == nil:
				made++
			case status.Code(err) != codes.Unavailable:
				t.Fatalf("%s mints without a connection: %v", r.name, err)
			case reason(err) == "STORE_UNAVAILABLE":
				return true
			default:
				doubtful++
			}
			return false
		})
		waittest.Within(t, patience, "nothing is answered from memory", func() bool {
			w.push(t)
			got, err := r.now().decide(t.Context(), kept.secret)
			other, err2 := r.now().decide(t.Context(), gone.secret)
			if err == nil && got != allow || err2 == nil && other == allow && n == 0 {
				t.Fatalf("%s says %s of a good token, and %s of a revoked one", r.name, got, other)
			}
			for _, err := range []error{err, err2} {
				if err != nil && !isOutage(err) {
					t.Fatalf("%s tells of an outage as %v", r.name, err)
				}
			}
			return err != nil
		})
	}
	w.leave()
	recovers(t, c, kept, gone)
	if n := len(active(t, c.replicas[0], "crowd")); n < made || n > made+doubtful {
		t.Errorf("the user has %d tokens; %d were answered, and of %d nobody knew", n, made, doubtful)
	}
}
