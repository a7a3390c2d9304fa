package main

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"patd/internal/longtest"

	"go.yaml.in/yaml/v3"
)

// shownData is the data directory of deploy/patd.yaml.
const shownData = "/var/lib/patd"

// TestUnitCanBeInstalledAndEnabled installs patd under systemd as docs/running.md says, in a directory that stands for
// the root of a machine. The unit must be without fault, enabled, and leave the process less than 2.0 of 10 to do; and
// what it starts must serve.
func TestUnitCanBeInstalledAndEnabled(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	k, root := newDesk(t, "systemctl", "systemd-analyze"), t.TempDir()
	for _, dir := range []string{"usr/local/bin", "etc/patd", "etc/systemd/system"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(repository(t), "deploy"), filepath.Join(k.dir, "deploy")); err != nil {
		t.Fatal(err)
	}
	systemctl, err := exec.LookPath("systemctl")
	if err != nil {
		t.Fatal(err)
	}
	k.program(t, "sudo", `exec "$@"`)
	k.program(t, "useradd", `echo "useradd $*"`)
	k.program(
		t,
		"systemctl",
		`test "$1 $2" = "enable --now" && shift 2 && exec `+systemctl+` --root='`+root+`' enable "$@"`,
	)
	if got := k.paste(
		t,
		block(t, "sh systemd"),
		" /usr/",
		" "+root+"/usr/",
		" /etc/",
		" "+root+"/etc/",
	); !regexp.MustCompile(`useradd .*\bpatd\b`).
		MatchString(got) {
		t.Errorf("no user is made: %s", got)
	}
	if _, err := os.Lstat(filepath.Join(root, "etc/systemd/system/multi-user.target.wants/patd.service")); err != nil {
		t.Errorf("the unit is not enabled: %v", err)
	}
	unit, err := os.ReadFile(filepath.Join(root, "etc/systemd/system/patd.service"))
	if err != nil {
		t.Fatal(err)
	}
	// Programs of the unit must exist to be verified: those of this root do.
	here := filepath.Join(t.TempDir(), "patd.service")
	write(t, here, strings.ReplaceAll(string(unit), "/usr/local/bin/", root+"/usr/local/bin/"))
	if out, err := exec.Command("systemd-analyze", "verify", here).CombinedOutput(); err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
	if out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=19", here).
		CombinedOutput(); err != nil {
		t.Errorf("security: %v\n%s", err, out)
	}

	start := regexp.MustCompile(`(?m)^ExecStart=(.*)$`).FindStringSubmatch(string(unit))
	if start == nil {
		t.Fatal("the unit starts nothing")
	}
	config := filepath.Join(root, "etc/patd/patd.yaml")
	text, err := os.ReadFile(config)
	if err == nil && !strings.Contains(string(text), "data-dir: "+shownData+"\n") {
		err = errors.New("the sample does not name " + shownData)
	}
	if err == nil {
		err = os.WriteFile(
			config,
			[]byte(strings.ReplaceAll(string(text), shownData, filepath.Join(root, "data"))),
			0o600,
		)
	}
	if err != nil {
		t.Fatal(err)
	}
	d := k.serve(t, "exec "+start[1], "/usr/local/bin/patd", filepath.Join(k.dir, "patd"), "/etc/", root+"/etc/")
	d.call(t, http.MethodGet, "/readyz", "", "").want(t, "readiness", 200)
}

// TestLitestreamCopiesTheStoreOfTheUnit holds that what docs/running.md has Litestream copy is the store that the unit
// serves.
func TestLitestreamCopiesTheStoreOfTheUnit(t *testing.T) {
	t.Parallel()
	var config struct {
		DBs []struct {
			Path     string
			Replicas []struct{ URL string }
		}
	}
	dec := yaml.NewDecoder(strings.NewReader(block(t, "yaml litestream")))
	dec.KnownFields(true)
	if err := dec.Decode(&config); err != nil {
		t.Fatal(err)
	}
	if len(config.DBs) != 1 || config.DBs[0].Path != filepath.Join(shownData, "patd.db") ||
		len(config.DBs[0].Replicas) != 1 {
		t.Errorf("it copies %v", config)
	}
}
