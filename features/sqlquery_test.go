package features_test

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"patd/features"
	"patd/features/featurestest"
	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/internal/tracecontext"
	"patd/tokens"
	"patd/tokens/secret"
)

// limit is the time limit of the sources under test, and within what it allows a busy machine on top.
const (
	limit  = 700 * time.Millisecond
	within = limit + 2*time.Second
	// patience is the limit where a test is not about time.
	patience = 30 * time.Second
	rows     = 500
)

// company is the company's database, as its own programs see it.
type company struct {
	admin       *sql.DB
	placeholder func(n int) string
}

func dollar(n int) string { return fmt.Sprintf("$%d", n) }
func mark(int) string     { return "?" }

func (c company) exec(t *testing.T, statement string, args ...any) {
	t.Helper()
	if _, err := c.admin.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func (c company) hold(t *testing.T, user string, features ...string) {
	t.Helper()
	c.exec(t, "DELETE FROM user_features WHERE user_id = "+c.placeholder(1), user)
	for len(features) > 0 {
		batch := features[:min(200, len(features))]
		features = features[len(batch):]
		var args []any
		var values []string
		for i, f := range batch {
			args = append(args, user, f)
			values = append(values, "("+c.placeholder(2*i+1)+", "+c.placeholder(2*i+2)+")")
		}
		c.exec(t, "INSERT INTO user_features (user_id, feature) VALUES "+strings.Join(values, ", "), args...)
	}
}

func (c company) spoil(t *testing.T, user string, f featurestest.Fault) {
	t.Helper()
	c.hold(t, user, "good")
	var bad any = f.Name()
	if f == featurestest.NotText {
		bad = nil
	}
	c.exec(
		t,
		"INSERT INTO user_features (user_id, feature) VALUES ("+c.placeholder(1)+", "+c.placeholder(2)+")",
		user,
		bad,
	)
}

// stall runs statements on a connection of their own and keeps it until release.
func (c company) stall(t *testing.T, lock, unlock string) (release func()) {
	t.Helper()
	conn, err := c.admin.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for statement := range strings.SplitSeq(lock, ";") {
		if _, err := conn.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	done := false
	return func() {
		if done {
			return
		}
		done = true
		if _, err := conn.ExecContext(context.WithoutCancel(t.Context()), unlock); err != nil {
			t.Errorf("%s: %v", unlock, err)
		}
		conn.Close()
	}
}

func open(t *testing.T, c features.SQLConfig) *features.SQL {
	t.Helper()
	c.Timeout, c.MaxRows = cmp.Or(c.Timeout, limit), rows
	s, err := features.NewSQL(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func secretFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// bareAndCached runs the suite on a source as it is, and through the wrapper that it is used through.
func bareAndCached(t *testing.T, r featurestest.Rig) {
	t.Run("bare", func(t *testing.T) { featurestest.Run(t, r) })
	t.Run("cached", func(t *testing.T) {
		c, err := features.NewCached(
			uncloseable{r.Source},
			features.CacheConfig{Now: time.Now, Timeout: limit + 200*time.Millisecond},
		)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		r.Source = c
		featurestest.Run(t, r)
	})
}

// uncloseable leaves a source open when its cache is closed.
type uncloseable struct{ tokens.FeatureSource }

const postgresQuery = "SELECT feature FROM user_features WHERE user_id = $1"

func TestPostgres(t *testing.T) {
	t.Parallel()
	longtest.Slow(t)
	server := dbtest.Postgres(t)
	c := company{server.Admin(), dollar}
	c.exec(t, "CREATE TABLE user_features (user_id text COLLATE \"C\" NOT NULL, feature text)")
	c.exec(t, "CREATE TABLE numbered (id bigint, feature text)")
	c.exec(
		t,
		"CREATE FUNCTION sneak(u text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO user_features VALUES (u, 'sneaked'); RETURN 'x'; END $$",
	)
	c.exec(
		t,
		"CREATE FUNCTION sneak2(u text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('transaction_read_only', 'off', false); INSERT INTO user_features VALUES (u, 'sneaked'); RETURN 'x'; END $$",
	)
	url, password := secret.NewSecret(server.PostgresURL("")), secretFile(t, server.Password+"\n")
	t.Run("Suite", func(t *testing.T) {
		bareAndCached(t, featurestest.Rig{
			Source: open(t, features.SQLConfig{URL: url, PasswordFile: password, Query: postgresQuery + ";\n"}),
			Hold:   c.hold, Spoil: c.spoil,
			Stall: func(t *testing.T) func() {
				return c.stall(t, "BEGIN; LOCK TABLE user_features IN ACCESS EXCLUSIVE MODE", "ROLLBACK")
			},
			Down: func(t *testing.T) { server.Kill(t) }, Up: func(t *testing.T) { server.Start(t) },
			Max: rows, Within: within,
		})
	})
	t.Run("TraceIsAComment", func(t *testing.T) {
		s := open(
			t,
			features.SQLConfig{
				URL:          url,
				PasswordFile: password,
				Query:        `SELECT coalesce(substring(current_query() FROM '/.traceparent=.([0-9a-f-]+)'), 'none') WHERE $1::text <> '' -- ends in a comment`,
			},
		)
		const sampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
		for parent, want := range map[string]string{sampled: sampled, strings.TrimSuffix(sampled, "1") + "0": "none", "": "none"} {
			held, err := s.Features(
				tracecontext.With(t.Context(), tracecontext.Parse(parent)),
				tokens.User{ID: "alice"},
				true,
			)
			if err != nil || !slices.Equal(held.Features, []string{want}) {
				t.Errorf("in the trace %q the database sees %v, %v; want %s", parent, held.Features, err, want)
			}
		}
	})
	t.Run("Refused", func(t *testing.T) {
		refused(t, features.SQLConfig{URL: url, PasswordFile: password}, map[string]string{
			"":                                  "a query is needed",
			"SELECT feature FROM user_features": "exactly one parameter",
			"SELECT $1::text || $2::text":       "exactly one parameter",
			"SELECT user_id, feature FROM user_features WHERE user_id = $1":  "exactly one column",
			"SELECT feature FROM numbered WHERE id = $1":                     "as text",
			"DELETE FROM user_features WHERE user_id = $1":                   "exactly one column",
			"DELETE FROM user_features WHERE user_id = $1 RETURNING feature": "read-only",
			"SELECT sneak($1)":  "read-only",
			"SELECT sneak2($1)": "read-write",
			"SELECT feature FROM nowhere WHERE user_id = $1": "nowhere",
			postgresQuery + "; DROP TABLE user_features":     "SQLSTATE 42601",
			"SELECT 1 WHERE $1 = ''":                         "must be text",
			"SELECT pg_sleep(60)::text WHERE $1 = ''":        "no answer within",
		})
	})
	t.Run("Ended", func(t *testing.T) {
		endedByServer(
			t,
			c,
			open(t, features.SQLConfig{URL: url, PasswordFile: password, Query: postgresQuery, Timeout: patience}),
			"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name = 'patd'",
		)
	})
	t.Run("Frozen", func(t *testing.T) {
		frozen(t, server, c, open(t, features.SQLConfig{URL: url, PasswordFile: password, Query: postgresQuery}))
	})
	t.Run("Password", func(t *testing.T) {
		passwords(t, server, "postgres", func(p string) string { return server.PostgresURL(p) }, postgresQuery,
			func(p string) {
				c.exec(t, "ALTER USER patd_test PASSWORD '"+p+"'")
				c.exec(
					t,
					"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name = 'patd'",
				)
			})
	})
}

// mysqlQuery compares bytes, by the index all the same: by the column's collation alone, alice and ALICE would be one.
const mysqlQuery = `SELECT f.feature FROM (SELECT ? AS id) AS me
	JOIN user_features AS f ON f.user_id = me.id AND CAST(f.user_id AS BINARY) = CAST(me.id AS BINARY)`

func TestMariaDB(t *testing.T) {
	t.Parallel()
	longtest.Slow(t)
	server := dbtest.MariaDB(t)
	c := company{server.Admin(), mark}
	c.exec(
		t,
		"CREATE TABLE user_features (user_id varchar(255) NOT NULL, feature varchar(1000), KEY (user_id)) CHARACTER SET utf8mb4",
	)
	c.exec(t, "CREATE TABLE numbered (id bigint, feature varchar(100))")
	c.exec(t, "CREATE PROCEDURE sneaky(u varchar(255)) SELECT 'a' INTO OUTFILE 'patd-written.txt'")
	c.exec(
		t,
		"CREATE FUNCTION sneak(u varchar(255)) RETURNS varchar(10) MODIFIES SQL DATA BEGIN INSERT INTO user_features VALUES (u, 'sneaked'); RETURN 'x'; END",
	)
	url, password := secret.NewSecret(server.MySQLURL("")), secretFile(t, server.Password+"\n")
	exact := company{server.Admin(), mark}
	t.Run("Suite", func(t *testing.T) {
		bareAndCached(t, featurestest.Rig{
			Source: open(t, features.SQLConfig{URL: url, PasswordFile: password, Query: mysqlQuery}),
			Hold: func(t *testing.T, user string, features ...string) {
				t.Helper()
				c.exec(t, "DELETE FROM user_features WHERE CAST(user_id AS BINARY) = CAST(? AS BINARY)", user)
				exact.insert(t, user, features...)
			},
			Spoil: func(t *testing.T, user string, f featurestest.Fault) { c.spoil(t, user, f) },
			Stall: func(t *testing.T) func() { return c.stall(t, "LOCK TABLES user_features WRITE", "UNLOCK TABLES") },
			Down:  func(t *testing.T) { server.Kill(t) }, Up: func(t *testing.T) { server.Start(t) },
			Max: rows, Within: within,
		})
	})
	t.Run("Refused", func(t *testing.T) {
		refused(t, features.SQLConfig{URL: url, PasswordFile: password}, map[string]string{
			"SELECT feature FROM user_features":                                                                    "exactly one parameter",
			"SELECT concat(?, ?)":                                                                                  "exactly one parameter",
			"SELECT user_id, feature FROM user_features WHERE user_id = ?":                                         "exactly one column",
			"DELETE FROM user_features WHERE user_id = ?":                                                          "25006",
			"INSERT INTO user_features VALUES (?, 'x')":                                                            "25006",
			"SELECT feature FROM user_features WHERE user_id = ? INTO OUTFILE 'patd-written.txt'":                  "only reads",
			"SELECT feature INTO OUTFILE 'patd-written.txt' FROM user_features WHERE user_id = ?":                  "only reads",
			"SELECT feature FROM user_features WHERE user_id = ? /*! INTO OUTFILE 'patd-written.txt' */":           "only reads",
			"SELECT 'a' FROM (SELECT ?) AS me INTO DUMPFILE 'patd-written.txt' -- ":                                "only reads",
			"SELECT feature FROM user_features WHERE user_id = ? INTO @held":                                       "only reads",
			"SELECT feature FROM user_features WHERE user_id = ? UNION SELECT 'a' INTO OUTFILE 'patd-written.txt'": "only reads",
			"CALL sneaky(?)":  "only reads",
			"SELECT sneak(?)": "25006",
			"SELECT feature FROM nowhere WHERE user_id = ?":                 "nowhere",
			"SELECT feature FROM user_features WHERE user_id = ?; SELECT 1": "42000",
			"SELECT 1 WHERE ? = ''":                                         "must be text",
			"SELECT concat('a', benchmark(100000000000, md5('x')), ?)":      "answer within",
		})
	})
	t.Run("NothingIsWritten", func(t *testing.T) {
		// Were the file there, from a statement above, this would be refused.
		c.exec(t, "SELECT 'a' INTO OUTFILE 'patd-written.txt'")
	})
	t.Run("Ended", func(t *testing.T) {
		endedByServer(
			t,
			c,
			open(t, features.SQLConfig{URL: url, PasswordFile: password, Query: mysqlQuery, Timeout: patience}),
			"BEGIN NOT ATOMIC DECLARE CONTINUE HANDLER FOR 1094 BEGIN END; "+ // one that has ended by itself
				"FOR c IN (SELECT id FROM information_schema.processlist WHERE user = 'patd_test' AND id <> connection_id()) DO KILL c.id; END FOR; END",
		)
	})
	t.Run("ServerEndsTheStatement", func(t *testing.T) {
		// The one that computes for an hour, above: the client only hung up, the server's own limit ends it.
		n, deadline := 1, time.Now().Add(15*time.Second)
		for n > 0 {
			err := c.admin.QueryRowContext(t.Context(), "SELECT count(*) FROM information_schema.processlist WHERE info LIKE '%benchmark(1%' AND id <> connection_id()").
				Scan(&n)
			if err != nil || time.Now().After(deadline) {
				t.Fatalf("%d statements run on after their time limit, %v", n, err)
			}
		}
	})
	t.Run("Frozen", func(t *testing.T) {
		frozen(t, server, c, open(t, features.SQLConfig{URL: url, PasswordFile: password, Query: mysqlQuery}))
	})
	t.Run("Password", func(t *testing.T) {
		passwords(t, server, "mysql", func(p string) string { return server.MySQLURL(p) }, mysqlQuery,
			func(p string) {
				c.exec(t, "ALTER USER patd_test@'%' IDENTIFIED BY '"+p+"'")
				c.exec(
					t,
					"BEGIN NOT ATOMIC DECLARE CONTINUE HANDLER FOR 1094 BEGIN END; "+ // one that has ended by itself
						"FOR c IN (SELECT id FROM information_schema.processlist WHERE user = 'patd_test' AND id <> connection_id()) DO KILL c.id; END FOR; END",
				)
			})
	})
}

func (c company) insert(t *testing.T, user string, features ...string) {
	t.Helper()
	for _, f := range features {
		c.exec(t, "INSERT INTO user_features (user_id, feature) VALUES (?, ?)", user, f)
	}
}

func TestSQLite(t *testing.T) {
	t.Parallel()
	longtest.Slow(t)
	path := filepath.Join(t.TempDir(), "company?100%#.db")
	escaped := strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path)
	// A question that outlives its caller may still be reading, so the company's own writers wait, as they should.
	admin, err := sql.Open("sqlite", "file:"+escaped+"?_busy_timeout=10000")
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	admin.SetMaxIdleConns(-1)
	c := company{admin, mark}
	c.exec(t, "CREATE TABLE user_features (user_id TEXT NOT NULL, feature TEXT)")
	url := secret.NewSecret("sqlite:" + path)
	const query = "SELECT feature FROM user_features WHERE user_id = ? -- the user"
	t.Run("Suite", func(t *testing.T) {
		bareAndCached(t, featurestest.Rig{
			Source: open(t, features.SQLConfig{URL: url, Query: query}),
			Hold:   c.hold,
			Spoil:  c.spoil,
			Stall:  func(t *testing.T) func() { return c.stall(t, "BEGIN EXCLUSIVE", "ROLLBACK") },
			Down:   func(t *testing.T) { rename(t, path, path+".away") },
			Up:     func(t *testing.T) { rename(t, path+".away", path) },
			Max:    rows,
			Within: within,
		})
	})
	t.Run("Refused", func(t *testing.T) {
		refused(t, features.SQLConfig{URL: url}, map[string]string{
			"SELECT feature FROM user_features": "exactly one parameter",
			"SELECT ? || ?":                     "exactly one parameter",
			"SELECT user_id, feature FROM user_features WHERE user_id = ?":                                           "exactly one column",
			"DELETE FROM user_features WHERE user_id = ?":                                                            "syntax error",
			"DELETE FROM user_features WHERE user_id = ? RETURNING feature":                                          "syntax error",
			"SELECT feature FROM user_features WHERE user_id = ?; DROP TABLE x":                                      "syntax error",
			"SELECT 1); DROP TABLE user_features; SELECT (?":                                                         "READONLY",
			"PRAGMA query_only = 0":                                                                                  "syntax error",
			"SELECT feature FROM nowhere WHERE user_id = ?":                                                          "nowhere",
			"SELECT 1 WHERE ? = ''":                                                                                  "must be text",
			"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT 'a' FROM n WHERE i < 0 AND ? = ''": "no answer within",
		})
		n := 0
		if err := admin.QueryRowContext(t.Context(), "SELECT count(*) FROM user_features").
			Scan(&n); err != nil ||
			n == 0 {
			t.Errorf("the table is gone or empty: %d, %v", n, err)
		}
	})
	t.Run("MissingFileIsNotMade", func(t *testing.T) {
		missing := filepath.Join(t.TempDir(), "none.db")
		if _, err := features.NewSQL(
			t.Context(),
			features.SQLConfig{URL: secret.NewSecret("sqlite:" + missing), Query: query},
		); err == nil {
			t.Error("a missing file was opened")
		}
		if _, err := os.Stat(missing); err == nil {
			t.Error("a missing file was made")
		}
	})
	t.Run("ReplacedFileCounts", func(t *testing.T) {
		s := open(t, features.SQLConfig{URL: url, Query: query})
		r := featurestest.Rig{Source: s}
		c.hold(t, "replaced", "old")
		asked(t, r.Source, "replaced", "old")
		copyFile(t, path, path+".new")
		rename(t, path, path+".old")
		rename(t, path+".new", path)
		c.hold(t, "replaced", "new")
		asked(t, r.Source, "replaced", "new")
	})
}

// TestOpenFollowsTheCompanysTable is the source as the server uses it: a row goes, the feature goes within the TTL, at
// once after Forget, and comes back with the row.
func TestOpenFollowsTheCompanysTable(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "company.db")
	admin, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	c := company{admin, mark}
	c.exec(t, "CREATE TABLE user_features (user_id TEXT NOT NULL, feature TEXT)")
	c.hold(t, "alice", "a", "b")
	now := time.Now()
	s, err := features.Open(t.Context(), features.Config{
		Kind: features.KindSQL,
		SQL: features.SQLConfig{
			URL:   secret.NewSecret("sqlite:" + path),
			Query: "SELECT feature FROM user_features WHERE user_id = ?",
		},
		Cache: features.CacheConfig{Now: func() time.Time { return now }},
	})
	if err != nil {
		t.Fatal(err)
	}
	holds := func(want ...string) {
		t.Helper()
		held, err := s.Features(t.Context(), tokens.User{ID: "alice"}, false)
		if err != nil || held.Stale || !slices.Equal(held.Features, want) {
			t.Fatalf("got %v, %v; want %v", held, err, want)
		}
	}
	holds("a", "b")
	c.hold(t, "alice", "b")
	holds("a", "b")
	now = now.Add(30 * time.Second)
	holds("b")
	c.hold(t, "alice", "a", "b")
	s.Forget("alice")
	holds("a", "b")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	held, err := s.Features(t.Context(), tokens.User{ID: "alice"}, true)
	isOutage(t, held, err)
}
