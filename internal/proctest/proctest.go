// Package proctest builds patd for tests that run it as a process of its own, and has what such tests share.
//
// A binary is built from this source once for all tests, and copied once for each process of tests. Main removes the
// copy: a package that builds calls it from its TestMain.
package proctest

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"patd/internal/longtest"
)

// made are the directories to remove.
var made struct {
	sync.Mutex
	dirs []string
}

// Main runs the tests of a package, removes what was built for them, and returns the exit code.
func Main(m *testing.M) int {
	code := m.Run()
	made.Lock()
	defer made.Unlock()
	for _, dir := range made.dirs {
		_ = os.RemoveAll(dir)
	}
	return code
}

// TempDir makes a directory that Main removes, for what outlives a test.
func TempDir() (string, error) {
	dir, err := os.MkdirTemp("", "proctest")
	if err != nil {
		return "", err
	}
	made.Lock()
	defer made.Unlock()
	made.dirs = append(made.dirs, dir)
	return dir, nil
}

// RaceFlags are the flags that build what a test runs with the race detector, if the test has it.
func RaceFlags() []string {
	if !longtest.Race {
		return nil
	}
	return []string{"-race", "-gcflags=modernc.org/sqlite/lib=-race=false"} // as .ci/run says
}

// Once returns a function that builds patd when it is first called, with more flags of go build, and returns its path.
func Once(flags ...string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		if err := look(); err != nil {
			return "", err
		}
		return Build("patd", flags...)
	})
}

// Build builds patd under a name, with more flags of go build, and returns its path.
func Build(name string, flags ...string) (string, error) {
	return BuildProgram("patd/cmd/patd", name, flags...)
}

// BuildProgram is Build for another program of this source. The packages whose tests need the same one share it: the go
// command keeps what go run links, which go build would link again, and has it copied here in place of running it.
func BuildProgram(program, name string, flags ...string) (string, error) {
	dir, err := TempDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	args := append([]string{"run", "-exec", "cp"}, flags...)
	//nolint:gosec,noctx // it ends by itself
	if out, err := exec.Command("go", append(args, program, path)...).
		CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return path, nil
}

// look reads the sizes and times of all files that patd is built from. The go command keeps the results of tests that
// passed: it notes what they look at, and runs them again when any of that has changed.
func look() error {
	root := "."
	for {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		if above, err := filepath.Abs(root); err != nil || above == filepath.Dir(above) {
			return fmt.Errorf("find go.mod above the tests: %w", fs.ErrNotExist)
		}
		root = filepath.Join(root, "..")
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"),
			path == filepath.Join(root, "sdk"): // libraries, with what npm installs and what tests build there
			return fs.SkipDir
		case d.IsDir() || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		_, err = os.Stat(path)
		return err
	})
}

// Bare returns the environment of a process that is to have no variables but these. To them it adds what go test sets
// for all that its tests run: where the process writes which of its lines ran, and the options of the race detector.
func Bare(vars ...string) []string {
	env := slices.Clone(vars)
	for _, name := range []string{"GOCOVERDIR", "GORACE"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// FreeAddr returns an address of loopback that no process listens on.
func FreeAddr(tb testing.TB) string {
	tb.Helper()
	addr, err := LoopbackAddr()
	if err != nil {
		tb.Fatal(err)
	}
	return addr
}

// LoopbackAddr returns an address of loopback that no process listens on, for what outlives a test.
func LoopbackAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free address: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// Missing skips the test for want of a program, or fails it in CI, where nothing may be missing.
func Missing(tb testing.TB, what string) {
	tb.Helper()
	if os.Getenv("CI") != "" && os.Getenv("CI") != "false" {
		tb.Fatalf("%s is missing, and in CI it must not be", what)
	}
	tb.Skipf("%s is missing", what)
}
