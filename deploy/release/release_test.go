package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// patience bounds every wait for another process.
const patience = 60 * time.Second

// version is that of the tag in the clones that the tests build from.
const version = "v0.98.7"

// missing skips the test for want of a program or a right, or fails it in CI, where nothing may be missing.
func missing(tb testing.TB, what string) {
	tb.Helper()
	if ci := os.Getenv("CI"); ci != "" && ci != "false" {
		tb.Fatalf("%s is missing, and in CI it must not be", what)
	}
	tb.Skipf("%s is missing", what)
}

func need(tb testing.TB, tools ...string) {
	tb.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			missing(tb, tool)
		}
	}
}

// built is a release of the last commit, made from a tagged clone of its own.
type built struct {
	dir string // what was made
	r   *release
}

// dirs are removed at the end.
var dirs struct {
	sync.Mutex
	all []string
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, dir := range dirs.all {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// first is the release that most tests look at, with all libraries that can be built here.
var first = sync.OnceValues(func() (*built, error) {
	var here []library
	for _, l := range libraries {
		if l.check(tree) == nil {
			here = append(here, l)
		}
	}
	return build(here)
})

// tree is where the tools of the libraries are installed: not in the clones.
const tree = "../.."

// build makes a release for this machine's architecture in directories of its own.
func build(with []library) (*built, error) {
	b, err := begin(runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	b.r.libraries = with
	if b.r.tools, err = filepath.Abs(tree); err != nil {
		return nil, err
	}
	return b, b.r.all(context.Background(), b.dir)
}

// begin makes the binaries of a release, of the last commit in a clone with a tag.
func begin(arches ...string) (*built, error) {
	dir, err := os.MkdirTemp("", "patd-release-test-")
	if err != nil {
		return nil, err
	}
	dirs.Lock()
	dirs.all = append(dirs.all, dir)
	dirs.Unlock()
	clone, out := filepath.Join(dir, "clone"), filepath.Join(dir, "dist")
	for _, args := range [][]string{
		{"clone", "--quiet", "--shared", "--no-tags", "../..", clone}, {"-C", clone, "tag", version},
	} {
		if said, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("git %s: %w\n%s", args[0], err, said)
		}
	}
	r, err := newRelease(context.Background(), clone, arches)
	if err != nil {
		return nil, err
	}
	dirs.Lock()
	dirs.all = append(dirs.all, r.work)
	dirs.Unlock()
	return &built{dir: out, r: r}, nil
}

func release1(tb testing.TB) *built {
	tb.Helper()
	b, err := first()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// only returns the one file of the release that a pattern names.
func (b *built) only(tb testing.TB, pattern string) string {
	tb.Helper()
	found, err := filepath.Glob(filepath.Join(b.dir, pattern))
	if err != nil || len(found) != 1 {
		tb.Fatalf("%s names %v, %v", pattern, found, err)
	}
	return found[0]
}

func sums(tb testing.TB, dir string) map[string]string {
	tb.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		tb.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range entries {
		if out[e.Name()], err = sumOf(filepath.Join(dir, e.Name())); err != nil {
			tb.Fatal(err)
		}
	}
	return out
}

// TestVersionComesFromTheTag reads it where users do.
func TestVersionComesFromTheTag(t *testing.T) {
	t.Parallel()
	b := release1(t)
	out, err := exec.Command(b.r.binaries[runtime.GOARCH], "version", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var said struct {
		Version, Commit, Go, Platform string
		CommitTime                    time.Time `json:"commit_time"`
		Modified                      *bool
	}
	if err := json.Unmarshal(out, &said); err != nil {
		t.Fatal(err)
	}
	if said.Version != version || len(said.Commit) != 40 || said.CommitTime.IsZero() || said.Modified == nil ||
		*said.Modified ||
		said.Go == "" ||
		said.Platform == "" {
		t.Errorf("version --json says %s", out)
	}
	for _, name := range []string{"patd_0.98.7*.deb", "patd-0.98.7*.rpm", "patd-chart-0.98.7.tgz", "patd_0.98.7_image.tar", "patd_0.98.7_linux_*.tar.gz"} {
		b.only(t, name)
	}
	chart := untar(t, b.only(t, "patd-chart-*.tgz"), true)
	if text := string(
		chart["patd/Chart.yaml"],
	); !strings.Contains(text, "\nversion: \"0.98.7\"\n") ||
		!strings.Contains(text, "\nappVersion: \"0.98.7\"\n") {
		t.Errorf("Chart.yaml has another version:\n%s", text)
	}
	text, err := exec.Command("file", b.r.binaries[runtime.GOARCH]).Output()
	if err == nil && !strings.Contains(string(text), "statically linked") {
		t.Errorf("the binary is not static: %s", text)
	}
}

// TestABinaryIsCompiledByTheProfile reads in the binary that it was, and holds the profile to its size in the
// repository.
func TestABinaryIsCompiledByTheProfile(t *testing.T) {
	t.Parallel()
	info, err := buildinfo.ReadFile(release1(t).r.binaries[runtime.GOARCH])
	if err != nil {
		t.Fatal(err)
	}
	if want := (debug.BuildSetting{Key: "-pgo", Value: filepath.Base(profile)}); !slices.Contains(info.Settings, want) {
		t.Errorf("%v is not among %v", want, info.Settings)
	}
	if s, err := os.Stat(filepath.Join("../..", profile)); err != nil || s.Size() == 0 || s.Size() >= 200<<10 {
		t.Errorf("the profile: %v, %v", s, err)
	}
}

// TestChangedTreesAreRefused holds that a release is of a commit, unless somebody says otherwise.
func TestChangedTreesAreRefused(t *testing.T) {
	t.Parallel()
	r := *release1(t).r
	if err := r.refuse(false); err != nil {
		t.Errorf("a clean tree: %v", err)
	}
	r.modified = true
	if err := r.refuse(false); err == nil || !strings.Contains(err.Error(), "-changed") {
		t.Errorf("a changed tree: %v", err)
	}
	if err := r.refuse(true); err != nil {
		t.Errorf("a changed tree with -changed: %v", err)
	}
}

// untar reads a tar file, by the names in it.
func untar(tb testing.TB, name string, zipped bool) map[string][]byte {
	tb.Helper()
	f, err := os.Open(name)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	var from io.Reader = f
	if zipped {
		if from, err = gzip.NewReader(f); err != nil {
			tb.Fatal(err)
		}
	}
	out := map[string][]byte{}
	for t := tar.NewReader(from); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			tb.Fatal(err)
		}
		if out[h.Name], err = io.ReadAll(t); err != nil {
			tb.Fatal(err)
		}
	}
}

// TestMaterialsAndProvenanceSayWhatWasBuilt compares them with the files and with what the Go tool says.
func TestMaterialsAndProvenanceSayWhatWasBuilt(t *testing.T) {
	t.Parallel()
	b := release1(t)
	f, err := os.Open(b.only(t, "*.cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(f, cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, c := range *bom.Components {
		listed[c.Name+" "+c.Version] = true
	}
	out, err := exec.Command("go", "version", "-m", b.r.binaries[runtime.GOARCH]).Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := 0
	for line := range strings.Lines(string(out)) {
		if w := strings.Fields(line); len(w) > 2 && w[0] == "dep" {
			deps++
			if !listed[w[1]+" "+w[2]] {
				t.Errorf("the bill of materials lacks %s %s", w[1], w[2])
			}
		}
	}
	if deps < 20 || bom.SpecVersion != cdx.SpecVersion1_6 {
		t.Errorf("%d modules, version %s", deps, bom.SpecVersion)
	}
	binary, err := sumOf(b.r.binaries[runtime.GOARCH])
	if err != nil {
		t.Fatal(err)
	}
	if got := (*bom.Metadata.Component.Hashes)[0].Value; got != binary {
		t.Errorf("the bill of materials is of %s, not of the binary", got)
	}

	var s statement
	text, err := os.ReadFile(b.only(t, "*.provenance.json"))
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	locked := map[string]string{}
	for _, d := range s.Predicate.BuildDefinition.ResolvedDependencies {
		locked[d.Name] = d.Digest["sha256"]
	}
	have := sums(t, b.dir)
	for _, subject := range s.Subject {
		if have[subject.Name] != subject.Digest["sha256"] {
			t.Errorf("the provenance has another digest of %s", subject.Name)
		}
	}
	if len(s.Subject) != len(have)-2 ||
		s.Predicate.BuildDefinition.ResolvedDependencies[0].Digest["gitCommit"] != b.r.commit {
		t.Errorf(
			"the provenance is of %d files, from %v",
			len(s.Subject),
			s.Predicate.BuildDefinition.ResolvedDependencies,
		)
	}
	for _, l := range b.r.libraries {
		if want, err := sumOf(filepath.Join(b.r.root, l.pins)); l.pins != "" && (err != nil || locked[l.pins] != want) {
			t.Errorf("the provenance has %s of %s, want %s, %v", locked[l.pins], l.pins, want, err)
		}
	}
	check := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
	check.Dir = b.dir
	if out, err := check.CombinedOutput(); err != nil || strings.Count(string(out), ": OK\n") != len(have)-1 {
		t.Errorf("%v\n%s", err, out)
	}
}
