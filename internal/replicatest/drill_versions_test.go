package replicatest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/internal/proctest"
)

// upgradedFrom is the commit that the drill upgrades from, unless PATD_DRILL_FROM names another.
const upgradedFrom = "a52bd6a"

// programOf builds the patd of a commit.
func programOf(t *testing.T, commit string) string {
	t.Helper()
	archive, err := exec.Command("git", "-C", "../..", "archive", commit).Output()
	if err != nil {
		proctest.Missing(t, "commit "+commit+" ("+err.Error()+")")
	}
	dir := t.TempDir()
	untar := exec.Command("tar", "-x", "-C", dir)
	untar.Stdin = bytes.NewReader(archive)
	must(t, untar.Run())
	path := filepath.Join(t.TempDir(), "patd-"+commit)
	build := exec.Command("go", "build", "-o", path, "./cmd/patd")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build patd of %s: %v\n%s", commit, err, out)
	}
	return path
}

// balancer sends calls to the replicas that are in rotation, as a load balancer does that asks /readyz.
type balancer struct {
	cluster *cluster
	calls   []sync.RWMutex // held by each call under way at a replica
}

func (b *balancer) call(call func(*api) error) error {
	for {
		n := rand.IntN(len(b.calls))
		if !b.calls[n].TryRLock() {
			runtime.Gosched()
			continue
		}
		defer b.calls[n].RUnlock()
		return call(b.cluster.replicas[n].now())
	}
}

// exchange replaces a replica by one of another program, once it is out of rotation.
func (b *balancer) exchange(t *testing.T, n int, path string) {
	t.Helper()
	b.calls[n].Lock()
	defer b.calls[n].Unlock()
	r := b.cluster.replicas[n]
	r.stop()
	r.path = path
	must(t, r.start())
}

// TestDrillUpgrade goes from the program and the schema of an earlier commit to this one, back with the program, and
// forth again, one server after the other under load. No call fails, and no change is lost.
func TestDrillUpgrade(t *testing.T) {
	longtest.Drill(t)
	from := upgradedFrom
	if commit := os.Getenv("PATD_DRILL_FROM"); commit != "" {
		from = commit
	}
	before := programOf(t, from)
	now, err := program()
	must(t, err)
	db := dbtest.Postgres(t)
	c := &cluster{t: t, path: before, db: db, schema: "patd", key: filepath.Join(t.TempDir(), "hash.key")}
	was := c.run("migrate", "--hash-key-file", c.key)
	c.admin = c.run("service", "create", "test", "--permission", "admin", "--hash-key-file", c.key)
	t.Cleanup(c.end)
	for n := range 3 {
		c.add(n, db.Addr())
	}
	c.startAll()
	b := &balancer{cluster: c, calls: make([]sync.RWMutex, len(c.replicas))}
	l := startLoadOver(t, 6, b.call)
	lets(t)
	said, err := run(now, c.env(db.Addr()), "migrate", "--hash-key-file", c.key)
	must(t, err)
	t.Logf("%s: %s; now: %s", from, was, said)
	lets(t)
	exchanged := 0
	for _, path := range []string{now, before, now} {
		for n := range c.replicas {
			b.exchange(t, n, path)
			exchanged++
		}
		lets(t)
		hearEachOther(t, c, fmt.Sprint("after ", exchanged, " exchanges"))
	}
	calls := l.end()
	for _, path := range []string{before, now} {
		if said, err := run(
			path,
			c.env(db.Addr()),
			"check",
			"--hash-key-file",
			c.key,
		); err != nil ||
			!strings.HasPrefix(said, "ok: ") {
			t.Errorf("check: %s, %v", said, err)
		}
	}
	wholeChanges(t, c)
	for _, tok := range l.ended {
		for _, r := range c.replicas {
			if got, err := r.now().decide(t.Context(), tok.secret); err != nil || got != revoked {
				t.Errorf("%s says of a token that was revoked that it is %s, %v", r.name, got, err)
			}
		}
	}
	if len(l.ended) < 30 {
		t.Errorf("%d tokens lived: the drill proves nothing", len(l.ended))
	}
	t.Logf(
		"figures: %d servers exchanged, %d calls of which none failed, %d tokens lived",
		exchanged,
		calls,
		len(l.ended),
	)
}

// skewed is what the drill makes of Go's time.Now: it adds PATD_TEST_SKEW seconds to the clock's time of day.
const skewed = `
var skew = func() (seconds int64) {
	text, _ := syscall.Getenv("PATD_TEST_SKEW")
	sign := int64(1)
	for i, c := range []byte(text) {
		if i == 0 && c == '-' {
			sign = -1
			continue
		}
		seconds = seconds*10 + int64(c-'0')
	}
	return sign * seconds
}()
`

// skewedProgram builds a patd whose clock can be wrong. Programs in Go read the clock without the C library, so that
// nothing that is laid under that would do.
func skewedProgram(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	must(t, err)
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	must(t, err)
	was := string(text)
	for old, put := range map[string]string{
		"	\"math/bits\"\n": "	\"math/bits\"\n	\"syscall\"\n",
		"func Now() Time {\n	sec, nsec, mono := runtimeNow()\n": "func Now() Time {\n	sec, nsec, mono := runtimeNow()\n	sec += skew\n",
	} {
		if !strings.Contains(was, old) {
			t.Fatalf("%s does not say %q", source, old)
		}
		was = strings.Replace(was, old, put, 1)
	}
	overlay, err := laidOver(map[string][]byte{source: []byte(was + skewed)})
	must(t, err)
	path, err := build("patd-skewed", "-overlay", overlay)
	must(t, err)
	return path
}

// TestDrillClockSkew has servers whose clocks are two minutes apart on one store, under load: no answered change is
// lost, what one revokes the others refuse in time, and a token ends by the clock of the server that is asked.
func TestDrillClockSkew(t *testing.T) {
	longtest.Drill(t)
	path := skewedProgram(t)
	c := newStore(t, dbtest.Postgres(t), "patd")
	for n, seconds := range []string{"-120", "0", "120"} {
		c.add(n, c.db.Addr())
		c.replicas[n].path, c.replicas[n].env = path, []string{"PATD_TEST_SKEW=" + seconds}
	}
	c.startAll()
	s := startShift(t, c, 6)
	lets(t)
	f := measure(t, c)
	f.judge(t)
	lets(t)
	made := s.end()
	s.verify(t)
	said, err := run(path, append(c.env(c.db.Addr()), "PATD_TEST_SKEW=120"), "doctor", "--hash-key-file", c.key)
	if !strings.Contains(said+fmt.Sprint(err), "they decide about expiry") {
		t.Errorf("doctor says nothing of a clock that is wrong: %s, %v", said, err)
	}
	t.Logf("figures: %d tokens; revocations by others: %s; %s", made, f, &s.counts)
}
