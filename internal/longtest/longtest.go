// Package longtest decides how much a test of chance or of many cases does. go test ./... is a loop for developers and
// ends within minutes; .ci/run sets LONG_TESTS in its stages, so that everything is done once. LONG_TESTS is 1 for all
// packages, or the names of some, separated by spaces, or alone for what measures times, or drills for what make drills
// runs.
package longtest

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Beside lets so many tests of a package run beside one another, if -parallel does not say otherwise: those that wait
// for other processes most of the time. It is called by TestMain.
func Beside(tests int) {
	if err := flag.Set("test.parallel", strconv.Itoa(tests)); err != nil {
		panic(err)
	}
}

// Only skips a test that is run with LONG_TESTS alone.
func Only(tb testing.TB) {
	tb.Helper()
	if !Enabled() {
		tb.Skip("LONG_TESTS=1 runs it")
	}
}

// Slow skips, with -short, a test that takes more than about half a second, or a test whose rig does: go test -short is
// the loop of an edit. A rig names the tests that it is made for nevertheless: the first of their kind.
func Slow(tb testing.TB, kept ...string) {
	tb.Helper()
	name, _, _ := strings.Cut(tb.Name(), "/")
	if testing.Short() && !slices.Contains(kept, name) {
		tb.Skip("it takes too long for -short")
	}
}

// Alone skips a test that measures times, unless it is run by itself: with LONG_TESTS=alone, and without the race
// detector.
func Alone(tb testing.TB) {
	tb.Helper()
	if os.Getenv("LONG_TESTS") != "alone" || Race {
		tb.Skip("LONG_TESTS=alone runs it, without the race detector")
	}
}

// Drill skips what practises a bad day for minutes, unless make drills runs it, with LONG_TESTS=drills.
func Drill(tb testing.TB) {
	tb.Helper()
	if os.Getenv("LONG_TESTS") != "drills" {
		tb.Skip("make drills runs it")
	}
}

// Enabled reports whether the tests of a package shall do all that they can.
func Enabled() bool {
	value := os.Getenv("LONG_TESTS")
	if value == "" || value == "1" || value == "alone" {
		return value != ""
	}
	dir, err := os.Getwd() // that of the package
	return err == nil && slices.Contains(strings.Fields(value), filepath.Base(dir))
}
