package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"debug/buildinfo"
	"encoding/hex"
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

// first is the release that most tests look at.
var first = sync.OnceValues(func() (*built, error) {
	_, err := exec.LookPath("mvn")
	return buildWith(err == nil)
})

// build makes a release for this machine's architecture in directories of its own.
func build() (*built, error) { return buildWith(false) }

// buildWith is build, with the jars or without.
func buildWith(jars bool) (*built, error) {
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
	r, err := newRelease(context.Background(), clone, []string{runtime.GOARCH})
	if err != nil {
		return nil, err
	}
	dirs.Lock()
	dirs.all = append(dirs.all, r.work)
	dirs.Unlock()
	r.jars = jars
	return &built{dir: out, r: r}, r.all(context.Background(), out)
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

// TestTwoBuildsAreTheSameBytes builds the same commit again in another directory. The jars are built once: that they are
// the same bytes is held by TestTheJarIsReproducible of sdk/java.
func TestTwoBuildsAreTheSameBytes(t *testing.T) {
	t.Parallel()
	again, err := build()
	if err != nil {
		t.Fatal(err)
	}
	one, two := sums(t, release1(t).dir), sums(t, again.dir)
	for name := range one {
		// These name the jars too.
		if strings.HasSuffix(name, ".jar") || strings.HasSuffix(name, ".pom") || release1(t).r.jars && lists(name) {
			delete(one, name)
			delete(two, name)
		}
	}
	want := 9
	if release1(t).r.jars {
		want = 7
	}
	for name, sum := range one {
		if two[name] != sum {
			t.Errorf("%s differs", name)
		}
	}
	if len(one) != len(two) || len(one) != want {
		t.Errorf("%d and %d files; want %d", len(one), len(two), want)
	}
}

// lists reports whether a file of a release names all others.
func lists(name string) bool {
	return name == "SHA256SUMS" || strings.Contains(name, "provenance")
}

// TestJarsHaveTheVersionOfTheTag looks into them.
func TestJarsHaveTheVersionOfTheTag(t *testing.T) {
	t.Parallel()
	need(t, "mvn", "javac")
	b := release1(t)
	for name := range javaArtifacts {
		jar, err := zip.OpenReader(b.only(t, name+"-0.98.7.jar"))
		if err != nil {
			t.Fatal(err)
		}
		var classes int
		for _, f := range jar.File {
			if strings.HasSuffix(f.Name, ".class") {
				classes++
			}
			if at := f.Modified.UTC(); at.Unix()/2 != b.r.at.Unix()/2 {
				t.Errorf("%s: %s is of %v, not of the commit's time, %v", name, f.Name, at, b.r.at)
			}
		}
		_ = jar.Close()
		pom, err := os.ReadFile(b.only(t, name+"-0.98.7.pom"))
		if err != nil || classes == 0 || !strings.Contains(string(pom), "<version>0.98.7</version>") {
			t.Errorf("%s: %d classes, %v\n%s", name, classes, err, pom)
		}
	}
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
	if said.Version != version || len(said.Commit) != 40 || said.CommitTime.IsZero() || said.Modified == nil || *said.Modified || said.Go == "" || said.Platform == "" {
		t.Errorf("version --json says %s", out)
	}
	for _, name := range []string{"patd_0.98.7*.deb", "patd-0.98.7*.rpm", "patd-chart-0.98.7.tgz", "patd_0.98.7_image.tar", "patd_0.98.7_linux_*.tar.gz"} {
		b.only(t, name)
	}
	chart := untar(t, b.only(t, "patd-chart-*.tgz"), true)
	if text := string(chart["patd/Chart.yaml"]); !strings.Contains(text, "\nversion: \"0.98.7\"\n") || !strings.Contains(text, "\nappVersion: \"0.98.7\"\n") {
		t.Errorf("Chart.yaml has another version:\n%s", text)
	}
	text, err := exec.Command("file", b.r.binaries[runtime.GOARCH]).Output()
	if err == nil && !strings.Contains(string(text), "statically linked") {
		t.Errorf("the binary is not static: %s", text)
	}
}

// TestABinaryIsCompiledByTheProfile reads in the binary that it was, and holds the profile to its size in the repository.
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
	have := sums(t, b.dir)
	for _, subject := range s.Subject {
		if have[subject.Name] != subject.Digest["sha256"] {
			t.Errorf("the provenance has another digest of %s", subject.Name)
		}
	}
	if len(s.Subject) != len(have)-2 || s.Predicate.BuildDefinition.ResolvedDependencies[0].Digest["gitCommit"] != b.r.commit {
		t.Errorf("the provenance is of %d files, from %v", len(s.Subject), s.Predicate.BuildDefinition.ResolvedDependencies)
	}
	check := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
	check.Dir = b.dir
	if out, err := check.CombinedOutput(); err != nil || strings.Count(string(out), ": OK\n") != len(have)-1 {
		t.Errorf("%v\n%s", err, out)
	}
}

// imageConfig is what the test reads of an image.
type imageConfig struct {
	Architecture string
	Config       struct {
		User, WorkingDir, StopSignal string
		Entrypoint, Cmd, Env         []string
		Volumes, ExposedPorts        map[string]struct{}
	}
}

// unpackImage lays an image out as a root directory, without go-containerregistry: by the OCI's layout alone. Each digest
// is checked.
func unpackImage(t *testing.T, file, root string) (c imageConfig) {
	t.Helper()
	files := untar(t, file, false)
	if string(bytes.TrimSpace(files["oci-layout"])) == "" {
		t.Fatal("it is no OCI layout")
	}
	type descriptor struct {
		Digest, MediaType string
		Platform          struct{ OS, Architecture string }
	}
	blob := func(d string) []byte {
		text := files["blobs/"+strings.ReplaceAll(d, ":", "/")]
		if sum := sha256.Sum256(text); "sha256:"+hex.EncodeToString(sum[:]) != d {
			t.Fatalf("%s has another digest", d)
		}
		return text
	}
	read := func(text []byte, to any) {
		if err := json.Unmarshal(text, to); err != nil {
			t.Fatal(err)
		}
	}
	var index struct{ Manifests []descriptor }
	read(files["index.json"], &index)
	read(blob(index.Manifests[0].Digest), &index)
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	if m := index.Manifests; len(m) != 1 || m[0].Platform.OS != "linux" || m[0].Platform.Architecture != runtime.GOARCH {
		t.Fatalf("the index is %v", m)
	}
	read(blob(index.Manifests[0].Digest), &manifest)
	read(blob(manifest.Config.Digest), &c)
	for _, layer := range manifest.Layers {
		tarball := exec.Command("tar", "--extract", "--gzip", "--same-owner", "--same-permissions", "--directory", root)
		tarball.Stdin = bytes.NewReader(blob(layer.Digest))
		if out, err := tarball.CombinedOutput(); err != nil {
			t.Fatalf("unpack a layer: %v\n%s", err, out)
		}
	}
	return c
}

// TestImageRunsAsItsUserOnAReadOnlyRoot unpacks the image and runs it as a container engine does: its user, its command,
// its variables, a root that cannot be written to, and one volume.
func TestImageRunsAsItsUserOnAReadOnlyRoot(t *testing.T) {
	t.Parallel()
	need(t, "unshare", "chroot", "tar", "mount")
	if out, err := exec.Command("unshare", "--mount", "--pid", "--fork", "true").CombinedOutput(); err != nil || os.Getuid() != 0 {
		missing(t, "the permission to make namespaces: "+string(out))
	}
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // others pass through it
		t.Fatal(err)
	}
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	c := unpackImage(t, release1(t).only(t, "*_image.tar"), root)
	if _, volume := c.Config.Volumes["/var/lib/patd"]; c.Config.User != "65532:65532" || !volume || len(c.Config.ExposedPorts) != 2 || c.Architecture != runtime.GOARCH {
		t.Errorf("the image is %+v", c)
	}
	text, err := os.ReadFile(filepath.Join(root, "etc/ssl/certs/ca-certificates.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Count(text, []byte("BEGIN CERTIFICATE")) < 100 || !x509.NewCertPool().AppendCertsFromPEM(text) {
		t.Error("the image has too few roots of trust")
	}
	before := listing(t, root)
	volume := filepath.Join(dir, "volume")
	if err := os.Mkdir(volume, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(volume, imageUser, imageUser); err != nil {
		t.Fatal(err)
	}
	// docker run without an option: plain text on all addresses is refused, with what to do.
	refused := container(root, volume, c, nil)
	if out, err := refused.CombinedOutput(); err == nil || !strings.Contains(string(out), "give --tls-cert and --tls-key, or --insecure") {
		t.Errorf("without TLS: %v\n%s", err, out)
	}

	var log safeBuffer
	cmd := container(root, volume, c, []string{"PATD_HTTP_ADDR=127.0.0.1:0", "PATD_GRPC_ADDR=127.0.0.1:0", "PATD_DRAIN_DELAY=0s"})
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	grpc := log.await(t, `"grpc":"`, ended)
	health := container(root, volume, c, nil, "health", "--addr", grpc)
	if out, err := health.CombinedOutput(); err != nil || string(out) != "serving\n" {
		t.Errorf("patd health: %v\n%s", err, out)
	}
	create := container(root, volume, c, nil, "service", "create", "gateway", "--permission", "introspect")
	if out, err := create.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "pats_") {
		t.Errorf("a service token: %v\n%s", err, out)
	}
	// The process 1 of the container is the child of unshare.
	stop := exec.Command("sh", "-c", `kill -TERM $(cat /proc/$0/task/$0/children)`, fmt.Sprint(cmd.Process.Pid))
	if out, err := stop.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ends with %v\n%s", err, &log)
		}
	case <-time.After(patience):
		t.Fatal("it does not stop")
	}
	if after := listing(t, root); after != before {
		t.Errorf("the root was\n%s\nand is\n%s", before, after)
	}
	if info, err := os.Stat(filepath.Join(volume, "patd.db")); err != nil || info.Size() == 0 {
		t.Errorf("there is no store in the volume: %v", err)
	}
}

// container is the image's command, or another one, in namespaces of its own.
func container(root, volume string, c imageConfig, env []string, args ...string) *exec.Cmd {
	if args == nil {
		args = c.Config.Cmd
	}
	script := `mount --make-rprivate / && mount --bind "$0" "$0" && mount --bind "$1" "$0/var/lib/patd" && mount -o remount,bind,ro "$0" &&
root=$0 && shift && exec chroot --userspec=65532:65532 --groups= "$root" "$@"`
	cmd := exec.Command("unshare", append([]string{"--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, root, volume}, append(c.Config.Entrypoint, args...)...)...)
	cmd.Env = append(append([]string{}, c.Config.Env...), env...)
	for i, v := range cmd.Env { // of the machine too, for the tools
		if v == "PATH=/usr/bin" {
			cmd.Env[i] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
		}
	}
	return cmd
}

// listing is what is in a directory: names, modes, owners, sizes.
func listing(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.Command("find", dir, "-printf", "%P %m %U %s %y\n").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// safeBuffer is written by a process and read by the test.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// await returns what stands between the mark and the next quote, once it is there.
func (b *safeBuffer) await(t *testing.T, mark string, ended <-chan error) string {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); ; {
		if _, rest, ok := strings.Cut(b.String(), mark); ok {
			if found, _, ok := strings.Cut(rest, `"`); ok {
				return found
			}
		}
		select {
		case err := <-ended:
			t.Fatalf("it has ended: %v\n%s", err, b)
		case <-late:
			t.Fatalf("it is not ready:\n%s", b)
		case <-tick.C:
		}
	}
}
