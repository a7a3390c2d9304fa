package main

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/durationpb"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/internal/proctest"
	"patd/internal/waittest"
	"patd/store"
)

// moving is a store in a file with tokens in every state, a database, and what the secrets were answered as.
type moving struct {
	server              *dbtest.Server
	data, file          string // the directory and its store
	password            string // a file
	admin               string
	kept, later         string // secrets that work
	superseded, revoked string
	decisions           map[string]patdv1.IntrospectResponse_Decision
}

// settled makes the store by calls to a server, which has stopped when it is answered.
func settled(t *testing.T) *moving {
	t.Helper()
	m := &moving{server: dbtest.Postgres(t)} // its own: the test looks at all that copy into it
	m.data, m.admin = administer(t)
	m.file = "sqlite:" + filepath.Join(m.data, "patd.db")
	m.password = written(t, "password", m.server.Password+"\n")
	d := serve(t, m.data)
	a := connect(t, d, m.admin)
	if _, err := a.users.SetUserFeatures(
		t.Context(),
		&patdv1.SetUserFeaturesRequest{User: "ü/1", Features: []string{"a"}},
	); err != nil {
		t.Fatal(err)
	}
	mint := func(name string) (id, secret string) {
		answer, err := a.tokens.CreateToken(
			t.Context(),
			&patdv1.CreateTokenRequest{User: "ü/1", Name: name, Scopes: []string{"a"}},
		)
		if err != nil {
			t.Fatal(err)
		}
		return answer.GetToken().GetTokenId(), answer.GetSecret()
	}
	_, m.kept = mint("naïve 日本語")
	rotated, old := mint("rotated")
	m.superseded = old
	r, err := a.tokens.RotateToken(
		t.Context(),
		&patdv1.RotateTokenRequest{User: "ü/1", TokenId: rotated, Grace: durationpb.New(0)},
	)
	if err != nil {
		t.Fatal(err)
	}
	m.later = r.GetSecret()
	var revoked string
	revoked, m.revoked = mint("revoked")
	if _, err := a.tokens.RevokeToken(
		t.Context(),
		&patdv1.RevokeTokenRequest{User: "ü/1", TokenId: revoked},
	); err != nil {
		t.Fatal(err)
	}
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	m.decisions = map[string]patdv1.IntrospectResponse_Decision{
		m.kept: patdv1.IntrospectResponse_ALLOW, m.later: patdv1.IntrospectResponse_ALLOW,
		m.superseded: patdv1.IntrospectResponse_SUPERSEDED, m.revoked: patdv1.IntrospectResponse_REVOKED,
	}
	return m
}

// url names a schema of the database, without the password.
func (m *moving) url(schema string) string {
	return m.server.PostgresURL("") + "&search_path=" + schema
}

// works serves a store and asks it about every secret, and for another token.
func (m *moving) works(t *testing.T, data string, args ...string) {
	t.Helper()
	d := serve(t, data, args...)
	a := connect(t, d, m.admin)
	for secret, want := range m.decisions {
		got, err := a.introspect.Introspect(t.Context(), &patdv1.IntrospectRequest{Token: secret})
		if err != nil || got.GetDecision() != want {
			t.Errorf("introspection on the copy answers %s, %v; want %s", got.GetDecision(), err, want)
		}
	}
	if _, err := a.tokens.CreateToken(
		t.Context(),
		&patdv1.CreateTokenRequest{User: "ü/1", Name: "new " + filepath.Base(data), Scopes: []string{"a"}},
	); err != nil {
		t.Errorf("a mint on the copy: %v", err)
	}
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
}

// TestTokensWorkOnWhereverTheirStoreIsCopied moves a store into PostgreSQL, by a backup into another database, and back
// into a file, and serves each.
func TestTokensWorkOnWhereverTheirStoreIsCopied(t *testing.T) {
	t.Parallel()
	longtest.Only(t)
	m := settled(t)
	key := filepath.Join(m.data, "hash.key")
	said := patd(
		t,
		"copy",
		"--from",
		m.file,
		"--to",
		m.url("there"),
		"--to-password-file",
		m.password,
		"--hash-key-file",
		key,
		"--json",
	)
	var answer struct {
		Verified bool
		Tables   []struct {
			Table string
			Rows  int64
		}
	}
	if err := json.Unmarshal(
		[]byte(said),
		&answer,
	); err != nil || !answer.Verified ||
		strings.Contains(said, m.server.Password) {
		t.Errorf("copy answers %v, %s", err, said)
	}
	there := []string{"--database-url", m.url("there"), "--database-password-file", m.password}
	m.works(t, m.data, there...)
	if got := patd(
		t,
		append([]string{"check", "--data-dir", m.data}, there...)...); !strings.HasPrefix(
		got,
		"ok: PostgreSQL at ",
	) {
		t.Errorf("check of the copy: %s", got)
	}

	backup := filepath.Join(t.TempDir(), "backup.db")
	patd(t, append([]string{"backup", backup, "--data-dir", m.data}, there...)...)
	if got := patd(
		t,
		"check",
		"--database-url",
		"sqlite:"+backup,
		"--hash-key-file",
		key,
	); !strings.Contains(
		got,
		"4 tokens, 1 service, keys k1",
	) {
		t.Errorf("check of the backup: %s", got)
	}
	if _, err := run(
		append([]string{"restore", backup, "--data-dir", m.data}, there...)...); err == nil ||
		!strings.Contains(err.Error(), "there is a store in that database already") {
		t.Errorf("restore over a store in PostgreSQL: %v", err)
	}
	events := filepath.Join(t.TempDir(), "events.jsonl")
	patd(t, append([]string{"events", "export", events, "--data-dir", m.data}, there...)...)
	patd(t, append([]string{"drill", "restore", "--data-dir", m.data}, there...)...)
	anew := []string{"--data-dir", m.data, "--database-url", m.url("anew"), "--database-password-file", m.password}
	patd(t, append([]string{"restore", backup, "--replay", events}, anew...)...)
	if got := patd(t, append([]string{"check"}, anew...)...); !strings.Contains(got, "4 tokens, 1 service, keys k1") {
		t.Errorf("check of the restored store: %s", got)
	}
	patd(t, append([]string{"restore", "--replay", events}, anew...)...)
	patd(
		t,
		"copy",
		"--from",
		"sqlite:"+backup,
		"--to",
		m.url("restored"),
		"--to-password-file",
		m.password,
		"--hash-key-file",
		key,
	)
	restored := t.TempDir()
	m.works(
		t,
		restored,
		"--hash-key-file",
		key,
		"--database-url",
		m.url("restored"),
		"--database-password-file",
		m.password,
	)

	back := t.TempDir()
	patd(
		t,
		"copy",
		"--from",
		m.url("restored"),
		"--from-password-file",
		m.password,
		"--to",
		"sqlite:"+filepath.Join(back, "patd.db"),
		"--hash-key-file",
		key,
	)
	m.works(t, back, "--hash-key-file", key)

	// A database that `patd migrate` has made a new store in is not empty.
	patd(
		t,
		"migrate",
		"--database-url",
		m.url("fresh"),
		"--database-password-file",
		m.password,
		"--hash-key-file",
		filepath.Join(back, "fresh.key"),
	)
	if _, err := run(
		"copy",
		"--from",
		m.file,
		"--to",
		m.url("fresh"),
		"--to-password-file",
		m.password,
	); err == nil ||
		!strings.Contains(err.Error(), "there is a store in that database already (its table keys has rows)") {
		t.Errorf("copy into a store that is new: %v", err)
	}
}

// killed runs a copy, and kills it while it waits for a table that the test holds.
func (m *moving) killed(t *testing.T, hold string, args ...string) {
	t.Helper()
	admin := m.server.Admin()
	held, err := admin.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Rollback()
	if _, err := held.ExecContext(t.Context(), hold); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log := proctest.NewOutput()
	cmd := exec.Command(self, args...)
	cmd.Args[0], cmd.Stderr = "patd", log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	count := func(query string) (n int) {
		if err := admin.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	waittest.Until(t, "the copy is in the middle", func() bool {
		return count(
			`SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.application_name = 'patd copy'`,
		) > 0
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("the copy ended by itself, %v: the test proves nothing; it said %s", err, log)
	}
	if err := held.Rollback(); err != nil {
		t.Fatal(err)
	}
	waittest.Until(t, "the database is rid of the copy", func() bool {
		return count(`SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'patd copy%'`) == 0
	})
}

// TestAKilledCopyLeavesNothingHalf kills copies with SIGKILL when most tables are written: there is no row in the
// database, and no file of the name, and the next copy succeeds.
func TestAKilledCopyLeavesNothingHalf(t *testing.T) {
	t.Parallel()
	longtest.Only(t)
	m := settled(t)
	if _, _, err := store.Migrate(
		t.Context(),
		m.server.PostgresURL(m.server.Password)+"&search_path=there",
		store.Options{},
	); err != nil {
		t.Fatal(err)
	}
	into := []string{"copy", "--from", m.file, "--to", m.url("there"), "--to-password-file", m.password}
	m.killed(t, `LOCK TABLE there.changes IN SHARE MODE`, into...)
	for _, table := range []string{"keys", "users", "tokens", "old_secrets", "events", "changes"} {
		var n int
		if err := m.server.Admin().
			QueryRowContext(t.Context(), `SELECT count(*) FROM there.`+table).
			Scan(&n); err != nil ||
			n != 0 {
			t.Errorf("rows of %s after a copy that was killed: %d, %v", table, n, err)
		}
	}
	patd(t, into...)
	there := []string{"--database-url", m.url("there"), "--database-password-file", m.password}
	m.works(t, m.data, there...)

	back := t.TempDir()
	file := filepath.Join(back, "patd.db")
	outOf := []string{"copy", "--from", m.url("there"), "--from-password-file", m.password, "--to", "sqlite:" + file}
	m.killed(t, `LOCK TABLE there.audiences IN ACCESS EXCLUSIVE MODE`, outOf...)
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file after a copy that was killed: %v", err)
	}
	patd(t, outOf...)
	m.works(t, back, "--hash-key-file", filepath.Join(m.data, "hash.key"))
}

// TestACopyBesideARunningServerIsAsOfOneMoment runs a copy beside a server that was not stopped.
func TestACopyBesideARunningServerIsAsOfOneMoment(t *testing.T) {
	t.Parallel()
	longtest.Only(t)
	m := settled(t)
	patd(t, "copy", "--from", m.file, "--to", m.url("old"), "--to-password-file", m.password)
	d := serve(t, m.data, "--database-url", m.url("old"), "--database-password-file", m.password)
	a := connect(t, d, m.admin)
	minted := 0
	stopped := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stopped:
				return
			default:
			}
			_, err := a.users.SetUserFeatures(
				t.Context(),
				&patdv1.SetUserFeaturesRequest{User: fmt.Sprintf("u%d", n), Features: []string{"a"}},
			)
			if err == nil {
				minted++
			}
		}
	}()
	patd(
		t,
		"copy",
		"--from",
		m.url("old"),
		"--from-password-file",
		m.password,
		"--to",
		m.url("new"),
		"--to-password-file",
		m.password,
	)
	close(stopped)
	<-done
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
	// What the copy has is a beginning of what was answered: the changes before it, each with its event.
	for _, q := range []string{
		`SELECT (SELECT count(*) FROM new.users WHERE "user" LIKE 'u%') - (SELECT count(*) FROM new.events WHERE "user" LIKE 'u%')`,
		`SELECT count(*) FROM new.events n FULL JOIN old.events o USING (seq) WHERE (n.seq IS NULL AND o.seq < (SELECT max(seq) FROM new.events)) OR o.seq IS NULL`,
	} {
		var n sql.NullInt64
		if err := m.server.Admin().QueryRowContext(t.Context(), q).Scan(&n); err != nil || n.Int64 != 0 {
			t.Errorf("%s: %d, %v", q, n.Int64, err)
		}
	}
	if minted == 0 {
		t.Error("nothing was changed meanwhile: the test proves nothing")
	}
}
