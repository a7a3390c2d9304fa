package main

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"patd/cmd/patd/internal/cli"
	"patd/internal/dbtest"
	"patd/internal/longtest"
)

// TestAStoreInPostgreSQLIsMadeAndRestoredWithItsKey runs what an operator runs on a database: without the key, or with
// that of another store, each command says what it lacks, and changes nothing.
func TestAStoreInPostgreSQLIsMadeAndRestoredWithItsKey(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	server := dbtest.Postgres(t)
	dir, now := t.TempDir(), time.Now()
	in := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(in(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(in(name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	write("password", server.Password+"\n")
	write("wrong", "not-the-password\n")
	write("other.key", "k1:"+strings.Repeat("0123456789abcdef", 4)+"\n")
	database := server.PostgresURL("")
	does := func(code int, want string, args ...string) {
		t.Helper()
		if code == cli.ExitOK || !strings.Contains(strings.Join(args, " "), "--database-password-file") {
			args = append(args, "--database-password-file", in("password"))
		}
		out, errs, got := runAt(t, now, append(args, "--database-url", database)...)
		if got != code || !strings.Contains(out+errs, want) {
			t.Errorf("patd %s: exit %d, want %d and %q in\n%s%s", strings.Join(args, " "), got, code, want, out, errs)
		}
		if strings.Contains(out+errs, server.Password) || args[0] != "service" && secrets.MatchString(out+errs) {
			t.Errorf("patd %s prints a secret", args[0])
		}
	}

	does(cli.ExitFault, "the database cannot be reached", "migrate", "--database-password-file", in("wrong"))
	does(cli.ExitFault, "the store is new and has no key yet: say where to make it, by --hash-key-file FILE", "migrate")
	does(
		cli.ExitFault,
		"`patd migrate` makes it together with a new store, and every server on that store needs a copy",
		"check",
		"--hash-key-file",
		in("hash.key"),
	)
	does(
		cli.ExitOK,
		"every server on this store needs a copy, and you a backup",
		"migrate",
		"--hash-key-file",
		in("hash.key"),
	)
	key := read("hash.key")
	if info, err := os.Stat(in("hash.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key file: %v, %v", info.Mode(), err)
	}
	does(cli.ExitOK, "ok: PostgreSQL at "+server.Addr(), "migrate", "--hash-key-file", in("hash.key"))

	does(cli.ExitFault, "checksums are made with the store's key: say where it is", "migrate", "--seal-rows")
	does(
		cli.ExitFault,
		"the hash key "+in("gone.key")+" is missing",
		"migrate",
		"--seal-rows",
		"--hash-key-file",
		in("gone.key"),
	)
	does(cli.ExitFault, "key k1 is not the one that this store was written with",
		"migrate", "--seal-rows", "--hash-key-file", in("other.key"))
	if _, err := os.Stat(in("gone.key")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key was made for a store that has one: %v", err)
	}
	line := strings.SplitAfter(key, "\n")[0]
	write("hash.key", line) // from before the rows were sealed
	does(cli.ExitOK, "the rows were sealed already", "migrate", "--seal-rows", "--hash-key-file", in("hash.key"))
	if got := read("hash.key"); got != key {
		t.Error("the key file does not say that the rows are sealed")
	}

	does(cli.ExitOK, "", "service", "create", "ops", "--permission", "audit", "--hash-key-file", in("hash.key"))
	does(cli.ExitOK, "it is of use only with the hash key", "backup", in("copy.db"), "--hash-key-file", in("hash.key"))
	does(
		cli.ExitFault,
		in("copy.db")+" is not restored: copy the store: there is a store in that database already",
		"restore",
		in("copy.db"),
		"--hash-key-file",
		in("hash.key"),
	)
	if _, err := server.Admin().ExecContext(t.Context(), `CREATE DATABASE elsewhere OWNER `+server.User); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/elsewhere"
	database = u.String()
	does(cli.ExitFault, "the key file needs the keys from the time of the backup",
		"restore", in("copy.db"), "--hash-key-file", in("other.key"))
	does(cli.ExitFault, "the database holds no patd store yet", "check", "--hash-key-file", in("hash.key"))
	does(cli.ExitOK, "patd: restored "+in("copy.db"), "restore", in("copy.db"), "--hash-key-file", in("hash.key"))
	does(cli.ExitOK, "0 tokens, 1 service, keys k1", "check", "--hash-key-file", in("hash.key"))
}
