package main

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"

	"patd/internal/dbtest"
	"patd/internal/waittest"
)

// hospital is a PostgreSQL that keeps what it is told to, in which there is a store.
type hospital struct {
	server *dbtest.Server
	url    string
	key    string
}

// admits makes the store of a patient one in the PostgreSQL, through an address.
func (h *hospital) admits(p *patient, addr string) {
	p.env["PATD_DATABASE_URL"] = strings.Replace(h.url, h.server.Addr(), addr, 1)
	p.args = []string{"--hash-key-file", h.key}
}

// runs has the server's administrator run statements.
func (h *hospital) runs(t *testing.T, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := h.server.Admin().ExecContext(context.WithoutCancel(t.Context()), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// connects opens connections as programs of a name have them, until the test ends.
func (h *hospital) connects(t *testing.T, n int, name string) {
	t.Helper()
	db, err := sql.Open(
		"pgx",
		h.server.PostgresURL(h.server.Password)+"&application_name="+strings.ReplaceAll(name, " ", "%20"),
	)
	mustDo(t, err)
	t.Cleanup(func() {
		mustDo(t, db.Close())
		waittest.Until(t, "the server knows of no connection of "+name, func() bool {
			var left int
			err := h.server.Admin().
				QueryRow(`SELECT count(*) FROM pg_stat_activity WHERE application_name = $1`, name).
				Scan(&left)
			return err == nil && left == 0
		})
	})
	for range n {
		c, err := db.Conn(t.Context())
		mustDo(t, err)
		t.Cleanup(func() { c.Close() })
		mustDo(t, c.PingContext(t.Context()))
	}
}

// synchronous names the standbys that changes wait for, for as long as the test lasts.
func (h *hospital) synchronous(t *testing.T, names string) {
	t.Helper()
	set := func(names string) {
		h.runs(t, `ALTER SYSTEM SET synchronous_standby_names = '`+names+`'`, `SELECT pg_reload_conf()`)
		waittest.Until(t, "synchronous_standby_names is "+names, func() bool {
			var has string
			err := h.server.Admin().QueryRow(`SHOW synchronous_standby_names`).Scan(&has)
			return err == nil && has == names
		})
	}
	set(names)
	t.Cleanup(func() { set("") })
}

// session sets what sessions of the user begin with, for as long as the test lasts.
func (h *hospital) session(t *testing.T, name, value string) {
	t.Helper()
	h.runs(t, `ALTER ROLE `+h.server.User+` SET `+name+` = `+value)
	t.Cleanup(func() { h.runs(t, `ALTER ROLE `+h.server.User+` RESET `+name) })
}

// postgresSymptoms are those of a database; h is nil for who only looks what there is.
func postgresSymptoms(h *hospital) []symptom {
	return append(lonelySymptoms(h), []symptom{
		{
			"a standby that may be behind",
			"replication",
			levelWarning,
			"no standby is synchronous: one that is promoted lacks the last changes, revocations too",
			"",
			"set synchronous_standby_names, so that a promoted standby has every answered change; or replay an export of events onto it",
			func(*testing.T, *patient) {},
		},
		{
			"changes that do not wait for the standby",
			"database",
			levelProblem,
			"synchronous_commit is local: a standby that is promoted may lack answered changes",
			"",
			"set synchronous_commit = on",
			func(t *testing.T, _ *patient) {
				h.synchronous(t, "second")
				h.session(t, "synchronous_commit", "local")
			},
		},
	}...)
}

// lonelySymptoms are those of a database without a standby.
func lonelySymptoms(h *hospital) []symptom {
	return []symptom{
		{
			"no standby",
			"replication",
			levelWarning,
			"there is no standby",
			"",
			"set up a standby, or keep backups and an export of events",
			func(*testing.T, *patient) {},
		},
		{
			"a standby that is away",
			"replication",
			levelProblem,
			"synchronous_standby_names is %q, and no standby is connected",
			"second",
			"bring the standby back; changes wait until then",
			func(t *testing.T, _ *patient) { h.synchronous(t, "second") },
		},
		{
			"changes that are answered early",
			"database",
			levelProblem,
			"%s is off: %s",
			"synchronous_commit is off: a crash loses answered changes",
			"set synchronous_commit = on",
			func(t *testing.T, _ *patient) { h.session(t, "synchronous_commit", "off") },
		},
		{"no connections left", "database", levelWarning, "%d of %d connections are left", "of 40",
			"raise max_connections, lower --database-connections, or put PgBouncer in between in session mode",
			func(t *testing.T, _ *patient) { h.connects(t, 31, "another program") }},
		{
			"servers of two versions",
			"versions",
			levelWarning,
			"servers of %d versions are connected: %s",
			"v0.0.1",
			"end the upgrade: replace the servers of the earlier version",
			func(t *testing.T, _ *patient) { h.connects(t, 1, "patd v0.0.1"); h.connects(t, 1, "patd v0.0.2") },
		},
		{
			"a clock that is not the database's",
			"clock",
			levelWarning,
			"the database's clock is %s from this one",
			"",
			"synchronize the clocks of all servers (NTP): they decide about expiry",
			later(time.Minute),
		},
		{"a pooler that shares sessions", "store", levelProblem, "%v", "pool_mode = session", mended,
			func(t *testing.T, p *patient) {
				h.admits(p, dbtest.PgBouncer(t, h.server, "transaction").Addr())
			}},
	}
}
