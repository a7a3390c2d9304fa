package replicatest

import (
	"context"
	"database/sql"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/internal/proctest"
	"patd/internal/waittest"
)

// TestDrillPooler works through PgBouncer in session mode, which is killed and comes back: no answered change is lost.
// In its other modes no server starts.
func TestDrillPooler(t *testing.T) {
	longtest.Drill(t)
	db := dbtest.Postgres(t, "max_connections=100")
	c := newStore(t, db, "patd")
	pooler := dbtest.PgBouncer(t, db, "session")
	for n := range 3 {
		c.add(n, pooler.Addr())
	}
	c.startAll()
	s := startShift(t, c, 6)
	lets(t)
	pooler.Kill(t)
	pooler.Start(t)
	lets(t)
	made := s.end()
	c.allReady(t)
	s.verify(t)
	t.Logf("figures: %d tokens; %s", made, &s.counts)
	for _, mode := range []string{"transaction", "statement"} {
		there := *c
		there.db = dbtest.PgBouncer(t, db, mode)
		if said := refusesToServe(t, c.path, &there); !strings.Contains(said, "pool_mode = session") {
			t.Errorf("behind a pooler in %s mode it says\n%s", mode, said)
		}
	}
}

// TestDrillNoConnections has others take every connection of the database while clients work: they are told of an
// outage, and no change that was answered is lost.
func TestDrillNoConnections(t *testing.T) {
	longtest.Drill(t)
	c := newCluster(t, dbtest.Postgres(t), "patd", 3)
	s := startShift(t, c, 6)
	lets(t)
	crowd := newCrowd(t, c)
	began := time.Now()
	for waittest.Within(t, patience, "others hold all connections", func() bool { crowd.push(t); return true }); time.Since(began) < lasting(t, "PATD_DRILL", drillFor); {
		crowd.push(t)
	}
	refused := s.refused.Load()
	crowd.leave()
	c.allReady(t)
	lets(t)
	made := s.end()
	s.verify(t)
	if refused == 0 {
		t.Error("no call was refused for want of a connection: the drill proves nothing")
	}
	t.Logf("figures: %d tokens, %d connections taken; %s", made, len(crowd.held), &s.counts)
}

// TestDrillDiskFull fills the disk of the database while clients work, and makes room again.
func TestDrillDiskFull(t *testing.T) {
	longtest.Drill(t)
	db := dbtest.PostgresOnDisk(t, 160<<20)
	c := newCluster(t, db, "patd", 3)
	s := startShift(t, c, 6)
	lets(t)
	before := s.answered.Load()
	empty := db.FillDisk(t)
	waittest.Within(t, patience, "changes are refused", func() bool { return s.refused.Load() > 0 })
	lets(t)
	during := s.answered.Load() - before
	empty()
	if err := db.Admin().PingContext(t.Context()); err != nil {
		db.Kill(t) // it has ended itself, as who watches over it would see
		db.Start(t)
	}
	c.allReady(t)
	lets(t)
	made := s.end()
	s.verify(t)
	t.Logf("figures: %d tokens; %d changes were answered since the disk began to be full; %s", made, during, &s.counts)
}

// TestDrillNewServer moves a store to a server of a newer version of PostgreSQL by logical replication, with clients at
// work until the cut-over and after it.
func TestDrillNewServer(t *testing.T) {
	longtest.Drill(t)
	versions := dbtest.Versions(t, "../dbtest")
	newest, bin := "", ""
	for version, dir := range versions {
		if version > newest {
			newest, bin = version, dir
		}
	}
	old := dbtest.Postgres(t, "max_connections=100", "wal_level=logical")
	c := newCluster(t, old, "patd", 3)
	s := startShift(t, c, 6)
	lets(t)
	next := dbtest.PostgresOf(t, bin, "max_connections=100", "wal_level=logical")
	copySchema(t, old, next, c.schema)
	// Tables without a key are replicated by all their columns.
	exec1(t, old.Admin(), `DO $$ DECLARE r record; BEGIN FOR r IN SELECT c.oid::regclass AS name FROM pg_class c
WHERE c.relnamespace = 'patd'::regnamespace AND c.relkind = 'r' AND NOT EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
LOOP EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', r.name); END LOOP; END $$`)
	exec1(t, old.Admin(), `CREATE PUBLICATION patd FOR TABLES IN SCHEMA patd`)
	exec1(
		t,
		next.Admin(),
		fmt.Sprintf(
			`CREATE SUBSCRIPTION patd CONNECTION 'host=%s port=%s user=%s password=%s dbname=%s' PUBLICATION patd`,
			old.Host,
			old.Port,
			old.User,
			old.Password,
			old.Database,
		),
	)
	waittest.Within(t, patience, "all tables are copied", func() bool {
		var left int
		err := next.Admin().
			QueryRowContext(t.Context(), `SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'`).
			Scan(&left)
		return err == nil && left == 0
	})
	lets(t)

	// The cut-over: no server runs while the new one receives the rest.
	began := time.Now()
	for _, r := range c.replicas {
		r.stop()
	}
	var end string
	must(t, old.Admin().QueryRowContext(t.Context(), `SELECT pg_current_wal_lsn()::text`).Scan(&end))
	waittest.Within(t, patience, "the new server has the rest", func() bool {
		var there bool
		err := old.Admin().
			QueryRowContext(t.Context(), `SELECT coalesce(bool_and(confirmed_flush_lsn >= $1::text::pg_lsn), false)
FROM pg_replication_slots WHERE slot_name = 'patd'`, end).
			Scan(&there)
		return err == nil && there
	})
	exec1(t, next.Admin(), `DROP SUBSCRIPTION patd`)
	c.db = next
	// Sequences are not replicated; check says so, and mends them.
	if said, err := run(
		c.path,
		c.env(next.Addr()),
		"check",
		"--hash-key-file",
		c.key,
	); err == nil ||
		!strings.Contains(err.Error(), "--repair-positions") {
		t.Errorf("check of the new server: %s, %v", said, err)
	}
	c.run("check", "--repair-positions", "--hash-key-file", c.key)
	for _, r := range c.replicas {
		r.at = next.Addr()
	}
	c.startAll()
	away := time.Since(began)
	lets(t)
	made := s.end()
	s.verify(t)
	var version string
	must(t, next.Admin().QueryRowContext(t.Context(), `SHOW server_version`).Scan(&version))
	t.Logf(
		"figures: %d tokens, moved to PostgreSQL %s; %s without a server; %s",
		made,
		version,
		away.Round(10*time.Millisecond),
		&s.counts,
	)
}

func exec1(t *testing.T, db *sql.DB, statement string) {
	t.Helper()
	_, err := db.ExecContext(t.Context(), statement)
	must(t, err)
}

// copySchema makes the tables of a schema on another server, by pg_dump and psql.
func copySchema(t *testing.T, from, to *dbtest.Server, schema string) {
	t.Helper()
	tool := func(name string, of *dbtest.Server, args ...string) *exec.Cmd {
		found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
		if len(found) == 0 {
			proctest.Missing(t, name)
		}
		cmd := exec.CommandContext(
			t.Context(),
			found[len(found)-1],
			append(args, "-h", of.Host, "-p", of.Port, "-U", of.User, of.Database)...)
		cmd.Env = append(cmd.Environ(), "PGPASSWORD="+of.Password)
		return cmd
	}
	dump, err := tool("pg_dump", from, "--schema-only", "--schema", schema).Output()
	must(t, err)
	psql := tool("psql", to, "-q", "-v", "ON_ERROR_STOP=1")
	psql.Stdin = strings.NewReader(string(dump))
	if out, err := psql.CombinedOutput(); err != nil {
		t.Fatalf("psql: %v\n%s", err, out)
	}
}

// TestDrillFrozenServer stops a server for a minute, and has another revoke what it knows. When it runs again, what was
// asked of it meanwhile and what is asked now is refused.
func TestDrillFrozenServer(t *testing.T) {
	longtest.Drill(t)
	c := newCluster(t, dbtest.Postgres(t), "patd", 2)
	still, other := c.replicas[1], c.replicas[0]
	var made []token
	for n := range 200 {
		user := fmt.Sprint("still-", n/50)
		if n%50 == 0 {
			must(t, other.now().hold(t.Context(), user, "a"))
		}
		tok, _, err := other.now().mint(t.Context(), user, fmt.Sprint(n), "")
		must(t, err)
		made = append(made, tok)
		for range 2 {
			if got, err := still.now().decide(t.Context(), tok.secret); err != nil || got != allow {
				t.Fatalf("a new token is %s, %v", got, err)
			}
		}
	}
	still.daemon().freeze(t)
	began := time.Now()
	for _, tok := range made {
		must(t, other.now().revoke(t.Context(), tok))
	}
	waittest.Within(
		t,
		patience,
		"a minute is nearly over",
		func() bool { return time.Since(began) > lasting(t, "PATD_DRILL_FROZEN", 55*time.Second) },
	)
	var refused, outage atomic.Int64
	ask := func(when string) (wait func()) {
		answers := make(chan string, len(made))
		for _, tok := range made {
			go func() {
				switch got, err := still.now().decide(context.WithoutCancel(t.Context()), tok.secret); {
				case err == nil && got == revoked:
					refused.Add(1)
					answers <- ""
				case err != nil && isOutage(err):
					outage.Add(1)
					answers <- ""
				default:
					answers <- fmt.Sprintf("%s, a token that was revoked while the server stood still is %s, %v", when, got, err)
				}
			}()
		}
		return func() {
			for range made {
				if said := <-answers; said != "" {
					t.Error(said)
				}
			}
		}
	}
	wait := ask("asked while it stood still")
	waittest.Within(
		t,
		patience,
		"a minute is over",
		func() bool { return time.Since(began) > lasting(t, "PATD_DRILL_FROZEN", 55*time.Second)+5*time.Second },
	)
	still.daemon().thaw(t)
	now := ask("asked when it ran again")
	wait()
	now()
	waittest.Within(t, patience, "it answers again", func() bool {
		got, err := still.now().decide(t.Context(), made[0].secret)
		return err == nil && got == revoked
	})
	t.Logf(
		"figures: after %s, %d of %d were refused at once, and %d got an outage",
		time.Since(began).Round(time.Second),
		refused.Load(),
		2*len(made),
		outage.Load(),
	)
}
