package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// nextVersion is that of the packages which the first ones are upgraded to.
const nextVersion = "v0.99.0"

// debianRoot is a Debian as small as it gets, in a directory.
type debianRoot struct {
	t    *testing.T
	path string
}

// newDebianRoot makes one from the packages that the machine's apt is configured for.
func newDebianRoot(t *testing.T) debianRoot {
	t.Helper()
	need(t, "mmdebstrap", "dpkg", "chroot")
	if os.Getuid() != 0 {
		missing(t, "root, for a root directory of Debian,")
	}
	dir, err := os.MkdirTemp("", "patd-debian-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d := debianRoot{t: t, path: filepath.Join(dir, "root")}
	sources := []string{}
	for _, pattern := range []string{"/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"} {
		if text, err := os.ReadFile(pattern); err == nil && strings.Contains(string(text), "debian") {
			sources = append(sources, pattern)
			break
		}
	}
	release, err := exec.Command("sh", "-c", `. /etc/os-release && test "$ID" = debian && printf %s "$VERSION_CODENAME"`).
		Output()
	if err != nil || len(sources) == 0 {
		missing(t, "Debian, whose packages a root directory is made of,")
	}
	out, err := exec.Command("mmdebstrap", append([]string{"--quiet", "--mode=root", "--variant=essential", "--include=passwd", string(release), d.path}, sources...)...).
		CombinedOutput()
	if err != nil {
		t.Fatalf("make a root directory of Debian: %v\n%s", err, out)
	}
	return d
}

// try runs a command in the root.
func (d debianRoot) try(args ...string) (string, error) {
	cmd := exec.Command("chroot", append([]string{d.path}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s%s", strings.Join(args, " "), err, out, &stderr)
	}
	return strings.TrimSpace(string(out)), err
}

// run is try that must succeed.
func (d debianRoot) run(args ...string) string {
	d.t.Helper()
	out, err := d.try(args...)
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

// bring copies a file into the root.
func (d debianRoot) bring(file string) string {
	d.t.Helper()
	text, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(filepath.Join(d.path, "tmp", filepath.Base(file)), text, 0o600)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return "/tmp/" + filepath.Base(file)
}

// gone checks that there is no such file.
func (d debianRoot) gone(names ...string) {
	d.t.Helper()
	for _, name := range names {
		if _, err := os.Lstat(filepath.Join(d.path, name)); !os.IsNotExist(err) {
			d.t.Errorf("%s is there: %v", name, err)
		}
	}
}

// is compares the mode, owner and group of a file.
func (d debianRoot) is(want, name string) {
	d.t.Helper()
	if got := d.run("stat", "--format=%a %U:%G", name); got != want {
		d.t.Errorf("%s is %s, want %s", name, got, want)
	}
}

// next makes the packages of the next version, of the same binary.
func next(t *testing.T) *built {
	t.Helper()
	b := &built{dir: t.TempDir()}
	r := *release1(t).r
	r.work = t.TempDir()
	b.r = &r
	if err := r.packages(&artifacts{dir: b.dir}, runtime.GOARCH, nextVersion); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPackagesKeepTheDataUntilPurge installs, upgrades, removes and purges the Debian package by dpkg, and the RPM
// package by rpm, in a root directory of Debian.
func TestPackagesKeepTheDataUntilPurge(t *testing.T) {
	t.Parallel()
	b := release1(t)
	d := newDebianRoot(t)
	later := next(t)

	t.Run("deb", func(t *testing.T) { d.t = t; debianPackage(t, d, b, later) })
	t.Run("rpm", func(t *testing.T) { d.t = t; rpmPackage(t, d, b, later) })
}

// works checks what both packages install, and leaves a service in the store.
func works(d debianRoot) {
	d.t.Helper()
	d.is("755 root:root", "/usr/bin/patd")
	d.is("640 root:patd", "/etc/patd/patd.yaml")
	d.is("700 patd:patd", "/var/lib/patd")
	if got := d.run(
		"getent",
		"passwd",
		"patd",
	); !strings.HasSuffix(got, ":/var/lib/patd:/usr/sbin/nologin") &&
		!strings.HasSuffix(got, ":/var/lib/patd:/sbin/nologin") {
		d.t.Errorf("the user is %s", got)
	}
	for _, name := range []string{"man/man1/patd.1.gz", "man/man1/patd-token-create.1.gz", "man/man5/patd.yaml.5.gz", "bash-completion/completions/patd", "doc/patd/patd.cdx.json"} {
		d.is("644 root:root", "/usr/share/"+name)
	}
	if got := d.run(
		"grep",
		"^ExecStart=",
		"/usr/lib/systemd/system/patd.service",
	); got != "ExecStart=/usr/bin/patd serve --config /etc/patd/patd.yaml" {
		d.t.Error(got)
	}
	if got := d.run(
		"runuser",
		"-u",
		"patd",
		"--",
		"patd",
		"service",
		"create",
		"gateway",
		"--permission",
		"introspect",
		"--config",
		"/etc/patd/patd.yaml",
	); !strings.HasPrefix(
		got,
		"pats_",
	) {
		d.t.Errorf("a service token: %s", got)
	}
	d.run("sh", "-c", "echo 'log-level: debug' >> /etc/patd/patd.yaml")
}

// kept checks that settings and data are those of before.
func kept(d debianRoot) {
	d.t.Helper()
	d.run("grep", "-q", "^log-level: debug$", "/etc/patd/patd.yaml")
	d.is("700 patd:patd", "/var/lib/patd")
	for _, name := range []string{"patd.db", "hash.key"} {
		d.is("600 patd:patd", "/var/lib/patd/"+name)
	}
}

func debianPackage(t *testing.T, d debianRoot, b, later *built) {
	t.Helper()
	old, current := d.bring(b.only(t, "*.deb")), d.bring(later.only(t, "*.deb"))
	d.run("dpkg", "--install", old)
	works(d)
	if got := d.run(
		"dpkg-query",
		"--showformat=${Conffiles} ${Version}",
		"--show",
		"patd",
	); !strings.HasPrefix(strings.TrimSpace(got), "/etc/patd/patd.yaml ") ||
		!strings.HasSuffix(got, " 0.98.7-1") {
		t.Errorf("it has the configuration files and version %s", got)
	}
	const wanted = "etc/systemd/system/multi-user.target.wants/patd.service"
	if _, err := os.Lstat(filepath.Join(d.path, wanted)); err != nil {
		t.Errorf("the service is not enabled: %v", err)
	}
	d.run("rm", "/"+wanted)             // as systemctl disable does
	d.run("dpkg", "--install", current) // an edited file, which nobody asks about
	kept(d)
	d.gone(wanted) // what the administrator disabled stays so
	d.is("640 root:patd", "/etc/patd/patd.yaml")
	if got := d.run(
		"runuser",
		"-u",
		"patd",
		"--",
		"patd",
		"service",
		"list",
		"--config",
		"/etc/patd/patd.yaml",
	); !strings.Contains(
		got,
		"gateway",
	) {
		t.Errorf("after the upgrade the services are %s", got)
	}
	d.run("dpkg", "--remove", "patd")
	kept(d)
	d.gone("usr/bin/patd", "usr/lib/systemd/system/patd.service", "usr/share/man/man1/patd.1.gz", "usr/share/doc/patd")
	d.run("dpkg", "--install", current)
	kept(d)
	d.run("dpkg", "--purge", "patd")
	d.gone("usr/bin/patd", "etc/patd", "var/lib/patd", wanted, "etc/systemd/system/patd.service")
	d.run("getent", "passwd", "patd")
}

func rpmPackage(t *testing.T, d debianRoot, b, later *built) {
	t.Helper()
	need(t, "rpm")
	old, current := b.only(t, "*.rpm"), later.only(t, "*.rpm")
	rpm := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("rpm", append([]string{"--root", d.path}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("rpm %s: %v\n%s", args[0], err, out)
		}
		return strings.TrimSpace(string(out))
	}
	d.run("userdel", "patd") // of the Debian package
	rpm("--initdb")
	rpm("--install", "--nodeps", "--noplugins", old)
	works(d)
	if got := rpm("--query", "--configfiles", "patd"); got != "/etc/patd/patd.yaml" {
		t.Errorf("its configuration files are %s", got)
	}
	rpm("--upgrade", "--nodeps", "--noplugins", current)
	kept(d)
	if got := rpm("--query", "patd"); !strings.HasPrefix(got, "patd-0.99.0-1.") {
		t.Errorf("it is %s", got)
	}
	rpm("--erase", "patd")
	d.gone("usr/bin/patd", "usr/lib/systemd/system/patd.service")
	for _, name := range []string{"patd.db", "hash.key"} {
		d.is("600 patd:patd", "/var/lib/patd/"+name)
	}
}
