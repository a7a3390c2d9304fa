package gatewaytest

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"patd/internal/proctest"
)

// patience bounds every wait for another process. Nothing takes nearly as long, unless it is broken.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	if flag.Parse(); testing.Short() {
		fmt.Fprintln(os.Stderr, "skipped: real gateways and clients take seconds")
		return
	}
	os.Exit(proctest.Main(m))
}

// binary builds patd once and returns its path.
var binary = proctest.Once()

// program finds a program where packages put servers, which is not always in the search path.
func program(t *testing.T, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	path := filepath.Join("/usr/sbin", name)
	if _, err := os.Stat(path); err != nil {
		proctest.Missing(t, name)
	}
	return path
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
