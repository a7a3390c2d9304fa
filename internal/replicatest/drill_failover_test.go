package replicatest

import (
	"database/sql"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/internal/waittest"
	"patd/tokens"
)

// The drills practise bad days for minutes, with real processes: `make drills`. Each logs its figures.

// drillFor is how long clients work before and after what befalls a drill; PATD_DRILL says otherwise.
const drillFor = 10 * time.Second

// lets waits for as long as clients shall work.
func lets(t *testing.T) {
	t.Helper()
	d := lasting(t, "PATD_DRILL", drillFor)
	began := time.Now()
	waittest.Within(t, patience, "clients have worked for "+d.String(), func() bool { return time.Since(began) > d })
}

// allReady waits until all replicas say that they are.
func (c *cluster) allReady(t *testing.T) {
	t.Helper()
	for _, r := range c.replicas {
		waittest.Within(t, patience, r.name+" is ready", func() bool {
			code, _, err := r.now().get("/readyz")
			return err == nil && code == 200
		})
	}
}

// failover is a primary with a standby, and replicas that know both.
func failover(t *testing.T) (*cluster, *dbtest.Server) {
	t.Helper()
	// As many connections as the standby takes, which may not take fewer.
	primary := dbtest.Postgres(t, "max_connections=100")
	standby := dbtest.Standby(t, primary, "second")
	c := newStore(t, primary, "patd")
	for n := range 3 {
		c.add(n, primary.Addr()+","+standby.Addr())
	}
	c.startAll()
	return c, standby
}

// TestDrillSynchronousStandby kills a primary under load whose synchronous standby takes over: no change that was
// answered is lost.
func TestDrillSynchronousStandby(t *testing.T) {
	longtest.Drill(t)
	c, standby := failover(t)
	primary := c.db
	for _, statement := range []string{`ALTER SYSTEM SET synchronous_standby_names = 'second'`, `SELECT pg_reload_conf()`} {
		_, err := primary.Admin().ExecContext(t.Context(), statement)
		must(t, err)
	}
	waittest.Within(t, patience, "the standby is synchronous", func() bool {
		var state string
		err := primary.Admin().QueryRowContext(t.Context(), `SELECT sync_state FROM pg_stat_replication`).Scan(&state)
		return err == nil && state == "sync"
	})
	s := startShift(t, c, 6)
	lets(t)
	before := s.answered.Load()
	primary.Kill(t)
	killed := time.Now()
	standby.Promote(t)
	c.db = standby
	waittest.Within(
		t,
		patience,
		"a change is answered again",
		func() bool { return s.answered.Load() > before+6 },
	) // one of each may have been on its way
	away := time.Since(killed)
	lets(t)
	made := s.end()
	c.allReady(t)
	s.verify(t)
	for _, r := range c.replicas {
		if text := r.daemon().Log.String(); strings.Contains(text, lostChanges) {
			t.Errorf("%s says that changes were lost:\n%s", r.name, text)
		}
	}
	t.Logf(
		"figures: %d tokens; changes were answered again %s after the kill; %s",
		made,
		away.Round(time.Millisecond),
		&s.counts,
	)
}

// lostChanges is what a server logs of a database that has gone back; then come the positions.
const lostChanges = "the database has lost changes"

var lostRange = regexp.MustCompile(lostChanges + `.*?first"?[:=](\d+).*?last"?[:=](\d+)`)

// doing is what a client was answered, in the order of the answers.
type doing struct {
	mu    sync.Mutex
	dones []done
}

// done is a token that was minted or revoked.
type done struct {
	token
	revoked bool
	at      time.Time
}

func (d *doing) add(tok token, revoked bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dones = append(d.dones, done{tok, revoked, time.Now()})
}

// count returns how many changes were answered.
func (d *doing) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.dones)
}

// keepDoing mints and revokes until it is stopped, whatever fails.
func keepDoing(t *testing.T, c *cluster, clients int) (d *doing, stop func()) {
	t.Helper()
	d = &doing{}
	var ended atomic.Bool
	var g sync.WaitGroup
	for n := range clients {
		user := fmt.Sprint("client-", n)
		must(t, c.replicas[0].now().hold(t.Context(), user, "a"))
		g.Go(func() {
			pause := time.NewTicker(pace)
			defer pause.Stop()
			for i := 0; !ended.Load(); i++ {
				<-pause.C
				a := c.replicas[i%len(c.replicas)].now()
				tok, _, err := a.mint(t.Context(), user, fmt.Sprint(n, "-", i), "")
				if err != nil {
					continue
				}
				d.add(tok, false)
				if a.revoke(t.Context(), tok) == nil {
					d.add(tok, true)
				}
			}
		})
	}
	return d, func() { ended.Store(true); g.Wait() }
}

// TestDrillAsynchronousStandby kills a primary under load whose standby is behind. What is lost is what the standby had
// not received, and nothing else; each server names the positions that it had seen there.
func TestDrillAsynchronousStandby(t *testing.T) {
	longtest.Drill(t)
	c, standby := failover(t)
	primary := c.db
	d, stop := keepDoing(t, c, 6)
	lets(t)
	standby.Kill(t) // one that only stands still would find the rest in its socket
	away := time.Now()
	waittest.Within(t, patience, "the standby is behind", func() bool { return time.Since(away) > 2*time.Second })
	primary.Kill(t)
	standby.Start(t)
	standby.Promote(t)
	c.db = standby
	c.allReady(t)
	lets(t)
	stop()
	var said []string
	for _, r := range c.replicas {
		running := r.daemon()
		r.stop()
		said = append(said, running.Log.String())
	}
	if got := c.run("check", "--hash-key-file", c.key); !strings.HasPrefix(got, "ok: ") {
		t.Errorf("check: %s", got)
	}
	wholeChanges(t, c)

	// No server is left that the old primary could get in the way of.
	primary.Start(t)
	had, has := feedOf(t, primary.Admin(), c.schema), feedOf(t, standby.Admin(), c.schema)
	fork := int64(1)
	for had[fork] == has[fork] && had[fork] != "" {
		fork++
	}
	lost := 0
	for seq := range had {
		if seq >= fork {
			lost++
		}
	}
	old, now := eventsOf(t, primary.Admin(), c.schema), eventsOf(t, standby.Admin(), c.schema)
	early, gone := 0, 0
	for _, one := range d.dones {
		key := fmt.Sprint(one.id, " ", one.revoked)
		switch {
		case now[key]:
			if one.at.Before(away) {
				early++
			}
		case one.at.Before(away.Add(-time.Second)):
			t.Errorf("%s, answered %s before the standby fell behind, is lost", key, away.Sub(one.at))
		case !old[key]:
			t.Errorf("%s was answered, and is in neither database", key)
		default:
			gone++
		}
	}
	if lost == 0 || gone == 0 || early == 0 {
		t.Errorf("%d changes are lost, %d of them answered, %d stand: the drill proves nothing", lost, gone, early)
	}
	newest := int64(0)
	for n, text := range said {
		m := lostRange.FindStringSubmatch(text)
		if m == nil {
			t.Errorf("server %d does not say that changes are lost; it said\n%s", n, text)
			continue
		}
		first, _ := strconv.ParseInt(m[1], 10, 64)
		last, _ := strconv.ParseInt(m[2], 10, 64)
		if _, there := had[last]; first != fork || !there {
			t.Errorf("server %d says that %d to %d are lost; the first is %d", n, first, last, fork)
		}
		newest = max(newest, last)
	}
	t.Logf(
		"figures: the standby lacked %d changes, from position %d on; %d had been answered, and %d from before stand; servers name positions up to %d",
		lost,
		fork,
		gone,
		early,
		newest,
	)
}

// feedOf reads the change feed of a database: what stands at each position.
func feedOf(t *testing.T, db *sql.DB, schema string) map[int64]string {
	t.Helper()
	feed := map[int64]string{}
	rows, err := db.QueryContext(
		t.Context(),
		`SELECT seq, format('%s %s %s %s', time_us, token_id, "user", service) FROM `+schema+`.changes`,
	)
	must(t, err)
	defer rows.Close()
	for rows.Next() {
		var seq int64
		var what string
		must(t, rows.Scan(&seq, &what))
		feed[seq] = what
	}
	must(t, rows.Err())
	return feed
}

// eventsOf reads which tokens were minted and revoked, from the audit log, as id and whether it was revoked.
func eventsOf(t *testing.T, db *sql.DB, schema string) map[string]bool {
	t.Helper()
	events := map[string]bool{}
	rows, err := db.QueryContext(
		t.Context(),
		`SELECT token_id, action FROM `+schema+`.events WHERE outcome = 1 AND action IN ('token.create', 'token.revoke')`,
	)
	must(t, err)
	defer rows.Close()
	for rows.Next() {
		var id int64
		var action string
		must(t, rows.Scan(&id, &action))
		events[fmt.Sprint(tokens.ID(id), " ", action == "token.revoke")] = true
	}
	must(t, rows.Err())
	return events
}
