package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"patd/internal/oidctest"
	"patd/store"
)

const (
	correctly  = "correct the setting; the server does not start with it"
	mended     = "the server does not start before this is mended"
	anyKey     = "k1:0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20\n"
	replaceOld = "replace the servers of the earlier version"
)

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (p *patient) file(name string) string { return filepath.Join(p.data, name) }

// edits changes the store's file by hand.
func edits(statements ...string) func(*testing.T, *patient) {
	return func(t *testing.T, p *patient) { hand(t, "sqlite", p.file("patd.db"), statements...) }
}

// with gives the command more arguments.
func with(args ...string) func(*testing.T, *patient) {
	return func(_ *testing.T, p *patient) { p.args = append(p.args, args...) }
}

// later has the command's clock ahead.
func later(d time.Duration) func(*testing.T, *patient) {
	return func(_ *testing.T, p *patient) { p.now = func() time.Time { return time.Now().Add(d) } }
}

// looks examines what a look is given.
func looks(look func(*doctor)) func(*testing.T, *patient) {
	return func(_ *testing.T, p *patient) { p.look = look }
}

// configured writes a configuration file of a mode.
func configured(mode os.FileMode, text string) func(*testing.T, *patient) {
	return func(t *testing.T, p *patient) {
		t.Helper()
		path := filepath.Join(p.data, "..", "patd.yaml")
		mustDo(t, os.WriteFile(path, []byte(text), 0o600))
		mustDo(t, os.Chmod(path, mode))
		p.args = append(p.args, "--config", path)
	}
}

// issuer starts a provider that spells itself with a suffix.
func issuer(suffix string) func(*testing.T, *patient) {
	return func(t *testing.T, p *patient) {
		t.Helper()
		provider := oidctest.New(t, time.Now)
		provider.Describe(oidctest.Discovery, provider.URL+suffix)
		p.args = append(p.args, "--oidc-issuer", provider.URL, "--oidc-audience", "a")
	}
}

// query makes SQLite the source of features, with a table of users.
func query(statement string) func(*testing.T, *patient) {
	return func(t *testing.T, p *patient) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "company.db")
		hand(
			t,
			"sqlite",
			path,
			`CREATE TABLE held (who TEXT, feature TEXT)`,
			`INSERT INTO held VALUES ('alice', 'reports.read')`,
		)
		p.args = append(
			p.args,
			"--features-source",
			"sql",
			"--features-database-url",
			"sqlite:"+path,
			"--features-query",
			statement,
		)
	}
}

func pair(t *testing.T, p *patient) (cert, key string) {
	t.Helper()
	cert, key = filepath.Join(p.data, "..", "cert.pem"), filepath.Join(p.data, "..", "key.pem")
	selfSigned(t, cert, key)
	p.args = append(p.args, "--tls-cert", cert, "--tls-key", key)
	return cert, key
}

// fileSymptoms are those of a store in a file, its settings, and what it asks.
func fileSymptoms() []symptom {
	return []symptom{
		{
			"a setting that is wrong",
			"configuration",
			levelProblem,
			"%v",
			"--max-ttl",
			correctly,
			with("--default-ttl", "0s"),
		},
		{
			"a configuration that others can change",
			"configuration",
			levelProblem,
			"others than its owner can change %s",
			"patd.yaml",
			"chmod 640 ",
			configured(0o666, "log-level: warn\n"),
		},
		{
			"a password that all can read",
			"configuration",
			levelProblem,
			"everybody on this machine can read %s, and there is a password in it",
			"patd.yaml",
			"chmod 640 ",
			func(t *testing.T, p *patient) {
				configured(0o644, "database-url: postgres://u:geheim@127.0.0.1:1/x\n")(t, p)
				p.args = append([]string{"--hash-key-file", p.file("hash.key")}, p.args[2:]...)
			},
		},
		{
			"no store",
			"files",
			levelProblem,
			"there is no %s, %s",
			"store",
			"name the directory of the store by --data-dir; the first start of a server makes a new one",
			func(t *testing.T, p *patient) { mustDo(t, os.Remove(p.file("patd.db"))) },
		},
		{
			"a directory that is a file",
			"files",
			levelProblem,
			"%v",
			"not a directory",
			"run this as the user that the server runs as",
			func(_ *testing.T, p *patient) { p.args = []string{"--data-dir", p.file("hash.key/under")} },
		},
		{
			"a key that others can read",
			"files",
			levelProblem,
			"others than its owner can read the %s, %s (mode %04o)",
			"hash key",
			"chmod 600 ",
			func(t *testing.T, p *patient) { mustDo(t, os.Chmod(p.file("hash.key"), 0o644)) },
		},
		{
			"a directory that others can write to",
			"files",
			levelProblem,
			"others than its owner can write to %s, and so replace the store or its key",
			"data",
			"chmod 700 ",
			func(t *testing.T, p *patient) { mustDo(t, os.Chmod(p.data, 0o770)) },
		},
		{
			"a certificate of another key",
			"TLS",
			levelProblem,
			"%v",
			"",
			"see that --tls-cert and --tls-key are a pair that this user can read",
			func(t *testing.T, p *patient) {
				cert, key := pair(t, p)
				old, err := os.ReadFile(cert)
				mustDo(t, err)
				selfSigned(t, cert, key)
				mustDo(t, os.WriteFile(cert, old, 0o600))
			},
		},
		{
			"a certificate that ends soon",
			"TLS",
			levelWarning,
			"the certificate ends in %s",
			"59m",
			"renew the certificate; the server notices the new files",
			func(t *testing.T, p *patient) { pair(t, p) },
		},
		{"a key of another store", "store", levelProblem, "%v", "key", mended,
			func(t *testing.T, p *patient) { mustDo(t, os.WriteFile(p.file("hash.key"), []byte(anyKey), 0o600)) }},
		{
			"rows without checksums",
			"store",
			levelWarning,
			"rows that are edited in the database are believed",
			"",
			"when every server is of this version, run `" + store.SealRows + "`",
			func(t *testing.T, p *patient) {
				edits(`DELETE FROM sealed`)(t, p)
				text, err := os.ReadFile(p.file("hash.key"))
				mustDo(t, err)
				key, _, _ := strings.Cut(string(text), "# rows sealed")
				mustDo(t, os.WriteFile(p.file("hash.key"), []byte(key), 0o600))
			},
		},
		{
			"a table of services that cannot be read",
			"services",
			levelProblem,
			"%v",
			"",
			"run `patd check`",
			edits(`ALTER TABLE services RENAME COLUMN permissions TO was`),
		},
		{
			"a service that ends soon",
			"services",
			levelWarning,
			"%s",
			"of service ci expires at",
			"patd service rotate NAME",
			later(360 * 24 * time.Hour),
		},
		{
			"a column that is missing",
			"database",
			levelProblem,
			"%v",
			"",
			"see the database's log",
			edits(`ALTER TABLE events RENAME COLUMN writer TO was`),
		},
		{
			"a schema of a later version",
			"versions",
			levelWarning,
			"the schema is version %d, and this patd knows version %d",
			"99",
			"upgrade this patd to the version of the others",
			edits(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)`),
		},
		{
			"an earlier program that writes",
			"versions",
			levelWarning,
			"a program that knows schema %d wrote an event at %s",
			"schema 20",
			replaceOld,
			edits(`DROP TRIGGER events_no_update`, `UPDATE events SET writer = 20`),
		},
		{
			"a clock that is behind",
			"clock",
			levelProblem,
			"the newest event is %s in the future of this clock",
			"",
			"synchronize the clocks of all servers (NTP)",
			later(-time.Hour),
		},
		{
			"settings of sign-in that cannot be",
			"provider",
			levelProblem,
			"%v",
			"https",
			"correct the settings of --oidc-issuer",
			with("--oidc-issuer", "http://idp.example", "--oidc-audience", "a"),
		},
		{
			"a provider that is misspelt",
			"provider",
			levelProblem,
			"%s says of itself something else than the configuration",
			"http://127.0.0.1:",
			"see that --oidc-issuer is spelt as the provider's discovery document spells it",
			issuer("/"),
		},
		{
			"a provider that is down",
			"provider",
			levelProblem,
			"%s does not answer, or not correctly",
			"http://127.0.0.1:1 ",
			"see that this machine reaches it, and trusts its certificate",
			with("--oidc-issuer", "http://127.0.0.1:1", "--oidc-audience", "a"),
		},
		{
			"a query that cannot be",
			"features",
			levelProblem,
			"%v",
			"",
			"correct the settings of --features-source",
			query(`SELECT nothing FROM held WHERE who = $1`),
		},
		{
			"a source that is down",
			"features",
			levelProblem,
			"the source does not answer: %v",
			"",
			"see that this machine reaches the source; introspection is 503 without it",
			func(t *testing.T, p *patient) {
				with(
					"--features-source",
					"callback",
					"--features-callback-url",
					"http://127.0.0.1:1/features",
					"--features-callback-key-file",
					written(t, "key", strings.Repeat("0123456789abcdef", 4)),
				)(
					t,
					p,
				)
			},
		},
		{
			"a query that gives all to all",
			"features",
			levelWarning,
			"the user patd-doctor, who does not exist, has %s",
			"1 feature",
			"see the query or the callback: a user that does not exist should have none",
			query(`SELECT feature FROM held WHERE who = $1 OR true`),
		},
	}
}

// otherSymptoms are those that no store here can be brought to.
func otherSymptoms() []symptom {
	failed := errors.New("no room")
	asked := time.Now()
	return []symptom{
		{
			"a configuration that is gone",
			"configuration",
			levelProblem,
			"%v",
			"none.yaml",
			"make the file readable for this user",
			looks(func(d *doctor) { d.c.Config = "/none.yaml"; d.configuration(nil) }),
		},
		{
			"a clock that nothing keeps",
			"clock",
			levelWarning,
			"nothing keeps the clock of this machine right, as far as the kernel knows",
			"",
			"synchronize the clock (systemd-timesyncd, chrony): it decides about expiry",
			looks(func(d *doctor) { d.kept(unsynchronized, 0, nil) }),
		},
		{"a file system without shared memory", "database", levelProblem, "the journal mode is %s, not wal", "delete",
			"see that the file system has shared memory; network file systems do not do",
			looks(func(d *doctor) {
				d.sqlite(store.Diagnosis{Settings: map[string]string{"journal_mode": "delete"}}, "/none/patd.db")
			})},
		{
			"a directory without room",
			"disk",
			levelProblem,
			"%v",
			"no room",
			"see that the server's user can write to the directory, and that there is room",
			looks(func(d *doctor) { d.disk(nil, failed) }),
		},
		{
			"a disk that keeps nothing",
			"disk",
			levelWarning,
			"putting a page on disk takes %s: a power loss would lose answered changes",
			"2µs",
			"put the store on a disk that keeps what it is told to keep, not into memory or behind a cache that loses power",
			looks(func(d *doctor) { d.disk([]time.Duration{1000, 2000, 90000}, nil) }),
		},
		{
			"a schema of an earlier version",
			"versions",
			levelWarning,
			"the schema is version %d, and this patd makes version %d",
			"22",
			"patd migrate",
			looks(func(d *doctor) { d.versions(store.Diagnosis{Schema: 22, Newest: 23}) }),
		},
		{
			"an old PostgreSQL",
			"database",
			levelProblem,
			"PostgreSQL %s is older than %d, the oldest that patd is tested with",
			"12.22",
			"upgrade PostgreSQL",
			looks(func(d *doctor) {
				d.postgres(store.Diagnosis{Version: "12.22", Number: 120022, Clock: asked, Asked: asked})
			}),
		},
		{
			"a standby",
			"database",
			levelProblem,
			"it is a standby, which takes no changes and may have missed a revocation",
			"",
			"name the primary in --database-url",
			looks(func(d *doctor) {
				d.postgres(store.Diagnosis{Number: 170000, Standby: true, Clock: asked, Asked: asked})
			}),
		},
	}
}
