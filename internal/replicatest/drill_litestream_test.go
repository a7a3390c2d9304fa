package replicatest

import (
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"patd/internal/longtest"
)

// TestDrillLitestream has Litestream copy a store in a file while clients work, loses the machine, and restores the copy elsewhere:
// it is whole, and lacks only what was changed last.
func TestDrillLitestream(t *testing.T) {
	longtest.Drill(t)
	path, err := program()
	must(t, err)
	litestream := filepath.Join(t.TempDir(), "litestream")
	// A module of its own, since it needs the clients of every cloud.
	out, err := exec.Command("go", "build", "-C", "testdata/litestream", "-o", litestream, "github.com/benbjohnson/litestream/cmd/litestream").CombinedOutput()
	if err != nil {
		t.Fatalf("build Litestream: %v\n%s", err, out)
	}
	dir := t.TempDir()
	data, elsewhere, to := filepath.Join(dir, "data"), filepath.Join(dir, "elsewhere"), "file://"+filepath.Join(dir, "replica")
	admin, err := run(path, nil, "service", "create", "test", "--permission", "admin", "--data-dir", data)
	must(t, err)
	d, err := start(path, nil, "--data-dir", data, "--log-level", "warn")
	must(t, err)
	t.Cleanup(d.kill)
	a, err := connect(d, admin)
	must(t, err)
	copier := exec.Command(litestream, "replicate", filepath.Join(data, "patd.db"), to)
	said := newWatched()
	copier.Stdout, copier.Stderr, copier.SysProcAttr = said, said, attached()
	must(t, copier.Start())
	t.Cleanup(func() { _ = copier.Process.Kill() })
	work, stop := keepDoing(t, &cluster{t: t, replicas: []*replica{{api: a}}}, 6)
	lets(t)
	lets(t)
	must(t, copier.Process.Kill()) // all at once, as with the machine
	d.kill()
	lost := time.Now()
	_ = copier.Wait()
	stop()

	must(t, os.Mkdir(elsewhere, 0o700))
	file := filepath.Join(elsewhere, "patd.db")
	if out, err := exec.Command(litestream, "restore", "-o", file, to).CombinedOutput(); err != nil {
		t.Fatalf("restore: %v\n%s\nreplicate said\n%s", err, out, said.tail())
	}
	key, err := os.ReadFile(filepath.Join(data, "hash.key"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(elsewhere, "hash.key"), key, 0o600))
	if got, err := run(path, nil, "check", "--data-dir", elsewhere); err != nil || !strings.HasPrefix(got, "ok: ") {
		t.Errorf("check: %s, %v", got, err)
	}
	db, err := sql.Open("sqlite", "file:"+file)
	must(t, err)
	defer db.Close()
	stands, missing, oldest := eventsOf(t, db, "main"), 0, time.Duration(0)
	for _, one := range work.dones {
		if !stands[fmt.Sprint(one.id, " ", one.revoked)] {
			missing++
			oldest = max(oldest, lost.Sub(one.at))
		}
	}
	if made := len(work.dones); made-missing < 30 || oldest > bound {
		t.Errorf("of %d answered changes %d are missing, the oldest from %s before the end", made, missing, oldest)
	}
	after, err := start(path, nil, "--data-dir", elsewhere, "--log-level", "warn")
	must(t, err)
	must(t, after.stop())
	t.Logf("figures: %d changes answered, of which the copy lacks %d, the oldest from %s before the end; check is clean",
		len(work.dones), missing, oldest.Round(time.Millisecond))
}
