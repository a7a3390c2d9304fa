package replicatest

import (
	"os"
	"testing"
	"time"

	"patd/internal/proctest"
)

// patience bounds every wait for another process. Nothing takes nearly as long, unless it is broken.
const patience = 60 * time.Second

// The bounds of docs/guarantees.md section 7 for what another replica changed: for 99 of 100, and for all.
const (
	soon  = time.Second
	bound = 10 * time.Second
)

func TestMain(m *testing.M) { os.Exit(proctest.Main(m)) }

// program builds patd once and returns its path.
var program = proctest.Once(proctest.RaceFlags()...)

// build builds the patd of this source, with more flags.
func build(name string, flags ...string) (string, error) {
	return proctest.Build(name, append(flags, proctest.RaceFlags()...)...)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
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
