package replicatest

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/internal/pagetest"
	"patd/internal/proctest"
	"patd/internal/waittest"
)

// TestLitestream has Litestream copy a store in a file while clients work, loses the machine, restores the copy
// elsewhere and replays an export of the events: nothing that was revoked works again, as far as the export goes.
func TestLitestream(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	m := newCopiedMachine(t)
	work, stop := keepDoing(t, m.cluster, 4)
	m.restored(t, work, stop, func() {
		waittest.Within(t, patience, "clients have worked", func() bool { return work.count() > 50 })
	})
}

// TestDrillLitestream is the same for as long as drills last; Litestream stops with the machine.
func TestDrillLitestream(t *testing.T) {
	longtest.Drill(t)
	m := newCopiedMachine(t)
	work, stop := keepDoing(t, m.cluster, 6)
	oldest := m.restored(t, work, stop, func() { lets(t); lets(t) })
	if oldest > bound {
		t.Errorf("the copy lacks what was answered %s before Litestream stopped", oldest)
	}
}

// copiedMachine is a machine with a store in a file, which Litestream and an export of the events copy to another
// place.
type copiedMachine struct {
	path, litestream string
	data             string // the machine's
	elsewhere        string // of what is kept: the key, the copy, the events
	server           *daemon
	cluster          *cluster // of the server alone
	copier, exporter *exec.Cmd
	said             *proctest.Output
}

func newCopiedMachine(t *testing.T) *copiedMachine {
	t.Helper()
	litestream, err := filepath.Abs("testdata/litestream/venv/bin/litestream")
	must(t, err)
	if _, err := os.Stat(litestream); err != nil {
		proctest.Missing(
			t,
			"litestream (requirements.txt of internal/replicatest/testdata/litestream, in a venv there)",
		)
	}
	path, err := program()
	must(t, err)
	m := &copiedMachine{
		path:       path,
		litestream: litestream,
		data:       filepath.Join(t.TempDir(), "patd"),
		elsewhere:  t.TempDir(),
		said:       proctest.NewOutput(),
	}
	admin, err := run(path, nil, "service", "create", "test", "--permission", "admin", "--data-dir", m.data)
	must(t, err)
	key, err := os.ReadFile(filepath.Join(m.data, "hash.key"))
	must(t, err)
	must(t, os.WriteFile(m.kept("hash.key"), key, 0o600))
	m.server, err = start(path, nil, "--data-dir", m.data, "--log-level", "warn")
	must(t, err)
	t.Cleanup(m.server.Kill)
	a, err := connect(m.server, admin)
	must(t, err)
	t.Cleanup(func() { a.conn.Close() })
	m.cluster = &cluster{t: t, admin: admin, replicas: []*replica{{api: a}}}

	// As docs/running.md says, but for the places.
	config := pagetest.Blocks(t, "yaml litestream")[0].Text
	for was, is := range map[string]string{"/var/lib/patd": m.data, "s3://backups.example.com/patd": m.replica()} {
		if !strings.Contains(config, was) {
			t.Fatalf("%q is not in\n%s", was, config)
		}
		config = strings.ReplaceAll(config, was, is)
	}
	must(t, os.WriteFile(m.kept("litestream.yml"), []byte(config), 0o600))
	m.copier = m.start(t, litestream, "replicate", "-config", m.kept("litestream.yml"))
	m.exporter = m.start(t, path, "events", "export", m.kept("events.jsonl"), "--follow", "--data-dir", m.data)
	return m
}

func (m *copiedMachine) kept(name string) string { return filepath.Join(m.elsewhere, name) }

func (m *copiedMachine) replica() string { return "file://" + m.kept("replica") }

// start starts a program that runs until it is killed.
func (m *copiedMachine) start(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = m.said, m.said, attached()
	must(t, cmd.Start())
	t.Cleanup(func() { kill(cmd) })
	return cmd
}

func kill(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// restore restores the copy into a file.
func (m *copiedMachine) restore(t *testing.T, file string) error {
	out, err := exec.CommandContext(t.Context(), m.litestream, "restore", "-o", file, m.replica()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// exported reads the export: which tokens were minted and revoked, the position and the time of the last event.
func (m *copiedMachine) exported(t *testing.T) (events map[string]bool, last uint64, at time.Time) {
	t.Helper()
	text, err := os.ReadFile(m.kept("events.jsonl"))
	must(t, err)
	events = map[string]bool{}
	for line := range bytes.Lines(text) {
		var e struct {
			Position        uint64
			Time            time.Time
			Action, Outcome string
			TokenID         string `json:"token_id"`
		}
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // it was being written
		}
		must(t, json.Unmarshal(line, &e))
		last, at = e.Position, e.Time
		if e.Outcome == "SUCCESS" && (e.Action == "token.create" || e.Action == "token.revoke") {
			events[fmt.Sprint(e.TokenID, " ", e.Action == "token.revoke")] = true
		}
	}
	return events, last, at
}

// storeIn reads the same from a store in a file.
func storeIn(t *testing.T, file string) (events map[string]bool, last uint64) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+file)
	must(t, err)
	defer db.Close()
	must(t, db.QueryRowContext(t.Context(), `SELECT coalesce(max(seq), 0) FROM events`).Scan(&last))
	return eventsOf(t, db, "main"), last
}

const (
	spared = 3  // tokens that keep on working
	doomed = 20 // tokens that are revoked after Litestream has stopped
)

// restored lets clients work, has tokens revoked that only the export knows of, loses the machine and makes another of
// what is kept elsewhere. It returns how long before Litestream stopped the oldest change was answered that the copy
// lacks.
func (m *copiedMachine) restored(t *testing.T, work *doing, stop, lets func()) time.Duration {
	t.Helper()
	list := make([]token, spared+doomed)
	a := m.cluster.replicas[0].api
	must(t, a.hold(t.Context(), "kept", "a"))
	for n := range list {
		var err error
		list[n], _, err = a.mint(t.Context(), "kept", fmt.Sprint("kept ", n), "")
		must(t, err)
	}
	lets()
	stopped := m.lose(t, work, list)
	stop()

	dir := filepath.Join(t.TempDir(), "patd")
	must(t, os.Mkdir(dir, 0o700))
	if err := m.restore(t, filepath.Join(dir, "patd.db")); err != nil {
		t.Fatalf("restore: %v; replicate said\n%s", err, m.said.Tail())
	}
	key, err := os.ReadFile(m.kept("hash.key"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "hash.key"), key, 0o600))
	m.sound(t, dir)
	newest, oldest := m.compare(t, filepath.Join(dir, "patd.db"), work, list, stopped)

	said, err := run(m.path, nil, "restore", "--replay", m.kept("events.jsonl"), "--data-dir", dir, "--json")
	must(t, err)
	var report struct {
		Replay struct{ From, To uint64 }
	}
	must(t, json.Unmarshal([]byte(said), &report))
	if _, last, _ := m.exported(t); report.Replay.From != newest+1 || report.Replay.To != last {
		t.Errorf("the replay names %+v, want %d to %d", report.Replay, newest+1, last)
	}
	t.Logf("figures: positions %d to %d were replayed", report.Replay.From, report.Replay.To)
	m.sound(t, dir)
	m.refuses(t, dir, work, list)
	return oldest
}

// lose stops Litestream, has tokens revoked, and loses the machine. It returns when Litestream stopped.
func (m *copiedMachine) lose(t *testing.T, work *doing, list []token) (stopped time.Time) {
	t.Helper()
	newest := list[len(list)-1].id
	waittest.Within(t, patience, "the copy has the tokens", func() bool {
		file := filepath.Join(t.TempDir(), "patd.db")
		if m.restore(t, file) != nil {
			return false
		}
		stands, _ := storeIn(t, file)
		return stands[newest+" false"]
	})
	kill(m.copier)
	stopped = time.Now()
	for _, tok := range list[spared:] {
		must(t, m.cluster.replicas[0].api.revoke(t.Context(), tok))
		work.add(tok, true)
	}
	waittest.Within(t, patience, "the export has what was revoked last", func() bool {
		events, _, _ := m.exported(t)
		return events[newest+" true"]
	})
	m.server.Kill()
	kill(m.exporter)
	must(t, os.RemoveAll(m.data))
	return stopped
}

func (m *copiedMachine) sound(t *testing.T, dir string) {
	t.Helper()
	if got, err := run(m.path, nil, "check", "--data-dir", dir); err != nil || !strings.HasPrefix(got, "ok: ") {
		t.Errorf("check: %s, %v", got, err)
	}
}

// compare wants that what a copy lacks is the end of the log, and that nothing which was answered before the export's
// last event is missing in both. It returns the position of the copy's newest event, and the age of the oldest change
// that it lacks.
func (m *copiedMachine) compare(
	t *testing.T,
	file string,
	work *doing,
	list []token,
	stopped time.Time,
) (newest uint64, oldest time.Duration) {
	t.Helper()
	stands, newest := storeIn(t, file)
	events, _, at := m.exported(t)
	missing, lost := 0, 0
	for _, one := range work.dones {
		key := fmt.Sprint(one.id, " ", one.revoked)
		if stands[key] {
			continue
		}
		missing++
		oldest = max(oldest, stopped.Sub(one.at))
		if events[key] {
			continue
		}
		if lost++; one.at.Before(at) {
			t.Errorf("%s was answered before the last event of the export, and is not in it", key)
		}
	}
	for key := range stands {
		if !events[key] {
			t.Errorf("%s is in the copy and not in the export, which goes further", key)
		}
	}
	for _, tok := range list[spared:] {
		if !stands[tok.id+" false"] || stands[tok.id+" true"] {
			t.Fatalf("%s, revoked after Litestream stopped, does not work in the copy: the test proves nothing", tok.id)
		}
	}
	t.Logf(
		"figures: %d changes answered; the copy lacks %d, the oldest from %s before Litestream stopped; the export lacks %d of these",
		len(work.dones),
		missing,
		oldest.Round(time.Millisecond),
		lost,
	)
	return newest, oldest
}

// refuses wants that a server on the restored store refuses what was revoked, as far as the export goes, and nothing
// else.
func (m *copiedMachine) refuses(t *testing.T, dir string, work *doing, list []token) {
	t.Helper()
	d, err := start(m.path, nil, "--data-dir", dir, "--log-level", "warn")
	must(t, err)
	t.Cleanup(d.Kill)
	a, err := connect(d, m.cluster.admin)
	must(t, err)
	defer a.conn.Close()
	events, _, _ := m.exported(t)
	revocations, again := 0, 0
	for _, one := range work.dones {
		if !one.revoked {
			continue
		}
		revocations++
		got, err := a.decide(t.Context(), one.secret)
		must(t, err)
		if got != allow {
			continue
		}
		if again++; events[one.id+" true"] {
			t.Errorf("%s, which was revoked, works again", one.id)
		}
	}
	for n, tok := range list {
		want := allow
		if n >= spared {
			want = revoked
		}
		if got, err := a.decide(t.Context(), tok.secret); err != nil || got != want {
			t.Errorf("token %d: %v, %v, want %v", n, got, err, want)
		}
	}
	must(t, d.Stop())
	for _, one := range []*daemon{m.server, d} {
		if text := one.Log.String(); raceFound.MatchString(text) {
			t.Errorf("a server said\n%s", text)
		}
	}
	t.Logf("figures: of %d revocations %d are lost", revocations, again)
}
