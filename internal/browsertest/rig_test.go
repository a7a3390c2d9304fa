//go:build !race

package browsertest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/internal/proctest"
)

// patience bounds every wait for another process. Nothing takes nearly as long, unless it is broken.
const patience = 5 * time.Minute

const (
	scripts  = "testdata/browser"
	provider = "../../server/signin/testdata/provider"
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
	if _, err := exec.LookPath("node"); err != nil {
		proctest.Missing(t, "node")
	}
	for _, path := range []string{chromium, chromiumShell} {
		if _, err := os.Stat(path); err != nil {
			proctest.Missing(t, path)
		}
	}
	for _, module := range []string{scripts + "/node_modules/playwright-core", provider + "/node_modules/oidc-provider"} {
		if _, err := os.Stat(filepath.Join(module, "package.json")); err != nil {
			proctest.Missing(t, module+" (npm ci there)")
		}
	}
}

// Debian's browser, and the same without windows, which costs a fraction of it but cannot be told to block third-party
// cookies.
const (
	chromium      = "/usr/bin/chromium"
	chromiumShell = "/usr/bin/chromium-headless-shell"
)

// helper starts a program that runs until its standard input ends, with more in its environment, and reads what it says
// when it is ready.
func helper(dir string, env []string, out any, args ...string) (stop func(), err error) {
	cmd := exec.Command(args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stderr, cmd.Env = dir, &stderr, append(os.Environ(), env...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var once sync.Once
	stop = func() {
		once.Do(func() {
			_ = stdin.Close()
			_ = cmd.Wait()
		})
	}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, out)
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return stop, nil
}

// start starts a browser and returns its address.
func start(path string) (address string, stop func(), err error) {
	var at struct{ Browser string }
	stop, err = helper(scripts, nil, &at, "node", "server.mjs", path)
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
	url  string
	log  string // path of its log
	stop func() error
}

// serve runs patd at an address for HTTP, with more in its environment and more arguments. Its log is in a folder.
func serve(dir, addr string, env []string, args ...string) (*patd, error) {
	program, err := binary()
	if err != nil {
		return nil, err
	}
	p, client := &patd{url: "http://" + addr, log: filepath.Join(dir, "log-"+addr)}, http.DefaultClient
	if i := slices.Index(args, "--tls-cert"); i >= 0 {
		authority, err := os.ReadFile(args[i+1])
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(authority)
		p.url, client = "https://"+addr, &http.Client{
			Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}},
		}
	}
	out, err := os.Create(p.log)
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
	cmd.Stderr, cmd.Env = out, append(os.Environ(), env...)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	p.stop = func() error {
		defer out.Close()
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case err := <-ended:
			ended <- err
			return err
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			return errors.New("patd does not end")
		}
	}
	for deadline := time.Now().Add(patience); ; <-time.After(20 * time.Millisecond) {
		if resp, err := client.Get(p.url + "/readyz"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return p, nil
			}
		}
		select {
		case err := <-ended:
			ended <- err
			return nil, fmt.Errorf("patd ends: %w\n%s", err, p.text())
		default:
		}
		if time.Now().After(deadline) {
			_ = p.stop()
			return nil, fmt.Errorf("patd is not ready\n%s", p.text())
		}
	}
}

// text is what the server has logged.
func (p *patd) text() string {
	text, _ := os.ReadFile(p.log)
	return string(text)
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
	err := os.WriteFile(path, []byte("a-secret-for-tests-only\n"), 0o600)
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
	var at struct{ Issuer string }
	return helper(provider, nil, &at, "node", "provider.mjs", port, url+"/signin/callback")
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
	p, err := serve(dir, addr, nil, append(args, data...)...)
	if err != nil {
		return setup{}, err
	}
	ends = append(ends, func() {
		if err := p.stop(); err != nil {
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
