package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// imageConfig is what the test reads of an image.
type imageConfig struct {
	Architecture string
	Config       struct {
		User, WorkingDir, StopSignal string
		Entrypoint, Cmd, Env         []string
		Volumes, ExposedPorts        map[string]struct{}
	}
}

// unpackImage lays an image out as a root directory, without go-containerregistry: by the OCI's layout alone. Each
// digest is checked.
func unpackImage(t *testing.T, file, root, arch string) (c imageConfig) {
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
	if m := index.Manifests; len(m) != 1 || m[0].Platform.OS != "linux" || m[0].Platform.Architecture != arch {
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
	if _, volume := c.Config.Volumes[imageData]; c.Config.User != "65532:65532" || !volume ||
		len(c.Config.ExposedPorts) != 2 || c.Architecture != arch {
		t.Errorf("the image is %+v", c)
	}
	return c
}

// needNamespaces skips a test where it may not make namespaces.
func needNamespaces(t *testing.T) {
	t.Helper()
	need(t, "unshare", "chroot", "tar", "mount")
	out, err := exec.Command("unshare", "--mount", "--pid", "--fork", "true").CombinedOutput()
	if err != nil || os.Getuid() != 0 {
		missing(t, "the permission to make namespaces: "+string(out))
	}
}

// newRoot returns a directory with an empty root, and a volume of the image's user.
func newRoot(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	volume := filepath.Join(dir, "volume")
	if err := errors.Join(
		os.Chmod(filepath.Dir(dir), 0o755), // others pass through it
		os.Mkdir(filepath.Join(dir, "root"), 0o755),
		os.Mkdir(volume, 0o700),
		os.Chown(volume, imageUser, imageUser),
	); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestImageRunsAsItsUserOnAReadOnlyRoot unpacks the image and runs it as a container engine does: its user, its
// command, its variables, a root that cannot be written to, and one volume.
func TestImageRunsAsItsUserOnAReadOnlyRoot(t *testing.T) {
	t.Parallel()
	needNamespaces(t)
	dir := newRoot(t)
	root, volume := filepath.Join(dir, "root"), filepath.Join(dir, "volume")
	c := unpackImage(t, release1(t).only(t, "*_image.tar"), root, runtime.GOARCH)
	text, err := os.ReadFile(filepath.Join(root, "etc/ssl/certs/ca-certificates.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Count(text, []byte("BEGIN CERTIFICATE")) < 100 || !x509.NewCertPool().AppendCertsFromPEM(text) {
		t.Error("the image has too few roots of trust")
	}
	before := listing(t, root)
	// docker run without an option: plain text on all addresses is refused, with what to do.
	refused := container(root, volume, c, nil)
	if out, err := refused.CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "give --tls-cert and --tls-key, or --insecure") {
		t.Errorf("without TLS: %v\n%s", err, out)
	}

	server := serve(t, root, volume, c)
	health := container(root, volume, c, nil, "health", "--addr", server.grpc)
	if out, err := health.CombinedOutput(); err != nil || string(out) != "serving\n" {
		t.Errorf("patd health: %v\n%s", err, out)
	}
	create := container(root, volume, c, nil, "service", "create", "gateway", "--permission", "introspect")
	if out, err := create.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "pats_") {
		t.Errorf("a service token: %v\n%s", err, out)
	}
	server.stop(t)
	if after := listing(t, root); after != before {
		t.Errorf("the root was\n%s\nand is\n%s", before, after)
	}
	if info, err := os.Stat(filepath.Join(volume, "patd.db")); err != nil || info.Size() == 0 {
		t.Errorf("there is no store in the volume: %v", err)
	}
}

// served is the image's command, running.
type served struct {
	cmd   *exec.Cmd
	grpc  string // its address
	log   safeBuffer
	ended chan error
}

// serve runs the image's command, and waits until it is ready.
func serve(t *testing.T, root, volume string, c imageConfig) *served {
	t.Helper()
	env := []string{"PATD_HTTP_ADDR=127.0.0.1:0", "PATD_GRPC_ADDR=127.0.0.1:0", "PATD_DRAIN_DELAY=0s"}
	s := &served{cmd: container(root, volume, c, env), ended: make(chan error, 1)}
	s.cmd.Stderr = &s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.ended <- s.cmd.Wait() }()
	t.Cleanup(func() { _ = s.cmd.Process.Kill() })
	s.grpc = s.log.await(t, `"grpc":"`, s.ended)
	return s
}

// stop ends it by a signal, as an engine does.
func (s *served) stop(t *testing.T) {
	t.Helper()
	// The process 1 of the container is the child of unshare.
	stop := exec.Command("sh", "-c", `kill -TERM $(cat /proc/$0/task/$0/children)`, fmt.Sprint(s.cmd.Process.Pid))
	if out, err := stop.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	select {
	case err := <-s.ended:
		if err != nil {
			t.Errorf("it ends with %v\n%s", err, &s.log)
		}
	case <-time.After(patience):
		t.Fatal("it does not stop")
	}
}

// container is the image's command, or another one, in namespaces of its own.
func container(root, volume string, c imageConfig, env []string, args ...string) *exec.Cmd {
	if args == nil {
		args = c.Config.Cmd
	}
	script := `mount --make-rprivate / && mount --bind "$0" "$0" && mount --bind "$1" "$0/var/lib/patd" && mount -o remount,bind,ro "$0" &&
root=$0 && shift && exec chroot --userspec=65532:65532 --groups= "$root" "$@"`
	cmd := exec.Command(
		"unshare",
		append(
			[]string{"--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, root, volume},
			append(c.Config.Entrypoint, args...)...)...)
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
