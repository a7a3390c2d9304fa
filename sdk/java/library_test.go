package java

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

const (
	classes = "core/target/classes:core/target/test-classes"
	jar     = "core/target/patd-0.0.0.jar"
)

// small keeps a JVM small, and has it start fast.
var small = []string{"-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}

// verified builds the library and runs its tests, once. In CI, Maven may have to resolve what it needs.
var verified = sync.OnceValues(func() (string, error) {
	// The go command keeps the results of tests that passed, until a file that they looked at changes.
	if err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == "target" {
			return fs.SkipDir
		}
		_, err = os.Stat(path)
		return err
	}); err != nil {
		return "", err
	}
	args := []string{"-B", "-q", "-T1", "verify"}
	if os.Getenv("CI") == "" {
		args = append(args, "-o")
	}
	return sdktest.Run(".", []string{"MAVEN_OPTS=-Xmx256m -XX:TieredStopAtLevel=1"}, "mvn", args...)
})

// library builds the library and runs its tests, unless the machine cannot.
func library(t *testing.T) {
	t.Helper()
	longtest.Only(t)
	t.Parallel()
	for _, name := range []string{"mvn", "javac"} {
		if _, err := exec.LookPath(name); err != nil {
			proctest.Missing(t, name)
		}
	}
	if _, err := os.Stat(jar); err != nil && os.Getenv("CI") == "" {
		t.Skip("run `mvn verify` in sdk/java once: it resolves what is needed")
	}
	if out, err := verified(); err != nil {
		t.Fatalf("mvn verify: %v\n%s", err, out)
	}
}

func binary(t *testing.T) string {
	t.Helper()
	path, err := patd()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestItsOwnTestsPass(t *testing.T) { library(t) }

// TestTheJavaLibraryConforms plays all scenarios of sdk/conformance.
func TestTheJavaLibraryConforms(t *testing.T) {
	library(t)
	sdktest.Conform(t, "../..", binary(t), nil, driver(t, small...)...)
}

// TestRevokedTokensAreRefusedUnderLoad revokes tokens of a real patd while two loops check others.
func TestRevokedTokensAreRefusedUnderLoad(t *testing.T) {
	library(t)
	sdktest.Measure(t, "../..", binary(t), nil, driver(t, "-Xmx256m")...)
}

// driver returns the command that starts the driver, in a JVM with these options.
func driver(t *testing.T, options ...string) []string {
	t.Helper()
	dirs := strings.Split(classes, ":")
	for i, dir := range dirs {
		path, err := filepath.Abs(dir)
		if err != nil {
			t.Fatal(err)
		}
		dirs[i] = path
	}
	return append(append([]string{"java"}, options...), "-cp", strings.Join(dirs, ":"), "patd.Driver")
}

// TestMemoryIsFastAndBounded compares a check from memory with one digest of the JDK's, and what memory holds after
// some tokens with what it holds after ten times as many.
func TestMemoryIsFastAndBounded(t *testing.T) {
	library(t)
	const checks = 100_000
	tokens := sdktest.Size("PATD_TOKENS", 4000)
	out, err := sdktest.Run(
		".",
		[]string{fmt.Sprint("TOKENS=", tokens), fmt.Sprint("ENTRIES=", min(10_000, tokens/20)), "CHECKS=100000"},
		"java",
		"-Xmx256m",
		"-cp",
		classes,
		"patd.Bench",
	)
	out = out[max(0, strings.LastIndex(out, "{")):] // a busy machine may have the watch say that it was silent
	var got struct {
		Check      float64 `json:"check_cpu_us"`
		Digest     float64 `json:"digest_us"`
		Asked      int     `json:"asked_from_memory"`
		MaxEntries int     `json:"max_entries"`
		Entries    int     `json:"entries"`
		Tenth      int     `json:"heap_at_tenth"`
		End        int     `json:"heap_at_end"`
	}
	if err != nil || json.Unmarshal([]byte(out), &got) != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%+v", got)
	if got.Asked > checks/10 || got.Entries > got.MaxEntries || got.Check > 10*got.Digest ||
		got.End > got.Tenth+16<<20 {
		t.Errorf("%+v: asked, too many entries, slow, or memory grows", got)
	}
}

// TestTheJarIsReproducible makes a jar of the same files twice, with other times.
func TestTheJarIsReproducible(t *testing.T) {
	library(t)
	before, err := os.ReadFile(jar)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"pom.xml", "core/pom.xml", "core/target/classes"} {
		to := filepath.Join(dir, name)
		if info, err := os.Stat(name); err != nil || !info.IsDir() {
			text, err := os.ReadFile(name)
			if err == nil {
				err = os.MkdirAll(filepath.Dir(to), 0o700)
			}
			if err == nil {
				err = os.WriteFile(to, text, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		} else if err := os.CopyFS(to, os.DirFS(name)); err != nil {
			t.Fatal(err)
		}
	}
	at := time.Unix(1e9, 0)
	if err := os.Chtimes(filepath.Join(dir, "core/target/classes/patd/Verifier.class"), at, at); err != nil {
		t.Fatal(err)
	}
	out, err := sdktest.Run(
		filepath.Join(dir, "core"),
		[]string{"MAVEN_OPTS=-Xmx256m"},
		"mvn",
		"-o",
		"-B",
		"-q",
		"jar:jar",
	)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	after, err := os.ReadFile(filepath.Join(dir, jar))
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("%d bytes, then other %d: %v", len(before), len(after), err)
	}
}
