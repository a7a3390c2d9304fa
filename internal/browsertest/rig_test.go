//go:build !race

package browsertest

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/internal/oidctest"
	"patd/internal/proctest"
)

// patience bounds every wait for another process. Nothing takes nearly as long, unless it is broken.
const patience = 5 * time.Minute

const (
	scripts  = "testdata/browser"
	pictures = "testdata/pictures"
)

// ends are what ends the processes that tests share, the last first.
var ends []func()

func TestMain(m *testing.M) {
	code := proctest.Main(m)
	for i := len(ends) - 1; i >= 0; i-- {
		ends[i]()
	}
	os.Exit(code)
}

// binary builds patd once and returns its path.
var binary = proctest.Once()

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// need skips a test, or fails it in CI, where what the scripts need is missing.
func need(t *testing.T) {
	t.Helper()
	longtest.Slow(t)
	for _, path := range []string{chromium, chromiumShell} {
		if _, err := os.Stat(path); err != nil {
			proctest.Missing(t, path)
		}
	}
	module := scripts + "/node_modules/playwright-core"
	if _, err := os.Stat(filepath.Join(module, "package.json")); err != nil {
		proctest.Missing(t, module+" (npm ci there)")
	}
	oidctest.Need(t)
}

// Debian's browser, and the same without windows, which costs a fraction of it but cannot be told to block third-party
// cookies.
const (
	chromium      = "/usr/bin/chromium"
	chromiumShell = "/usr/bin/chromium-headless-shell"
)

// start starts a browser and returns its address.
func start(path string) (address string, stop func(), err error) {
	var at struct{ Browser string }
	stop, err = proctest.Helper(scripts, nil, &at, "node", "server.mjs", path)
	return at.Browser, stop, err
}

// browser starts the browser that tests share, and returns its address.
var browser = sync.OnceValues(func() (string, error) {
	address, stop, err := start(chromiumShell)
	if err == nil {
		ends = append(ends, stop)
	}
	return address, err
})

// setup is what a script knows. Its fields are those of its variable "setup".
type setup struct {
	Browser  string            `json:"browser"`  // its address; empty: that of the browser that tests share
	Patd     string            `json:"patd"`     // address of the server
	Admin    string            `json:"admin"`    // secret of a service that may do everything
	Issuer   string            `json:"issuer"`   // address of the OpenID provider
	Pictures string            `json:"pictures"` // folder for pictures
	More     map[string]string `json:"more"`

	Authority string `json:"-"` // file with the certificate of a server under TLS
}

// script runs a script of testdata/browser. It fails the test if the script fails.
func (s setup) script(t *testing.T, name string) {
	t.Helper()
	var err error
	if s.Browser == "" {
		s.Browser, err = browser()
		must(t, err)
	}
	s.Pictures, err = filepath.Abs(pictures)
	must(t, err)
	text, err := json.Marshal(s)
	must(t, err)
	// The go command keeps the results of tests that passed: it notes that these files were looked at.
	files, err := filepath.Glob(scripts + "/*")
	must(t, err)
	for _, file := range files {
		_, err := os.Stat(file)
		must(t, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", name)
	cmd.Dir, cmd.Env = scripts, append(os.Environ(), "SETUP="+string(text), "NODE_EXTRA_CA_CERTS="+s.Authority)
	start := time.Now()
	out, err := cmd.CombinedOutput()
	t.Logf("%s: %s\n%s", name, time.Since(start).Round(time.Millisecond), out)
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
}

// patd is a running server.
type patd struct {
	*proctest.Daemon
	url string
}

// serve runs patd at an address for HTTP, with more in its environment and more arguments.
func serve(addr string, env []string, args ...string) (*patd, error) {
	program, err := binary()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, append([]string{
		"serve",
		"--http-addr",
		addr,
		"--grpc-addr",
		"127.0.0.1:0",
		"--drain-delay",
		"0s",
		"--auth-failure-rate",
		"off",
		"--change-rate",
		"off",
		"--mint-rate",
		"off",
	}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	d, err := proctest.Launch(cmd)
	if err != nil {
		return nil, err
	}
	p := &patd{Daemon: d, url: "http://" + addr}
	if slices.Contains(args, "--tls-cert") {
		p.url = "https://" + addr
	}
	return p, nil
}

// service makes a service in the store that the environment or the arguments name, and returns its secret.
func service(env []string, args ...string) (string, error) {
	program, err := binary()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(program, append([]string{"service", "create", "admin", "--permission", "admin"}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// signsIn are the arguments of a server at which users sign in by the provider at an address.
func signsIn(dir, addr string) ([]string, error) {
	path := filepath.Join(dir, "client-secret")
	err := os.WriteFile(path, []byte(oidctest.RealSecret+"\n"), 0o600)
	return []string{
		"--oidc-issuer",
		"http://" + addr,
		"--oidc-client-id",
		"page",
		"--oidc-client-secret-file",
		path,
	}, err
}

// startProvider runs an OpenID provider at an address, for the users of a server.
func startProvider(addr, url string) (stop func(), err error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	p, err := oidctest.RunReal(port, url+"/signin/callback")
	if err != nil {
		return nil, err
	}
	return p.Stop, nil
}

// shared is a server that most tests share, with users who sign in by a provider.
var shared = sync.OnceValues(func() (setup, error) {
	dir, err := proctest.TempDir()
	if err != nil {
		return setup{}, err
	}
	addr, err := proctest.LoopbackAddr()
	if err != nil {
		return setup{}, err
	}
	issuer, err := proctest.LoopbackAddr()
	if err != nil {
		return setup{}, err
	}
	args, err := signsIn(dir, issuer)
	if err != nil {
		return setup{}, err
	}
	stop, err := startProvider(issuer, "http://"+addr)
	if err != nil {
		return setup{}, err
	}
	ends = append(ends, stop)
	data := []string{"--data-dir", filepath.Join(dir, "data")}
	admin, err := service(nil, data...)
	if err != nil {
		return setup{}, err
	}
	args = append(
		args,
		"--oidc-permissions-claim",
		"groups",
		"--oidc-permissions",
		"admins=admin,support=tokens+users,auditors=audit,editors=catalog",
	)
	p, err := serve(addr, nil, append(args, data...)...)
	if err != nil {
		return setup{}, err
	}
	ends = append(ends, func() {
		if err := p.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "patd:", err)
		}
	})
	return setup{Patd: p.url, Admin: admin, Issuer: "http://" + issuer}, nil
})

// inShared runs a script with the server that tests share.
func inShared(t *testing.T, name string) {
	t.Helper()
	t.Parallel()
	need(t)
	s, err := shared()
	must(t, err)
	s.script(t, name)
}
