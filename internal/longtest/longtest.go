// Package longtest decides how much a test of chance or of many cases does. go test ./... is a loop for developers and
// ends within minutes; .ci/run sets LONG_TESTS for one of its stages, so that everything is done there.
package longtest

import (
	"flag"
	"os"
	"strconv"
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

// Enabled reports whether LONG_TESTS is set, and so whether tests shall do all that they can.
func Enabled() bool { return os.Getenv("LONG_TESTS") != "" }
