package replicatest

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait for another process. Nothing takes nearly as long, unless it is broken.
const patience = 60 * time.Second

// The bounds of docs/guarantees.md section 7 for what another replica changed: for 99 of 100, and for all.
const (
	soon  = time.Second
	bound = 10 * time.Second
)

func TestMain(m *testing.M) {
	code := m.Run()
	for _, dir := range built {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// built are the directories of binaries.
var built []string

// program builds patd once and answers where it is.
var program = sync.OnceValues(func() (string, error) {
	// Looked at so that the go command, which remembers what passed, runs these tests again when patd itself has changed.
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != "../.." || d.Name() == "node_modules"):
			return fs.SkipDir
		case filepath.Ext(path) == ".go" || filepath.Ext(path) == ".sql":
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	return build("patd")
})

// build builds the patd of this source, with the race detector if the test has it.
func build(name string, flags ...string) (string, error) {
	dir, err := os.MkdirTemp("", "replicatest")
	if err != nil {
		return "", err
	}
	built = append(built, dir)
	path := filepath.Join(dir, name)
	args := append([]string{"build", "-o", path}, flags...)
	if raceDetector {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "patd/cmd/patd")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return path, nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually asks until it is so.
func eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	deadline, poll := time.After(patience), time.NewTicker(20*time.Millisecond)
	defer poll.Stop()
	for !so() {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("after %s still not: %s", patience, what)
		}
	}
}

// lasting is a duration that a variable may set.
func lasting(t *testing.T, variable string, otherwise time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	must(t, err)
	return d
}
