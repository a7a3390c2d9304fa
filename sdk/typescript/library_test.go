package typescript

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/internal/proctest"
	"patd/internal/sdktest"
)

func TestMain(m *testing.M) { os.Exit(proctest.Main(m)) }

// patd builds patd once and returns its path.
var patd = proctest.Once()

// compiled builds the library once.
var compiled = sync.OnceValues(func() (string, error) {
	for _, dir := range []string{"dist", "build"} {
		if err := os.RemoveAll(dir); err != nil {
			return "", err
		}
	}
	return sdktest.Run(".", nil, "npm", "run", "--silent", "build")
})

// library builds the library, unless the machine cannot.
func library(t *testing.T) {
	t.Helper()
	longtest.Only(t)
	t.Parallel()
	if _, err := os.Stat("node_modules/.package-lock.json"); err != nil {
		proctest.Missing(t, "what npm ci installs in sdk/typescript")
	}
	if _, err := exec.LookPath("npm"); err != nil {
		proctest.Missing(t, "npm")
	}
	if out, err := compiled(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestItsOwnTestsPass(t *testing.T) {
	library(t)
	if out, err := sdktest.Run(".", nil, "npm", "test", "--silent"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestTheTypeScriptLibraryConforms plays all scenarios of sdk/conformance.
func TestTheTypeScriptLibraryConforms(t *testing.T) {
	library(t)
	binary, err := patd()
	must(t, err)
	driver, err := filepath.Abs("conformance/driver.mjs")
	must(t, err)
	sdktest.Conform(t, "../..", binary, nil, "node", driver)
}

// TestRevokedTokensAreRefusedUnderLoad revokes tokens of a real patd while two loops check others.
func TestRevokedTokensAreRefusedUnderLoad(t *testing.T) {
	library(t)
	binary, err := patd()
	must(t, err)
	driver, err := filepath.Abs("conformance/driver.mjs")
	must(t, err)
	sdktest.Measure(t, "../..", binary, nil, "node", driver)
}

// TestMemoryIsFastAndBounded compares a check from memory with one digest of Node's, and what memory holds after some
// tokens with what it holds after ten times as many.
func TestMemoryIsFastAndBounded(t *testing.T) {
	library(t)
	out, err := sdktest.Run(".", nil, "node_modules/.bin/tsc", "-p", "tsconfig.test.json", "--outDir", "build-bench")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err = sdktest.Run(
		".",
		[]string{fmt.Sprint("TOKENS=", sdktest.Size("PATD_TOKENS", 50_000))},
		"node",
		"--expose-gc",
		"build-bench/bench.js",
	)
	var got struct {
		Check      float64 `json:"check_us"`
		Digest     float64 `json:"node_digest_us"`
		Asked      int     `json:"asked_from_memory"`
		MaxEntries int     `json:"maxEntries"`
		Entries    int     `json:"entries"`
		Tenth      int     `json:"heapAtTenth"`
		End        int     `json:"heapAtEnd"`
	}
	if err != nil || json.Unmarshal([]byte(out), &got) != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%+v", got)
	if got.Asked != 0 || got.Entries > got.MaxEntries || got.Check > 10*got.Digest || got.End > got.Tenth+16<<20 {
		t.Errorf("%+v: asked, too many entries, slow, or memory grows", got)
	}
}

// TestThePackageIsReproducible packs the same files twice, with other times.
func TestThePackageIsReproducible(t *testing.T) {
	library(t)
	var packed [2][]byte
	for i := range packed {
		dir := t.TempDir()
		must(t, os.CopyFS(filepath.Join(dir, "from", "dist"), os.DirFS("dist")))
		for _, name := range []string{"package.json", "README.md"} {
			text, err := os.ReadFile(name)
			must(t, err)
			must(t, os.WriteFile(filepath.Join(dir, "from", name), text, 0o600))
		}
		at := time.Unix(int64(1e9+i), 0)
		must(t, os.Chtimes(filepath.Join(dir, "from", "dist", "index.js"), at, at))
		file := pack(t, filepath.Join(dir, "from"), dir)
		var err error
		packed[i], err = os.ReadFile(file)
		must(t, err)
	}
	if !bytes.Equal(packed[0], packed[1]) {
		t.Errorf("%d bytes, then other %d", len(packed[0]), len(packed[1]))
	}
}

// pack makes the package of a directory in another one, and returns its path.
func pack(t *testing.T, from, to string) string {
	t.Helper()
	if out, err := sdktest.Run(
		from,
		nil,
		"npm",
		"pack",
		"--silent",
		"--ignore-scripts",
		"--pack-destination",
		to,
	); err != nil {
		t.Fatalf("pack: %v\n%s", err, out)
	}
	found, err := filepath.Glob(filepath.Join(to, "patd-*.tgz"))
	if err != nil || len(found) != 1 {
		t.Fatalf("packed: %q, %v", found, err)
	}
	return found[0]
}
