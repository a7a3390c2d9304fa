package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/tokens"
)

// wantError wants an error that holds each text.
func wantError(t *testing.T, err error, want ...string) {
	t.Helper()
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%q is missing in: %v", w, err)
		}
	}
}

// TestFlagsAreChecked holds that a setting which cannot do is refused before anything is made or measured.
func TestFlagsAreChecked(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "none")
	for want, all := range map[string][][]string{
		"no arguments; -tokens from 100": {
			{"extra"}, {"-tokens", "99"}, {"-working", "5"}, {"-working", "2000000"}, {"-rounds", "0"},
			{"-conns", "0"}, {"-period", "0s"}, {"-window", "0s"}, {"-rival-tokens", "0"},
		},
		"numbers from 1":            {{"-inflight", "0"}, {"-inflight", "4,"}, {"-inflight", "a"}},
		"no row \"speed\"":          {{"-rows", "unary,speed"}},
		"not defined: -speed":       {{"-speed"}},
		"generate: -dir is needed":  {{"generate"}, {"generate", "-tokens", "99", "-dir", dir}, {"generate", "-dir", dir, "a"}},
		"not defined: -rounds":      {{"generate", "-rounds", "1"}},
		"read the ids of /dev/null": {{"generate", "-tokens", "100", "-dir", "/dev/null"}},
	} {
		for _, args := range all {
			var out bytes.Buffer
			wantError(t, run(t.Context(), args, &out), want)
			if out.Len() > 0 {
				t.Errorf("%q prints %s", args, &out)
			}
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory was made: %v", err)
	}
}

// TestStoresAreKept holds that a store is made once, and that one which is damaged is not measured.
func TestStoresAreKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, "tokens-100", name) }
	generate := func(ctx context.Context) (string, error) {
		var out bytes.Buffer
		err := run(ctx, []string{"generate", "-tokens", "100", "-dir", dir}, &out)
		return out.String(), err
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := generate(over)
	wantError(t, err, "generate 100 tokens: ", context.Canceled.Error())
	if _, err := os.Stat(filepath.Dir(at(idsFile))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a store is kept: %v", err)
	}
	if out, err := generate(t.Context()); err != nil || !strings.HasPrefix(out, "generated 100 tokens in ") {
		t.Fatalf("%s, %v", out, err)
	}
	if out, err := generate(t.Context()); err != nil || out != "" {
		t.Errorf("made again: %s, %v", out, err)
	}
	d, err := generated(t.Context(), dir, 100, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if texts, err := d.presentable(t.Context(), 50); err != nil || len(texts) < 10 || len(texts) > 90 {
		t.Errorf("%d tokens of half the users, %v", len(texts), err)
	}
	others := dataset{dir: d.dir, ids: make([]tokens.ID, 100)}
	_, err = others.presentable(t.Context(), 50)
	wantError(t, err, "is not among those that were generated")
	if err := os.Remove(at("patd.db")); err != nil {
		t.Fatal(err)
	}
	_, err = d.presentable(t.Context(), 50)
	wantError(t, err, "unable to open database file")
	if err := os.Truncate(at(idsFile), 799); err != nil {
		t.Fatal(err)
	}
	_, err = generate(t.Context())
	wantError(t, err, "read the ids of "+filepath.Dir(at(idsFile)), "remove the directory and try again")
}

// TestPrograms runs patbench as its user does.
func TestPrograms(t *testing.T) {
	t.Parallel()
	program := named(t, "patbench")
	out, err := exec.CommandContext(t.Context(), program, "-rounds", "0").CombinedOutput()
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 1 ||
		!strings.HasPrefix(string(out), "patbench: no arguments; ") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestPatdThatFails holds that the failure of a patd is an error that has what it wrote.
func TestPatdThatFails(t *testing.T) {
	longtest.Slow(t)
	dir := t.TempDir()
	for fault, want := range map[string][]string{
		"refuses": {"create a service: exit status 3: the store is locked"},
		"ends":    {"start patd: it ended before it was ready, exit status 0: panic: out of memory"},
		"dies":    {"warm up: ", "patd ended, exit status 2: ", "panic: out of memory"},
	} {
		t.Run(fault, func(t *testing.T) {
			args := []string{"-tokens", "100", "-rows", "start", "-dir", dir, "-patd", named(t, "patd."+fault)}
			wantError(t, run(t.Context(), args, &bytes.Buffer{}), want...)
		})
	}
	t.Run("is not there", func(t *testing.T) {
		args := []string{"-tokens", "100", "-rows", "start", "-dir", dir, "-patd", "/none/patd"}
		wantError(t, run(t.Context(), args, &bytes.Buffer{}), "create a service: ", "/none/patd")
	})
	t.Run("cannot be built", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		args := []string{"-tokens", "100", "-rows", "start", "-dir", dir}
		wantError(t, run(t.Context(), args, &bytes.Buffer{}), "build patd: ")
	})
}

// TestRowsThatFail holds that the other programs that rows run are named by their failures, with what they wrote.
func TestRowsThatFail(t *testing.T) {
	longtest.Slow(t)
	var out bytes.Buffer
	b := newRig(t, &out)
	refuses := named(t, "patd.refuses")
	other := *b
	other.earlier = refuses
	wantError(t, other.before(t.Context()), "prepare "+refuses+": ", "exit status 3: the store is locked")
	other.earlier = named(t, "patd.ends")
	other.work = t.TempDir()
	wantError(t, other.before(t.Context()), "prepare "+other.earlier+": start patd: it ended", "out of memory")
	other.database, other.patd = "postgres://patd@127.0.0.1:1/patd", refuses
	wantError(t, other.postgres(t.Context()), "copy the store: exit status 3: the store is locked")
	other.patd = named(t, "patd.ends")
	wantError(t, other.postgres(t.Context()), "start patd on PostgreSQL: it ended", "out of memory")
	wantError(t, other.start(t.Context()), "start patd: it ended before it was ready", "out of memory")
	other.openbao = named(t, "bao.refuses")
	wantError(
		t,
		other.rivals(t.Context()),
		"start OpenBao, "+other.openbao,
		"exit status 3; its log ends: the store is locked",
	)
	other.evenFor, other.window = 20*time.Millisecond, 10*time.Millisecond
	wantError(t, other.windows(t.Context()), "measure the empty call, unary gRPC: -windows is too short: ")
}

// newRig is a bench at work on the real patd, for one short round.
func newRig(t *testing.T, out *bytes.Buffer) *bench {
	t.Helper()
	patd, err := program()
	if err != nil {
		t.Fatal(err)
	}
	s := settings{
		tokens: 100, working: 100, rounds: 1, conns: 1, inFlight: counts{1}, period: time.Millisecond,
		dir: t.TempDir(), patd: patd, rivalTokens: 1,
	}
	ctx := context.WithoutCancel(t.Context()) // b.close is called after its end
	b, err := newBench(ctx, s, t.TempDir(), out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// TestWindowsAreMeasuredBesideTheEmptyCall holds that there is a line for the noise of the machine and for each way to
// ask patd, and a figure in each cell.
func TestWindowsAreMeasuredBesideTheEmptyCall(t *testing.T) {
	longtest.Slow(t)
	var out bytes.Buffer
	b := newRig(t, &out)
	b.evenFor, b.window = 600*time.Millisecond, 10*time.Millisecond
	if err := b.windows(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"the empty call, unary gRPC", "patd, Introspect, unary gRPC", "patd, IntrospectStream"} {
		_, line, found := strings.Cut(out.String(), "| "+name+" | ")
		line, _, _ = strings.Cut(line, " |\n")
		cells := strings.Split(line, " | ")
		if !found || len(cells) != 9 {
			t.Errorf("the line of %s: %q in\n%s", name, cells, &out)
			continue
		}
		figures := make([]float64, 8)
		for i := range figures {
			var err error
			if figures[i], err = strconv.ParseFloat(strings.TrimSuffix(cells[i], " %"), 64); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		inFlight, windows, mean, over, spread := figures[0], figures[1], figures[2], figures[3], figures[4:]
		if inFlight != 1 || windows < 10 || mean <= 0 || over < 0 || over > 100 ||
			!slices.IsSorted(spread) || spread[3] < 1 {
			t.Errorf("%s: %q", name, line)
		}
		if at, err := time.ParseDuration(cells[8]); err != nil || at < 0 {
			t.Errorf("%s: the most is after %s", name, cells[8])
		}
	}
}

// TestPostgresIsMeasured measures a server on a real PostgreSQL, with the tokens of the file.
func TestPostgresIsMeasured(t *testing.T) {
	longtest.Slow(t)
	s := dbtest.Postgres(t)
	t.Setenv("PGPASSWORD", s.Password)
	var out bytes.Buffer
	b := newRig(t, &out)
	b.database, b.period = s.PostgresURL(""), 20*time.Millisecond
	if err := b.postgres(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"100 tokens copied to PostgreSQL and verified in ", "patd on PostgreSQL's resident memory is ",
		"| Introspect, unary gRPC, warm, store in PostgreSQL against SQLite | 1 | ",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &out)
		}
	}
	wantError(t, b.postgres(t.Context()), "copy the store: exit status 1: ", "already") // it is no longer empty
}

// TestRowsWaitForEarlierUses holds that with -settle the line says what a token takes besides, and that the end of the
// bench is not waited for.
func TestRowsWaitForEarlierUses(t *testing.T) {
	longtest.Slow(t)
	var out bytes.Buffer
	b := newRig(t, &out)
	b.settle, b.period = time.Second, time.Nanosecond // each measurement calls once at least
	if err := b.unary(t.Context()); err != nil {
		t.Fatal(err)
	}
	cells := strings.Split(strings.TrimSuffix(out.String(), " |\n"), " | ")
	if _, err := strconv.ParseFloat(cells[len(cells)-1], 64); err != nil {
		t.Errorf("%v in\n%s", err, &out)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.unary(over); !errors.Is(err, context.Canceled) {
		t.Errorf("the end of the bench: %v", err)
	}
}
