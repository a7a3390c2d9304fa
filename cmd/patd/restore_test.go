package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"patd/cmd/patd/internal/cli"
)

// runAt runs a command in this process, without variables, by a clock that stands. It returns what the command prints,
// and its exit code.
func runAt(t *testing.T, at time.Time, args ...string) (out, errs string, code int) {
	t.Helper()
	return runIn(t.Context(), at, args...)
}

// runIn is runAt under a context.
func runIn(ctx context.Context, at time.Time, args ...string) (out, errs string, code int) {
	var stdout, stderr strings.Builder
	c := &cli.Command{Now: func() time.Time { return at }, System: cli.System{
		Stdin:  strings.NewReader(""),
		Stdout: &stdout,
		Stderr: &stderr,
		Getenv: func(string) (string, bool) { return "", false },
	}}
	root := newRoot(c)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	code = exitCode(c, cmd, err)
	if c.Log != nil {
		_ = c.Log.Close() // writes what is in it
	}
	return stdout.String(), stderr.String(), code
}

// TestRestoresInOneSecondKeepEachStore restores again and again by a clock that stands: each store that was there is
// kept under a name of its own.
func TestRestoresInOneSecondKeepEachStore(t *testing.T) {
	t.Parallel()
	data, backup := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "copy.db")
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	for _, args := range [][]string{{"service", "list"}, {"backup", backup}} {
		if _, errs, code := runAt(t, at, append(args, "--data-dir", data)...); code != 0 {
			t.Fatalf("%v: %s", args, errs)
		}
	}
	for _, kept := range []string{"", "-2", "-3"} {
		name := filepath.Join(data, "patd.db.before-restore-20260504T030201Z"+kept)
		here, err := os.Stat(filepath.Join(data, "patd.db"))
		if err != nil {
			t.Fatal(err)
		}
		_, errs, code := runAt(t, at, "restore", backup, "--data-dir", data)
		if code != 0 || !strings.Contains(errs, "the store that was there is "+name+"\n") {
			t.Fatalf("restore: exit %d, %s; want the store kept as %s", code, errs, name)
		}
		if was, err := os.Stat(name); err != nil || !os.SameFile(was, here) {
			t.Errorf("%s is not the store that was there: %v", name, err)
		}
	}
}
