package installtest

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	corev1 "k8s.io/api/core/v1"
)

// patience bounds every wait for another process.
const patience = 60 * time.Second

// missing skips the test for want of a program, or fails it in CI, where nothing may be missing.
func missing(tb testing.TB, what string) {
	tb.Helper()
	if ci := os.Getenv("CI"); ci != "" && ci != "false" {
		tb.Fatalf("%s is missing, and in CI it must not be", what)
	}
	tb.Skipf("%s is missing", what)
}

var built struct {
	once sync.Once
	dir  string
	out  []byte
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// patd is the command, built from the source beside this module.
func patd(tb testing.TB) string {
	tb.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "patd-install-test-"); built.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-o", filepath.Join(built.dir, "patd"), "./cmd/patd")
		cmd.Dir = "../../.."
		built.out, built.err = cmd.CombinedOutput()
	})
	if built.err != nil {
		tb.Fatalf("build patd: %v\n%s", built.err, built.out)
	}
	return filepath.Join(built.dir, "patd")
}

// starts runs a command of patd's until it serves, and then asks it to end.
func starts(t *testing.T, what string, env []string, args ...string) {
	t.Helper()
	binary := patd(t) // to build it may take minutes, and is no part of the patience
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(env, "PATH="+os.Getenv("PATH"), "PATD_DRAIN_DELAY=0s")
	var log bytes.Buffer
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	buf, asked := make([]byte, 4096), false
	for {
		n, err := r.Read(buf)
		log.Write(buf[:n])
		if err != nil {
			break
		}
		if !asked && strings.Contains(log.String(), `"msg":"ready"`) {
			asked = true
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil || !asked {
		t.Errorf("%s: %v\n%s", what, err, &log)
	}
}

func load(t *testing.T, name string) *types.Project {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", name))
	if err != nil {
		t.Fatal(err)
	}
	p, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir: t.TempDir(), ConfigFiles: []types.ConfigFile{{Filename: name, Content: text}},
		Environment: types.Mapping{"PATD_IMAGE": "patd:1.2.3", "PATD_URL": "https://patd.example.com"},
	}, func(o *loader.Options) { o.SetProjectName("patd", true) })
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return p
}

// TestComposeFilesStartServers parses the files by the rules of compose, and runs the commands in them.
func TestComposeFilesStartServers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, servers := range map[string]int{"compose.yaml": 1, "compose.three.yaml": 3} {
		p, found := load(t, name), 0
		for _, s := range p.Services {
			if s.Image != "patd:1.2.3" {
				continue
			}
			if !s.ReadOnly || len(s.CapDrop) != 1 || s.CapDrop[0] != "ALL" {
				t.Errorf("%s in %s may do more than it needs", s.Name, name)
			}
			if s.Command[0] != "serve" {
				if out, err := exec.Command(patd(t), append([]string(s.Command), "--help")...).
					CombinedOutput(); err != nil {
					t.Errorf("%s in %s: %v\n%s", s.Name, name, err, out)
				}
				continue
			}
			found++
			if grace := time.Duration(*s.StopGracePeriod); grace < 25*time.Second {
				t.Errorf("%s in %s has %s to end", s.Name, name, grace)
			}
			var env []string
			for variable := range s.Environment {
				if flag := "--" + strings.ReplaceAll(
					strings.ToLower(strings.TrimPrefix(variable, "PATD_")),
					"_",
					"-",
				); !strings.Contains(
					help(t),
					flag+" ",
				) {
					t.Errorf("%s in %s sets %s: patd has no %s", s.Name, name, variable, flag)
				}
			}
			if check := s.HealthCheck.Test; check[0] != "CMD" || check[1] != "/usr/bin/patd" ||
				exec.Command(patd(t), append([]string(check[2:]), "--help")...).Run() != nil {
				t.Errorf("%s in %s is probed by %v", s.Name, name, check)
			}
			if found > 1 {
				continue // the same again
			}
			starts(
				t,
				s.Name+" in "+name,
				append(env, "PATD_DATA_DIR="+filepath.Join(dir, name)),
				append([]string(s.Command), "--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0")...)
		}
		if found != servers {
			t.Errorf("%s has %d servers, want %d", name, found, servers)
		}
	}
}

var helped struct {
	once sync.Once
	text string
}

func help(t *testing.T) string {
	t.Helper()
	helped.once.Do(func() {
		out, err := exec.Command(patd(t), "serve", "--help").Output()
		if err != nil {
			t.Error(err)
		}
		helped.text = string(out)
	})
	return helped.text
}

// TestSettingsOfTheChartStartAServer renders the chart, and starts patd with its settings.
func TestSettingsOfTheChartStartAServer(t *testing.T) {
	t.Parallel()
	o := decodeCase(t, "one server in plain text")
	file := filepath.Join(t.TempDir(), "patd.yaml")
	if err := os.WriteFile(file, []byte(o.config.Data["patd.yaml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	c := o.deployment.Spec.Template.Spec.Containers[0]
	args := append([]string{}, c.Args...)
	for i, arg := range args {
		if arg == "/etc/patd/settings/patd.yaml" {
			args[i] = file
		}
	}
	starts(
		t,
		"the chart",
		[]string{"PATD_DATA_DIR=" + t.TempDir()},
		append(args, "--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--metrics-addr", "127.0.0.1:0")...)

	o = decodeCase(t, "several servers")
	for _, pod := range []struct {
		what string
		env  []string
	}{{"server", names(o.deployment.Spec.Template.Spec.Containers[0].Env)}, {"migration", names(o.migration.Spec.Template.Spec.Containers[0].Env)}} {
		for _, variable := range pod.env {
			if flag := "--" + strings.ReplaceAll(
				strings.ToLower(strings.TrimPrefix(variable, "PATD_")),
				"_",
				"-",
			); strings.HasPrefix(variable, "PATD_") &&
				!strings.Contains(help(t), flag+" ") {
				t.Errorf("the %s has %s: patd has no %s", pod.what, variable, flag)
			}
		}
	}
	for _, line := range regexp.MustCompile(`(?m)^([a-z-]+):`).FindAllStringSubmatch(o.config.Data["patd.yaml"], -1) {
		if !strings.Contains(help(t), "--"+line[1]) {
			t.Errorf("the settings have %s, which patd has not", line[1])
		}
	}
}

func names(env []corev1.EnvVar) (out []string) {
	for _, e := range env {
		out = append(out, e.Name)
	}
	return out
}

// TestBalancerOfTheComposeFileIsConfigured has HAProxy read haproxy.cfg.
func TestBalancerOfTheComposeFileIsConfigured(t *testing.T) {
	t.Parallel()
	path := "/usr/sbin/haproxy"
	if _, err := os.Stat(path); err != nil {
		missing(t, "haproxy")
	}
	dir := t.TempDir()
	text, err := os.ReadFile("../../haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	pem := filepath.Join(dir, "tls.pem")
	out, err := exec.Command("sh", "-c", `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=patd -keyout "$0.key" -out "$0.crt" && cat "$0.crt" "$0.key" > "$0"`, pem).
		CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(
		file,
		bytes.ReplaceAll(text, []byte("/run/secrets/tls.pem"), []byte(pem)),
		0o600,
	); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(path, "-c", "-dW", "-f", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
