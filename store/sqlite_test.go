package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"patd/store"
	"patd/tokens"
)

// code is the reason of a domain error, or empty.
func reason(err error) string {
	var e *tokens.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "patd.db") }

func TestEveryConnectionHasItsSettings(t *testing.T) {
	t.Parallel()
	st := create(t, newPath(t), store.Options{Connections: 3, BusyTimeout: 1234 * time.Millisecond})
	for pragma, want := range map[string]string{
		"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "1234", "trusted_schema": "0",
	} {
		got, err := st.OnEveryConnection(t.Context(), pragma)
		if err != nil {
			t.Fatal(err)
		}
		for pool, n := range map[string]int{"writer": 1, "lookups": 3, "views": 3} {
			if len(got[pool]) != n || slices.ContainsFunc(got[pool], func(v string) bool { return v != want }) {
				t.Errorf("%s of the %d connections of %s: %v, want %s", pragma, n, pool, got[pool], want)
			}
		}
	}
	got, err := st.OnEveryConnection(t.Context(), "query_only")
	if err != nil {
		t.Fatal(err)
	}
	if got["writer"][0] != "0" || slices.Contains(got["lookups"], "0") || slices.Contains(got["views"], "0") {
		t.Errorf("query_only: %v, want it on readers only", got)
	}
}

func TestOnlyTheOwnerCanReadTheFiles(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	st := create(t, path, store.Options{})
	put(t, st, "acme")
	for _, name := range []string{path, path + "-wal", path + "-shm", path + ".lock"} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode != 0o600 {
			t.Errorf("mode of %s is %o, want 600", filepath.Base(name), mode)
		}
	}
}

func TestOpenRefusesOtherURLs(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "patd.db", "postgres://host/db", "mysql:x", "sqlite:", "sqlite::memory:"} {
		if st, err := store.Open(t.Context(), url, store.Options{}); err == nil {
			_ = st.Close()
			t.Errorf("%q was opened", url)
		}
	}
	missing := "sqlite:" + filepath.Join(t.TempDir(), "no", "patd.db")
	if _, err := store.Open(t.Context(), missing, store.Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in a directory that does not exist: %v", err)
	}
}

func TestPathsWithSpecialCharacters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"a b?c#d%20e.db", "ü&mode=ro.db"} {
		put(t, create(t, filepath.Join(dir, name), store.Options{}), "acme")
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestAForeignFileIsRefusedAndNotChanged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text, foreign := filepath.Join(dir, "text"), filepath.Join(dir, "foreign.db")
	if err := os.WriteFile(text, bytes.Repeat([]byte("not a database\n"), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", foreign)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `CREATE TABLE theirs (a)`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{text, foreign} {
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = store.Open(t.Context(), "sqlite:"+path, store.Options{})
		if err == nil || !strings.Contains(err.Error(), "patd") {
			t.Errorf("%s: got %v, want a refusal that says what it is not", filepath.Base(path), err)
		}
		after, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(before, after) {
			t.Errorf("%s was changed", filepath.Base(path))
		}
	}
}

// TestANewerSchemaIsRefusedUnlessItSuffersThisProgram holds what a rolling upgrade and a way back rest on.
func TestANewerSchemaIsRefusedUnlessItSuffersThisProgram(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	st := open(t, path, store.Options{})
	exec1(t, st, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)`)
	again, err := store.Open(t.Context(), "sqlite:"+path, store.Options{})
	if err != nil {
		t.Fatalf("a later schema that only adds: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	exec1(t, st, `UPDATE compatibility SET oldest = 9999`)
	_, err = store.Open(t.Context(), "sqlite:"+path, store.Options{})
	if !errors.Is(err, store.ErrSchema) || !strings.Contains(err.Error(), "newer patd") {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestMigrationsFromEmpty(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	st := open(t, path, store.Options{})
	loose, err := st.Texts(t.Context(), 0, `
SELECT name FROM pragma_table_list
WHERE schema = 'main' AND type = 'table' AND NOT strict AND name NOT LIKE 'sqlite_%' AND name <> 'goose_db_version'`)
	if err != nil || len(loose) != 0 {
		t.Errorf("tables that are not STRICT: %v, %v", loose, err)
	}
	id, err := st.Texts(t.Context(), 0, `PRAGMA application_id`)
	if err != nil || id[0] != "1885434980" {
		t.Errorf("application id %v, %v", id, err)
	}
	if found, err := st.Check(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("check of an empty store: %v, %v", found, err)
	}
}

func TestSimultaneousFirstStarts(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	var g errgroup.Group
	for range 8 {
		g.Go(func() error {
			st, err := store.Open(t.Context(), "sqlite:"+path, store.Options{})
			if err != nil {
				return err
			}
			return errors.Join(st.Ready(t.Context()), st.Close())
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestIndexesAreUsed(t *testing.T) {
	t.Parallel()
	st := open(t, newPath(t), store.Options{})
	for statement, want := range store.Statements() {
		plan, err := st.Texts(t.Context(), 3, "EXPLAIN QUERY PLAN "+statement, slices.Repeat([]any{1}, 12)...)
		if err != nil {
			t.Errorf("%s: %v", statement, err)
			continue
		}
		for _, w := range want {
			if !slices.ContainsFunc(plan, func(step string) bool { return strings.Contains(step, w) }) {
				t.Errorf("plan of %s\n%s\nwant %s", statement, strings.Join(plan, "\n"), w)
			}
		}
		for _, step := range plan {
			if strings.HasPrefix(step, "SCAN") || strings.Contains(step, "TEMP B-TREE") {
				t.Errorf("plan of %s\n%s\nscans or sorts", statement, strings.Join(plan, "\n"))
			}
		}
	}
}

// TestWhatIsSortedIsOneUsers looks at statements that sort the tokens of a user: all of them in the index alone, before
// a row is read, or the live ones.
func TestWhatIsSortedIsOneUsers(t *testing.T) {
	t.Parallel()
	st := open(t, newPath(t), store.Options{})
	for statement, want := range store.SortedByUser() {
		plan, err := st.Texts(t.Context(), 3, "EXPLAIN QUERY PLAN "+statement, slices.Repeat([]any{1}, 14)...)
		if err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
		steps := strings.ReplaceAll(strings.Join(plan, "\n"), "SCAN p\n", "") // the ids, as they are sorted
		for _, w := range want {
			if !strings.Contains(steps, w) {
				t.Errorf("plan of %s\n%s\nwant %s", statement, steps, w)
			}
		}
		if strings.Contains(steps, "SCAN") || strings.Count(steps, "TEMP B-TREE") != len(want)-1 {
			t.Errorf("plan of %s\n%s\nscans, or sorts more", statement, steps)
		}
	}
}

// TestAnEarlierProgramIsKeptFromTheFile: its statements name indexes that are gone.
func TestAnEarlierProgramIsKeptFromTheFile(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	old, err := store.MakeOld(t.Context(), path, 24)
	must(t, err)
	must(t, old.Close())
	st := open(t, path, store.Options{})
	if oldest := texts(t, st, `SELECT oldest FROM compatibility`); oldest != fileSchema {
		t.Errorf("programs that know migration %s may use it", oldest)
	}
	indexes := texts(t, st, `SELECT group_concat(name, ' ' ORDER BY name) FROM sqlite_schema
WHERE type = 'index' AND tbl_name = 'tokens' AND sql IS NOT NULL`)
	if want := "tokens_blocked tokens_exceeding tokens_expire tokens_paused tokens_revoked tokens_user"; indexes != want {
		t.Errorf("the indexes of tokens are %s, want %s", indexes, want)
	}
}

// put changes the store a little.
func put(t testing.TB, st tokens.Store, prefix string) {
	t.Helper()
	if err := tryPut(context.Background(), st, prefix); err != nil {
		t.Fatalf("put a prefix: %v", err)
	}
}

func tryPut(ctx context.Context, st tokens.Store, prefix string) error {
	return st.Update(ctx, func(tx tokens.Tx) ([]tokens.Event, error) {
		e := tokens.Event{
			Time:    time.Now(),
			Actor:   "operator",
			Action:  tokens.ActionPrefixAdd,
			Outcome: tokens.OutcomeSuccess,
		}
		return []tokens.Event{e}, tx.PutPrefix(prefix)
	})
}

func prefixes(t testing.TB, st tokens.Store) (list []string) {
	t.Helper()
	err := st.View(context.Background(), func(tx tokens.ReadTx) (err error) {
		list, err = tx.Prefixes()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}
