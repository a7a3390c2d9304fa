package tokens_test

import (
	"flag"
	"os"
	"testing"

	"patd/internal/longtest"
)

// TestMain makes fewer of the checks by chance, each of which has a store of its own, unless LONG_TESTS or -rapid.checks
// asks for more.
func TestMain(m *testing.M) {
	if !longtest.Enabled() {
		if err := flag.Set("rapid.checks", "25"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
