package replicatest

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/tokens/secret"
)

// TestUpgradesGoRound holds what is promised to whoever upgrades one replica after the other.
func TestUpgradesGoRound(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	db := dbtest.Postgres(t)
	for _, g := range []struct {
		name string
		test func(*testing.T, *dbtest.Server)
	}{
		{"BothVersionsWorkOnEitherSchema", bothVersionsWorkOnEitherSchema},
		{"ASchemaThatOldOnesCannotUseKeepsThemOut", aSchemaThatOldOnesCannotUseKeepsThemOut},
		{"WithoutItsSchemaServeNamesMigrate", withoutItsSchemaServeNamesMigrate},
		{"SealedRowsKeepTheVersionBeforeOut", sealedRowsKeepTheVersionBeforeOut},
		{"PausesHoldInTheVersionBefore", pausesHoldInTheVersionBefore},
		{"AFileOfTheNextVersionIsOpened", aFileOfTheNextVersionIsOpened},
	} {
		t.Run(g.name, func(t *testing.T) { g.test(t, db) })
	}
}

// bothVersionsWorkOnEitherSchema runs replicas of this version and of the next under load while the next one's migrate
// runs, and exchanges them afterwards. No call fails, and each hears what the others revoke.
func bothVersionsWorkOnEitherSchema(t *testing.T, db *dbtest.Server) {
	next, err := nextProgram()
	must(t, err)
	c := newCluster(t, db, "rolling", 2)
	newer := &replica{name: "replica of the next version", cluster: c, path: next.path, at: db.Addr()}
	must(t, newer.start())
	c.replicas = append(c.replicas, newer)
	l := startLoad(t, c, 4)
	hearEachOther(t, c, "before")
	said, err := run(next.path, c.env(db.Addr()), "migrate")
	must(t, err)
	if want := fmt.Sprintf("schema version %d, was %d", next.since+1, next.since); !strings.Contains(said, want) {
		t.Errorf("migrate says %q, want %q", said, want)
	}
	hearEachOther(t, c, "after")
	t.Logf("%d other calls while the schema was changed", l.end())

	if said := c.run("migrate"); !strings.Contains(said, fmt.Sprintf("schema version %d", next.since+1)) {
		t.Errorf("migrate of the version before says %q", said)
	}
	c.replicas[0].stop()
	c.replicas[0].path = next.path
	c.replicas[1].stop() // and starts again as it is, on the schema that is newer than it
	must(t, c.replicas[0].start())
	must(t, c.replicas[1].start())
	l = startLoad(t, c, 4)
	hearEachOther(t, c, "exchanged")
	l.end()
	for _, path := range []string{c.path, next.path} {
		if said, err := run(
			path,
			c.env(db.Addr()),
			"check",
			"--hash-key-file",
			c.key,
		); err != nil ||
			!strings.HasPrefix(said, "ok: ") {
			t.Errorf("check: %s, %v", said, err)
		}
	}
}

// hearEachOther has each replica revoke a token that the others know.
func hearEachOther(t *testing.T, c *cluster, when string) {
	t.Helper()
	user := "hears " + when
	must(t, c.replicas[0].now().hold(t.Context(), user, "a"))
	f := &freshness{}
	for home := range c.replicas {
		if err := f.round(t.Context(), c, home, user, fmt.Sprint(home)); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}
	if f.stale > 0 || f.quantile(100) > bound {
		t.Errorf("%s: %s", when, f)
	}
}

// refusesToServe runs a server that must not start, and returns what it said.
func refusesToServe(t *testing.T, path string, c *cluster) string {
	t.Helper()
	d, err := start(path, c.env(c.db.Addr()), "--hash-key-file", c.key)
	if err == nil {
		d.Kill()
		t.Fatal("a server starts on a schema that is not for it")
	}
	return err.Error()
}

func aSchemaThatOldOnesCannotUseKeepsThemOut(t *testing.T, db *dbtest.Server) {
	next, err := nextProgram()
	must(t, err)
	c := newStore(t, db, "breaking")
	breaking := c.url(db.Addr()) + fmt.Sprintf("&%s=%d", oldestSetting, next.since+1)
	_, err = run(next.path, []string{"PATD_DATABASE_URL=" + breaking}, "migrate")
	must(t, err)
	if said := refusesToServe(t, c.path, c); !strings.Contains(said, "use a newer patd") {
		t.Errorf("the version before says\n%s", said)
	}
	if said, err := run(
		c.path,
		c.env(db.Addr()),
		"migrate",
	); err == nil ||
		!strings.Contains(err.Error(), "use a newer patd") {
		t.Errorf("migrate of the version before says %s, %v", said, err)
	}
	r := &replica{name: "replica of the next version", cluster: c, path: next.path, at: db.Addr()}
	must(t, r.start())
	r.stop()
}

// migrateTo makes the schema of a store anew, as the version left it whose last migration it was.
func (c *cluster) migrateTo(version int) {
	c.t.Helper()
	_, err := c.db.Admin().
		ExecContext(c.t.Context(), fmt.Sprintf("DROP SCHEMA %s CASCADE; CREATE SCHEMA %[1]s", c.schema))
	must(c.t, err)
	db, err := sql.Open("pgx", c.url(c.db.Addr()))
	must(c.t, err)
	defer db.Close()
	p, err := goose.NewProvider(goose.DialectPostgres, db, os.DirFS(filepath.Join(migrationsSource, "postgres")),
		goose.WithTableName("patd_schema_version"), goose.WithDisableGlobalRegistry(true))
	must(c.t, err)
	_, err = p.UpTo(c.t.Context(), int64(version))
	must(c.t, err)
}

func withoutItsSchemaServeNamesMigrate(t *testing.T, db *dbtest.Server) {
	c := newStore(t, db, "behind")
	elsewhere := *c
	elsewhere.schema = "nowhere"
	if said := refusesToServe(t, c.path, &elsewhere); !strings.Contains(said, "`patd migrate`") {
		t.Errorf("without a schema it says\n%s", said)
	}
	last, err := lastMigration()
	must(t, err)
	oldest, err := oldestUsable()
	must(t, err)
	c.migrateTo(oldest - 1)
	if said := refusesToServe(t, c.path, c); !strings.Contains(said, "`patd migrate`") {
		t.Errorf("with a schema that is behind it says\n%s", said)
	}
	said := c.run("migrate", "--hash-key-file", c.key)
	if want := fmt.Sprintf("schema version %d, was %d", last, oldest-1); !strings.Contains(said, want) {
		t.Errorf("migrate says %q, want %q", said, want)
	}
	r := &replica{name: "replica", cluster: c, path: c.path, at: db.Addr()}
	must(t, r.start())
	r.stop()
}

// aFileOfTheNextVersionIsOpened is the same promise for a store in a file: the version before opens it, as after an
// upgrade that was taken back.
func aFileOfTheNextVersionIsOpened(t *testing.T, _ *dbtest.Server) {
	next, err := nextProgram()
	must(t, err)
	path, err := program()
	must(t, err)
	data := filepath.Join(t.TempDir(), "data")
	_, err = run(next.path, nil, "service", "create", "next", "--permission", "admin", "--data-dir", data)
	must(t, err)
	if said, err := run(path, nil, "check", "--data-dir", data); err != nil || !strings.HasPrefix(said, "ok: ") {
		t.Errorf("check of the version before: %s, %v", said, err)
	}
}

// unseal makes a store whose rows are sealed one that was just migrated from before checksums. The schema is that of
// its tables.
func unseal(t *testing.T, db *sql.DB, schema, key string) {
	t.Helper()
	_, err := db.ExecContext(t.Context(), fmt.Sprintf(`
DELETE FROM %s.sealed;
UPDATE %[1]s.compatibility SET oldest = 4;
UPDATE %[1]s.services SET row_mac = NULL`, schema))
	must(t, err)
	keys, err := os.ReadFile(key)
	must(t, err)
	must(t, os.WriteFile(key, []byte(strings.ReplaceAll(string(keys), secret.SealedLine()+"\n", "")), 0o600))
}

// sealedRowsKeepTheVersionBeforeOut runs replicas of this version and of one from before checksums under load, and
// seals the rows. No call of this version fails; the other works until then, and changes nothing and starts no more
// afterwards.
func sealedRowsKeepTheVersionBeforeOut(t *testing.T, db *dbtest.Server) {
	before, err := programBefore()
	must(t, err)
	c := newStore(t, db, "rolled")
	unseal(t, db.Admin(), c.schema, c.key)
	c.add(0, db.Addr())
	c.add(1, db.Addr())
	c.replicas[1].path = before
	c.startAll()
	must(t, c.replicas[1].now().hold(t.Context(), "u", "a"))
	var made []token
	for n, r := range c.replicas {
		tok, _, err := r.now().mint(t.Context(), "u", fmt.Sprint("of ", n), "")
		must(t, err)
		_, err = c.replicas[1-n].now().rotate(t.Context(), tok)
		must(t, err)
		made = append(made, tok)
	}
	hearEachOther(t, c, "not sealed")

	if said := c.run(
		"migrate",
		"--seal-rows",
		"--hash-key-file",
		c.key,
	); !strings.Contains(
		said,
		"the rows are sealed: ",
	) {
		t.Errorf("it says %s", said)
	}
	if keys, err := os.ReadFile(c.key); err != nil || !strings.Contains(string(keys), "\n"+secret.SealedLine()+"\n") {
		t.Errorf("the key file does not say that the rows are sealed: %v", err)
	}
	if said := c.run("migrate", "--seal-rows", "--hash-key-file", c.key); !strings.Contains(said, "sealed already") {
		t.Errorf("again it says %s", said)
	}
	if err := c.replicas[1].now().revoke(t.Context(), made[0]); err == nil {
		t.Error("a server from before checksums goes on changing rows that are sealed")
	}
	c.replicas[1].kill()
	if said := refusesToServe(t, before, c); !strings.Contains(said, "use a newer patd") {
		t.Errorf("the version before says\n%s", said)
	}
	c.replicas[1].path = c.path
	must(t, c.replicas[1].start())
	hearEachOther(t, c, "sealed")
	for _, tok := range made {
		must(t, c.replicas[0].now().revoke(t.Context(), tok))
	}
	if said := c.run("check", "--hash-key-file", c.key); !strings.HasPrefix(said, "ok: ") {
		t.Errorf("check: %s", said)
	}
}
