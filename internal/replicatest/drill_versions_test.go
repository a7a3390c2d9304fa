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

// TestDrillUpgrade goes from the program and the schema of an earlier commit to this one, back with the program, and forth again, one
// server after the other under load. No call fails, and no change is lost.
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
		if said, err := run(path, c.env(db.Addr()), "check", "--hash-key-file", c.key); err != nil || !strings.HasPrefix(said, "ok: ") {
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
	t.Logf("figures: %d servers exchanged, %d calls of which none failed, %d tokens lived", exchanged, calls, len(l.ended))
}
