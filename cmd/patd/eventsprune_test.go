package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/config"
	"patd/cmd/patd/internal/cli/storeadmin"
	"patd/tokens"
)

// handClock is a clock that a test sets, while the store's own goroutines read it.
type handClock struct{ at atomic.Pointer[time.Time] }

func newHandClock() *handClock {
	k := &handClock{}
	k.set(time.Now().UTC())
	return k
}

func (k *handClock) now() time.Time  { return *k.at.Load() }
func (k *handClock) set(t time.Time) { k.at.Store(&t) }

// opens makes a store in a new directory, for a command whose clock is a test's.
func opens(t *testing.T, k *handClock) (*cli.Command, *storeadmin.Opened) {
	t.Helper()
	c := &cli.Command{
		System: cli.System{Stderr: io.Discard, Getenv: func(string) (string, bool) { return "", false }},
		Now:    k.now,
	}
	o, err := storeadmin.Open(t.Context(), c, &config.Settings{DataDir: t.TempDir()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, o
}

// TestTheAuditLogIsPrunedByAgeAndArchived prunes as the command does: what is deleted stands in the archive, and an
// event says so.
func TestTheAuditLogIsPrunedByAgeAndArchived(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	c, o := opens(t, clock)
	service, err := storeadmin.Accounts(c, o)
	if err != nil {
		t.Fatal(err)
	}
	create := func(n int) {
		t.Helper()
		for i := range n {
			r := tokens.ServiceRequest{
				Name:        fmt.Sprintf("s%d-%d", clock.now().Unix(), i),
				Permissions: []string{"introspect"},
			}
			if _, err := service.CreateService(t.Context(), tokens.Operator(), r); err != nil {
				t.Fatal(err)
			}
		}
	}
	create(30)
	clock.set(clock.now().AddDate(0, 0, 10))
	create(7)
	archive := &storeadmin.EventArchive{Path: filepath.Join(t.TempDir(), "events.jsonl")}
	released, err := tokens.PruneEvents(
		t.Context(),
		o.Store,
		tokens.Pruning{Before: clock.now().AddDate(0, 0, -1), Archive: archive.Write},
		clock.now(),
	)
	if err != nil {
		t.Fatal(err)
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := o.DeleteReleased(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(archive.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the mode of the archive: %v, %v", info.Mode(), err)
	}
	created, lines, last := 0, int64(0), uint64(0)
	for lineOf := bufio.NewScanner(file); lineOf.Scan(); lines++ {
		var e storeadmin.ArchivedEvent
		if err := json.Unmarshal(
			lineOf.Bytes(),
			&e,
		); err != nil || e.Position <= last || e.Actor != "operator" ||
			e.Outcome != "SUCCESS" {
			t.Fatalf("line %d of the archive: %s, %v", lines, lineOf.Bytes(), err)
		}
		if last = e.Position; e.Action == "service.create" && e.Service != "" && e.TokenID != "" {
			created++
		}
	}
	if created != 30 || lines != released {
		t.Errorf("the archive has %d lines and %d created services, want %d and 30", lines, created, released)
	}
	left, _, err := service.Events(t.Context(), tokens.Operator(), tokens.EventFilter{}, tokens.Page{Size: 100})
	if err != nil || len(left) != 8 || left[0].Action != tokens.ActionAuditPrune || left[0].Actor != "operator" ||
		!strings.HasPrefix(
			left[0].Detail,
			fmt.Sprintf("%d events before ", released),
		) || !strings.HasSuffix(left[0].Detail, ", archived") {
		t.Errorf("%d events are left, %v; the newest is %+v", len(left), err, left[0])
	}
	if found, err := o.Check(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("check: %v, %v", found, err)
	}
	if err := (&storeadmin.EventArchive{Path: archive.Path}).Write(
		left,
	); err == nil ||
		!strings.Contains(err.Error(), "replaces none") {
		t.Errorf("an archive onto one that is there: %v", err)
	}
}

// TestAServerPrunesByItsRetention holds that events go within a day after --audit-retention, with one event of pruning
// a day.
func TestAServerPrunesByItsRetention(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	begin := clock.now()
	c, o := opens(t, clock)
	service, err := storeadmin.Accounts(c, o)
	if err != nil {
		t.Fatal(err)
	}
	const keep = 30 * 24 * time.Hour
	prunings := 0
	for hour := range 24 * 40 {
		now := begin.Add(time.Duration(hour) * time.Hour)
		clock.set(now)
		if hour%8 == 0 {
			if _, err := service.CreateService(
				t.Context(),
				tokens.Operator(),
				tokens.ServiceRequest{Name: fmt.Sprint(hour), Permissions: []string{"audit"}},
			); err != nil {
				t.Fatal(err)
			}
		}
		n, err := o.PruneOlder(t.Context(), keep, now)
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			prunings++
		}
		due, err := tokens.PruneDue(t.Context(), o.Store, now.Add(-keep-config.PruneSlack))
		if err != nil || due {
			t.Fatalf("in hour %d an event is older than the retention and a day, %v", hour, err)
		}
	}
	if prunings < 8 || prunings > 11 {
		t.Errorf("%d prunings in the 10 days after the retention, want one a day", prunings)
	}
	if found, err := o.Check(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("check: %v, %v", found, err)
	}
	for given, good := range map[time.Duration]bool{0: true, time.Hour: false, 24 * time.Hour: true} {
		s := config.Settings{DefaultTTL: 1, MaxTTL: 1, AuditRetention: cli.Duration(given)}
		if _, err := s.Policy(true); (err == nil) != good {
			t.Errorf("--audit-retention %s: %v", given, err)
		}
	}
}

// TestAPruningThatCannotArchiveDeletesNothing gives the command archives that cannot be made. An export that an earlier
// pruning has overtaken says which events it lacks.
func TestAPruningThatCannotArchiveDeletesNothing(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	data, export := filepath.Join(dir, "data"), filepath.Join(dir, "events.jsonl")
	does := func(code int, want string, args ...string) {
		t.Helper()
		out, errs, got := runAt(t, now, append(args, "--data-dir", data)...)
		if got != code || !strings.Contains(out+errs, want) {
			t.Errorf("patd %s: exit %d, want %d and %q in\n%s%s", strings.Join(args, " "), got, code, want, out, errs)
		}
	}
	does(cli.ExitOK, "", "service", "create", "one", "--permission", "audit")
	does(cli.ExitOK, "up to position 3\n", "events", "export", export)
	does(cli.ExitOK, "", "service", "create", "two", "--permission", "audit")
	does(cli.ExitOK, "", "service", "create", "three", "--permission", "audit")
	now = now.AddDate(0, 0, 10)
	taken := filepath.Join(dir, "taken.jsonl")
	if err := os.WriteFile(taken, []byte("of another month\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	prune := []string{"events", "prune", "--older-than", "1d", "--archive"}
	does(cli.ExitFault, "archive events in "+taken+": there is such a file already, and an archive replaces none",
		append(prune, taken)...)
	if text, err := os.ReadFile(taken); err != nil || string(text) != "of another month\n" {
		t.Errorf("the file that was there: %s, %v", text, err)
	}
	does(cli.ExitFault, "no such file or directory", append(prune, filepath.Join(dir, "nowhere", "archive.jsonl"))...)
	does(cli.ExitOK, "up to position 5\n", "events", "export", filepath.Join(dir, "all.jsonl"))

	archive := filepath.Join(dir, "archive.jsonl")
	does(cli.ExitOK, `"deleted": 5`, append(prune, archive, "--json")...)
	all, err := os.ReadFile(filepath.Join(dir, "all.jsonl"))
	if text, failed := os.ReadFile(archive); err != nil || failed != nil || string(text) != string(all) {
		t.Errorf("the archive is not what was deleted: %v, %v\n%s", err, failed, text)
	}
	does(cli.ExitOK, "events from position 4 to 5 were pruned, and some of them before they were exported",
		"events", "export", export)
	does(cli.ExitOK, "ok: ", "check")
}
