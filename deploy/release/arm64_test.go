package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// arm64 is the image and the packages for arm64. The binary of this machine is there too.
func arm64(t *testing.T) *built {
	t.Helper()
	b, err := begin(runtime.GOARCH, "arm64")
	if err != nil {
		t.Fatal(err)
	}
	b.dir, b.r.arches = t.TempDir(), []string{"arm64"}
	made := &artifacts{dir: b.dir}
	if err := errors.Join(b.r.image(made), b.r.packages(made, "arm64", b.r.version)); err != nil {
		t.Fatal(err)
	}
	return b
}

// emulator puts QEMU and its libraries into a root directory, and returns the command which runs a program for arm64
// there.
func emulator(t *testing.T, root string) []string {
	t.Helper()
	need(t, "qemu-aarch64", "ldd")
	qemu, err := exec.LookPath("qemu-aarch64")
	if err != nil {
		t.Fatal(err)
	}
	const dir = "/.emulator"
	bring := func(file string) string {
		t.Helper()
		inside := filepath.Join(dir, filepath.Base(file))
		text, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(root, inside), text, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		return inside
	}
	if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
		t.Fatal(err)
	}
	command := []string{bring(qemu)}
	libraries, err := exec.Command("ldd", qemu).Output()
	if err != nil { // it is static, as in Debian 13
		return command
	}
	for line := range strings.Lines(string(libraries)) { // name => file (address), or: loader (address)
		words := strings.Fields(line)
		switch {
		case len(words) > 2 && filepath.IsAbs(words[2]):
			bring(words[2])
		case filepath.IsAbs(words[0]):
			command = append([]string{bring(words[0]), "--library-path", dir}, command...)
		}
	}
	return command
}

// TestDrillArm64 runs the other architecture by QEMU: the image as its user on a read-only root, from the first mint to
// a backup that this machine's binary restores, and the binary of the Debian package.
func TestDrillArm64(t *testing.T) {
	if os.Getenv("LONG_TESTS") != "drills" {
		t.Skip("make drills runs it: to compile for arm64 takes minutes")
	}
	if runtime.GOARCH == "arm64" {
		t.Skip("the other tests run it")
	}
	needNamespaces(t)
	need(t, "dpkg-deb", "qemu-aarch64")
	b := arm64(t)

	dir := newRoot(t)
	root, volume := filepath.Join(dir, "root"), filepath.Join(dir, "volume")
	c := unpackImage(t, b.only(t, "*_image.tar"), root, "arm64")
	c.Config.Entrypoint = append(emulator(t, root), c.Config.Entrypoint...)
	before := listing(t, root)

	said := func(stdin string, args ...string) string {
		t.Helper()
		cmd := container(root, volume, c, nil, args...)
		return output(t, cmd, stdin)
	}
	checkVersion(t, said("", "version", "--json"))
	service := said("", "service", "create", "portal", "--permission", "tokens,users,introspect")
	began := time.Now()
	server := serve(t, root, volume, c)
	ready := time.Since(began)
	c.Config.Env = append(c.Config.Env, "PATD_TOKEN="+service, "PATD_ADDR="+server.grpc)
	if got := said("", "health"); got != "serving" {
		t.Errorf("patd health: %s", got)
	}
	said("", "user", "features", "alice", "--set", "reports.read")
	token := said("", "token", "create", "--user", "alice", "--name", "laptop", "--scope", "reports.read")
	if got := said(token, "introspect", "--scope", "reports.read"); !strings.Contains(got, "ALLOW") {
		t.Errorf("the token is minted: %s", got)
	}
	said("", "token", "revoke", "--user", "alice", strings.Split(token, "_")[1])
	refused := container(root, volume, c, nil, "introspect")
	refused.Stdin = strings.NewReader(token)
	if out, err := refused.CombinedOutput(); err == nil || !strings.Contains(string(out), "REVOKED") {
		t.Errorf("the token is revoked: %v\n%s", err, out)
	}
	said("", "backup", imageData+"/backup.db")
	server.stop(t)
	said("", "check")
	t.Logf("figures: ready after %.1f s, and %.1f s from there to the end of a check, by QEMU", ready.Seconds(),
		(time.Since(began) - ready).Seconds())
	if after := listing(t, root); after != before {
		t.Errorf("the root was\n%s\nand is\n%s", before, after)
	}

	// What one architecture wrote the other one reads.
	native := exec.Command(b.r.binaries[runtime.GOARCH], "drill", "restore", "--json", "--temp-dir", dir,
		"--backup", filepath.Join(volume, "backup.db"), "--data-dir", volume)
	if got := output(t, native, ""); !strings.Contains(got, `"ok": true`) {
		t.Errorf("the backup is restored: %s", got)
	}

	deb := b.only(t, "*.deb")
	if got := output(t, exec.Command("dpkg-deb", "--field", deb, "Architecture"), ""); got != "arm64" {
		t.Errorf("the package is for %s", got)
	}
	installed := filepath.Join(dir, "installed")
	output(t, exec.Command("dpkg-deb", "--extract", deb, installed), "")
	checkVersion(
		t,
		output(t, exec.Command("qemu-aarch64", filepath.Join(installed, "usr/bin/patd"), "version", "--json"), ""),
	)
}

// output runs a command, which must succeed, and returns what it prints, without the last line's end.
func output(t *testing.T, cmd *exec.Cmd, stdin string) string {
	t.Helper()
	var stderr strings.Builder
	cmd.Stdin, cmd.Stderr = strings.NewReader(stdin), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s%s", cmd.Args, err, out, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// checkVersion fails unless the binary that printed this is the release's, for arm64.
func checkVersion(t *testing.T, text string) {
	t.Helper()
	var said struct{ Version, Platform string }
	if err := json.Unmarshal([]byte(text), &said); err != nil {
		t.Fatal(err)
	}
	if said.Version != version || said.Platform != "linux/arm64" {
		t.Errorf("version --json says %s", text)
	}
}
