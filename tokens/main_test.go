package tokens_test

import (
	"flag"
	"os"
	"testing"

	"patd/internal/longtest"
)

// TestMain makes fewer of the checks by chance, each of which has a store of its own, than rapid would,
// unless -rapid.checks asks for more.
func TestMain(m *testing.M) {
	checks := "25"
	if longtest.Enabled() {
		checks = "50" // beside the race detector these take minutes
	}
	if err := flag.Set("rapid.checks", checks); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
