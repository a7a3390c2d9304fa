package gatewaytest

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait for another process. Nothing takes nearly as long, unless it is broken.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	if flag.Parse(); testing.Short() {
		fmt.Fprintln(os.Stderr, "skipped: real gateways and clients take seconds")
		return
	}
	code := m.Run()
	if dir := builtIn; dir != "" {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// builtIn is the directory of the built patd; empty: not built yet.
var builtIn string

// binary builds patd once and answers where it is.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "gatewaytest")
	if err != nil {
		return "", err
	}
	builtIn = dir
	// Looked at so that the go command, which remembers what passed, runs these tests again when patd itself has changed.
	sources, _ := filepath.Glob("../../cmd/patd/*.go")
	for _, source := range sources {
		_, _ = os.Stat(source)
	}
	path := filepath.Join(dir, "patd")
	if out, err := exec.Command("go", "build", "-o", path, "patd/cmd/patd").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build patd: %w\n%s", err, out)
	}
	return path, nil
})

// missing skips the test, or fails it where nothing may be missing.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" && os.Getenv("CI") != "false" {
		t.Fatalf("%s is missing, and in CI it must not be", what)
	}
	t.Skipf("%s is missing", what)
}

// program finds a program where packages put servers, which is not always in the search path.
func program(t *testing.T, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	path := filepath.Join("/usr/sbin", name)
	if _, err := os.Stat(path); err != nil {
		missing(t, name)
	}
	return path
}

// freeAddr is a loopback address that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
