package store_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/store"
)

// TestNothingChangesInTheOriginOfACopy tries to, in the middle: no change is answered that the copy would not have.
func TestNothingChangesInTheOriginOfACopy(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	server := dbtest.SharedPostgres(t)
	file := newPath(t)
	everything(t, file, 10)
	url := emptyDatabase(server)
	copyInto(t, open(t, file, store.Options{}), url, "into PostgreSQL")
	for name, st := range map[string]*store.Store{
		"sqlite":   open(t, file, store.Options{BusyTimeout: 10 * time.Millisecond}),
		"postgres": openURL(t, url, store.Options{BusyTimeout: 2 * time.Second}),
	} {
		for _, to := range []string{emptyDatabase(server), "sqlite:" + newPath(t)} {
			tried := false
			_, err := st.Copy(t.Context(), to, store.Options{}.BeforeVerify(func(func(string) error) error {
				tried = true
				if err := tryPut(t.Context(), st, "lost"); err == nil {
					t.Errorf("%s: a change was answered while the store was copied", name)
				}
				return nil
			}))
			if err != nil || !tried {
				t.Errorf("%s: %v, tried %t", name, err, tried)
			}
		}
		later := tryPut(t.Context(), st, "later")
		for try := 0; later != nil && try < 1000; try++ { // the file is open a second time, and the wait for its lock is short
			later = tryPut(t.Context(), st, "later")
		}
		if later != nil {
			t.Errorf("%s: a change after the copies: %v", name, later)
		}
	}
}

// TestABackupOfPostgresIsAStoreInAFile changes the store in the middle, which waits for nothing and is not in the
// backup.
func TestABackupOfPostgresIsAStoreInAFile(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	server := dbtest.SharedPostgres(t)
	st := open(t, newPath(t), store.Options{})
	id := fill(t, st, 100)[0]
	url := emptyDatabase(server)
	copyInto(t, st, url, "into PostgreSQL")
	put(t, openURL(t, url, store.Options{}), "early")
	var remote *store.Store
	remote = openURL(t, url, store.Options{}.BeforeVerify(func(func(string) error) error {
		return tryPut(t.Context(), remote, "late")
	}))
	path := filepath.Join(t.TempDir(), "backup.db")
	if err := remote.Backup(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup's mode: %v, %v", info.Mode(), err)
	}
	kept := open(t, path, store.Options{})
	if found, err := kept.Check(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("check of the backup: %v, %v", found, err)
	}
	if n, want := count(
		t,
		kept,
		"prefixes WHERE prefix = 'early'",
	), count(
		t,
		kept,
		"prefixes WHERE prefix = 'late'",
	); n != "1" ||
		want != "0" {
		t.Errorf("changes before and during the backup that are in it: %s, %s", n, want)
	}
	if n := count(t, remote, "prefixes WHERE prefix = 'late'"); n != "1" {
		t.Errorf("changes during the backup that are in the store: %s", n)
	}
	if got, want := lookup(
		t,
		kept,
		id,
	), lookup(
		t,
		remote,
		id,
	); got.Token.Name != want.Token.Name ||
		!cmp.Equal(got.Secrets, want.Secrets) {
		t.Errorf("a token in the backup is %v, want %v", got.Token, want.Token)
	}
	restored := emptyDatabase(server)
	copyInto(t, kept, restored, "restored")
	again := openURL(t, restored, store.Options{})
	if found, err := again.Check(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("check of what was restored: %v, %v", found, err)
	}
	if err := remote.Backup(t.Context(), path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto a file that exists: %v", err)
	}
}
