package dbtest

import (
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"patd/internal/proctest"
)

// Versions returns the directories of the programs of PostgreSQL's versions, such as "18", that npm has installed in
// testdata/postgres below this package, whose path is given from the test's directory. See `make drills`.
func Versions(tb testing.TB, here string) map[string]string {
	tb.Helper()
	found, _ := filepath.Glob(filepath.Join(here, "testdata/postgres/node_modules/postgres-*/native/bin"))
	versions := map[string]string{}
	for _, dir := range found {
		dir, err := filepath.Abs(dir)
		if err != nil {
			tb.Fatal(err)
		}
		_, version, _ := strings.Cut(filepath.Base(filepath.Dir(filepath.Dir(dir))), "-")
		// Its libraries are links, which npm does not keep: without them it does not start.
		//nolint:gosec,noctx // it ends by itself
		if out, err := exec.Command(filepath.Join(dir, "initdb"), "--version").
			CombinedOutput(); err != nil {
			tb.Fatalf("PostgreSQL %s: %v\n%s", version, err, out)
		}
		versions[version] = dir
	}
	if len(versions) == 0 {
		proctest.Missing(tb, "PostgreSQL in its versions (make drills installs them)")
	}
	tb.Logf("PostgreSQL %s", strings.Join(slices.Sorted(maps.Keys(versions)), ", "))
	return versions
}
