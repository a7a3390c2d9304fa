package store_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"patd/internal/longtest"
	"patd/store"
	"patd/tokens"
)

func TestABackupWhileWritingIsConsistent(t *testing.T) {
	t.Parallel()
	st := open(t, newPath(t), store.Options{})
	id := fill(t, st, 500)[0]
	dir := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error {
		for i := 0; ctx.Err() == nil; i++ {
			if err := tryPut(t.Context(), st, fmt.Sprintf("p%d", i)); err != nil {
				return err
			}
		}
		return nil
	})
	for i := range 3 {
		path := filepath.Join(dir, fmt.Sprintf("backup%d?.db", i))
		if err := st.Backup(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the backup's mode: %v, %v", info.Mode(), err)
		}
		copied := open(t, path, store.Options{})
		if found, err := copied.Check(t.Context()); err != nil || len(found) != 0 {
			t.Errorf("check of the backup: %v, %v", found, err)
		}
		if got, want := lookup(t, copied, id), lookup(t, st, id); got.Token.Name != want.Token.Name {
			t.Errorf("a token in the backup is %q, want %q", got.Token.Name, want.Token.Name)
		}
		// Each change is a prefix and its event: both are in the backup, or neither.
		if n, want := count(t, copied, "prefixes"), count(t, copied, "events WHERE action = 'prefix.add'"); n != want {
			t.Errorf("%s prefixes and %s of their events in the backup", n, want)
		}
		put(t, copied, "restored")
	}
	stop()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestABackupHoldsRecordedUses(t *testing.T) {
	t.Parallel()
	st := open(t, newPath(t), store.Options{FlushInterval: time.Hour})
	id := fill(t, st, 1)[0]
	use := tokens.Use{Time: time.Now().UTC().Truncate(time.Microsecond)}
	st.RecordUse(tokens.Usage{ID: id, Use: use})
	path := filepath.Join(t.TempDir(), "backup.db")
	if err := st.Backup(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if got := lastUse(t, open(t, path, store.Options{}), id); got != use {
		t.Errorf("last use in the backup: %v, want %v", got, use)
	}
}

func TestABackupReplacesNothingAndLeavesNothingHalf(t *testing.T) {
	t.Parallel()
	st := open(t, newPath(t), store.Options{})
	fill(t, st, 10)
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken")
	if err := os.WriteFile(taken, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := st.Backup(t.Context(), taken); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto a file that exists: %v", err)
	}
	if got, err := os.ReadFile(taken); err != nil || string(got) != "precious" {
		t.Errorf("the file that existed: %q, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := st.Backup(ctx, filepath.Join(dir, "cancelled")); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled backup: %v", err)
	}
	if err := st.Backup(t.Context(), filepath.Join(dir, "no", "backup")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("into a directory that does not exist: %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("files after refused backups: %v, %v", left, err)
	}
}

func TestCheckFindsPlantedDamage(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	for _, c := range []struct{ damage, finding string }{
		{`INSERT INTO tokens (id, user, key, digest, name, name_key, scopes, issue_us, expire_us)
		  SELECT 99, user, key, digest, 'n', 'n', 'a', 1, 2 FROM tokens LIMIT 1`, "no audit event"},
		{`UPDATE tokens SET user = 77 WHERE id = (SELECT max(id) FROM tokens)`, "points to a row of users"},
		{`UPDATE tokens SET key = 77 WHERE id = (SELECT max(id) FROM tokens)`, "points to a row of keys"},
		{`INSERT INTO old_secrets (token_id, serial, key, digest, until_us) SELECT 4711, 1, key, digest, 5 FROM tokens LIMIT 1`, "points to a row of tokens"},
		{`UPDATE tokens SET rotations = 3`, "number of rotations"},
		{`INSERT INTO old_secrets (token_id, serial, key, digest, until_us) SELECT id, 1, key, digest, 5 FROM tokens LIMIT 1`, "number of rotations"},
		{`UPDATE tokens SET revoke_us = 1, revoked_by = 'x'`, "revoked without an audit event"},
		{`UPDATE tokens SET name_key = 'same', user = 1`, "the name of another live token"},
		{`UPDATE users SET delete_us = 1`, "its user is deleted"},
		{`UPDATE keys SET retire_us = 1`, "live under a retired key"},
		{`INSERT INTO services (id, name, permissions, key, digest, issue_us, expire_us)
		  SELECT 5, 'ghost', 'admin', key, digest, 1, 2 FROM tokens LIMIT 1`, "service"},
		{`INSERT INTO requests SELECT digest, digest, id + 1, x'00', 5 FROM tokens ORDER BY id DESC LIMIT 1`, "which does not exist"},
		{`INSERT INTO services (id, name, permissions, key, digest, issue_us, expire_us, revoke_us, revoked_by)
		  SELECT 5, 'ghost', 'admin', key, digest, 1, 2, 3, 'x' FROM tokens LIMIT 1;
		  INSERT INTO requests SELECT digest, digest, 5, x'00', 5 FROM services WHERE id = 5`, "a sealed secret of it is kept"},
		{`UPDATE sqlite_sequence SET seq = 0 WHERE name = 'events'`, "given twice"},
		{`UPDATE tokens SET blocked_by = 'api'`, "blocked without an audit event"},
		{`INSERT INTO features (name, consent, is_default, optional, published, is_system, search) VALUES ('f', 1, 0, 0, 0, 0, 'f')`, "feature f"},
		{`INSERT INTO audiences (id, allow_never, allow_offline, access_format, search) VALUES ('api', 0, 0, 1, 'api')`, "audience api"},
		{`INSERT INTO webhooks (num, id, url, enabled, create_us, update_us, secret_key, secret, cursor_seq) SELECT 5, 'w', 'https://a', 1, 1, 1, num, x'00', 0 FROM keys`, "webhook w"},
		{`DROP TRIGGER keys_seal_webhooks`, "trigger keys_seal_webhooks is missing"},
		{`DROP TRIGGER events_no_delete`, "trigger events_no_delete is missing"},
	} {
		t.Run(c.finding, func(t *testing.T) {
			st := open(t, newPath(t), store.Options{FlushInterval: time.Hour})
			fill(t, st, 5)
			if found, err := st.Check(t.Context()); err != nil || len(found) != 0 {
				t.Fatalf("check before the damage: %v, %v", found, err)
			}
			exec1(t, st, `PRAGMA foreign_keys = OFF`)
			exec1(t, st, c.damage)
			found, err := st.Check(t.Context())
			if err != nil || !strings.Contains(strings.Join(found, "\n"), c.finding) {
				t.Errorf("after %s: found %q, %v; want %q", c.damage, found, err, c.finding)
			}
		})
	}
}

func TestCheckFindsBrokenPages(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	st, err := store.Open(t.Context(), "sqlite:"+path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, st, 2000)
	root, err := st.Texts(t.Context(), 0, `SELECT (rootpage - 1) * 4096 FROM sqlite_schema WHERE name = 'tokens_user'`)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	var at int64
	if _, err := fmt.Sscan(root[0], &at); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(strings.Repeat("damage", 100)), at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	st = open(t, path, store.Options{})
	if found, err := st.Check(t.Context()); len(found) == 0 && err == nil {
		t.Error("a broken page was not found")
	}
}
