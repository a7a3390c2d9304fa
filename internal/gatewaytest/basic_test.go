package gatewaytest

import (
	"archive/zip"
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"patd/internal/longtest"
	"patd/internal/proctest"
)

// command runs a program in a home of its own, and returns what it wrote.
func command(t *testing.T, home, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(program(t, name), args...)
	cmd.Dir = home
	cmd.Env = append(
		os.Environ(),
		"HOME="+home,
		"XDG_CONFIG_HOME="+home,
		"GIT_CONFIG_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=a",
		"GIT_AUTHOR_EMAIL=a@example.com",
		"GIT_COMMITTER_NAME=a",
		"GIT_COMMITTER_EMAIL=a@example.com",
	)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestClientsOfBasicCredentialsWorkUnchanged has git, pip, and curl with a user name, a netrc file and X-API-Key, ask
// through nginx, as its page says.
func TestClientsOfBasicCredentialsWorkUnchanged(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	home := t.TempDir()
	for _, args := range [][]string{
		{"init", "-q", "work"}, {"-C", "work", "commit", "-q", "--allow-empty", "-m", "first"},
		{"clone", "-q", "--bare", "work", "reports/repo.git"}, {"-C", "reports/repo.git", "update-server-info"},
	} {
		if out, err := command(t, home, "git", args...); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	var leaked atomic.Int32
	files := http.FileServer(http.Dir(home))
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.Header.Get("X-Api-Key") != "" {
			leaked.Add(1)
		}
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(up.Close)
	d := serveWith(t, certificate{}, "--accept", "basic,x-api-key")
	addr := nginxWith(t, site{patd: &d.issuer, upstream: up.Listener.Addr().String()}, func(config string) string {
		// What docs/gateways/nginx.md says about X-API-Key.
		config = strings.ReplaceAll(
			config,
			"Authorization   $http_authorization;",
			"Authorization   $http_authorization;\nproxy_set_header X-API-Key $http_x_api_key;",
		)
		return strings.Replace(
			config,
			`Authorization      "";`,
			`Authorization      ""; proxy_set_header X-API-Key "";`,
			1,
		)
	})
	tok := d.mint(t, "alice", "reports.read")
	revoked := d.mint(t, "alice", "reports.read")
	d.revoke(t, revoked)
	remote := func(secret string) string {
		return (&url.URL{Scheme: "http", User: url.UserPassword("anybody", secret), Host: addr, Path: "/reports/repo.git"}).String()
	}
	if out, err := command(t, home, "git", "clone", "-q", remote(tok.secret), "cloned"); err != nil {
		t.Errorf("git clone: %v\n%s", err, out)
	}
	if out, err := command(t, home, "git", "ls-remote", remote(revoked.secret)); err == nil {
		t.Errorf("git with a revoked token:\n%s", out)
	}
	netrc := filepath.Join(home, "netrc")
	host, _, _ := strings.Cut(addr, ":")
	must(t, os.WriteFile(netrc, []byte("machine "+host+" login anybody password "+tok.secret+"\n"), 0o600))
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"curl -u":            {[]string{"-u", "anybody:" + tok.secret}, "200"},
		"a netrc file":       {[]string{"--netrc-file", netrc}, "200"},
		"X-API-Key":          {[]string{"-H", "X-API-Key: " + tok.secret}, "200"},
		"Bearer":             {[]string{"-H", "Authorization: Bearer " + tok.secret}, "200"},
		"a revoked one":      {[]string{"-u", "anybody:" + revoked.secret}, "401"},
		"a user name alone":  {[]string{"-u", "anybody:"}, "401"},
		"the token as name":  {[]string{"-u", tok.secret + ":"}, "401"},
		"nothing":            {nil, "401"},
		"two, both of them":  {[]string{"-u", "anybody:" + tok.secret, "-H", "X-API-Key: " + tok.secret}, "401"},
		"two, one as Bearer": {[]string{"-H", "Authorization: Bearer " + tok.secret, "-H", "X-API-Key: " + tok.secret}, "401"},
	} {
		out, err := command(
			t,
			home,
			"curl",
			append(c.args, "-sS", "-o", os.DevNull, "-w", "%{http_code}", "http://"+addr+"/reports/repo.git/HEAD")...)
		if err != nil || out != c.want {
			t.Errorf("%s: %s, %v, want %s", name, out, err, c.want)
		}
	}
	pip(t, home, addr, tok.secret, revoked.secret)
	if n := leaked.Load(); n != 0 {
		t.Errorf("the upstream was given a token %d times", n)
	}
}

// pip has pip download a package from an index behind the gateway.
func pip(t *testing.T, home, addr, secret, revoked string) {
	t.Helper()
	const program = "../openapitest/testdata/python/venv/bin/pip" // .ci/run makes it
	path, err := filepath.Abs(program)
	must(t, err)
	if _, err := os.Stat(path); err != nil {
		proctest.Missing(t, "pip in "+program)
	}
	const wheel = "thing-1.0-py3-none-any.whl"
	index := filepath.Join(home, "reports", "simple", "thing")
	must(t, os.MkdirAll(index, 0o755))
	must(
		t,
		os.WriteFile(
			filepath.Join(index, "index.html"),
			[]byte(`<!DOCTYPE html><a href="`+wheel+`">`+wheel+`</a>`),
			0o644,
		),
	)
	var packed bytes.Buffer
	z := zip.NewWriter(&packed)
	for name, text := range map[string]string{
		"thing-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n",
		"thing-1.0.dist-info/WHEEL":    "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		"thing-1.0.dist-info/RECORD":   "",
	} {
		w, err := z.Create(name)
		must(t, err)
		_, err = w.Write([]byte(text))
		must(t, err)
	}
	must(t, z.Close())
	must(t, os.WriteFile(filepath.Join(index, wheel), packed.Bytes(), 0o644))
	download := func(secret, into string) (string, error) {
		from := (&url.URL{Scheme: "http", User: url.UserPassword("anybody", secret), Host: addr, Path: "/reports/simple"}).String()
		host, _, _ := strings.Cut(addr, ":")
		return command(
			t,
			home,
			path,
			"--isolated",
			"--no-cache-dir",
			"--disable-pip-version-check",
			"download",
			"--no-deps",
			"--no-input",
			"--index-url",
			from,
			"--trusted-host",
			host,
			"--dest",
			into,
			"thing",
		)
	}
	if out, err := download(secret, "fetched"); err != nil {
		t.Errorf("pip download: %v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(home, "fetched", wheel)); err != nil {
		t.Errorf("what pip downloaded: %v", err)
	}
	if out, err := download(revoked, "refused"); err == nil {
		t.Errorf("pip with a revoked token:\n%s", out)
	}
}

// TestOnlyBearerTokensAreTakenUnlessTheOperatorSaysSo asks a patd that was not told to accept anything else.
func TestOnlyBearerTokensAreTakenUnlessTheOperatorSaysSo(t *testing.T) {
	t.Parallel()
	d := serve(t, certificate{})
	tok := d.mint(t, "alice", "reports.read")
	for name, set := range map[string]func(*http.Request){
		"Basic":     func(r *http.Request) { r.SetBasicAuth("anybody", tok.secret) },
		"X-API-Key": func(r *http.Request) { r.Header.Set("X-API-Key", tok.secret) },
	} {
		r, err := http.NewRequest(http.MethodGet, d.url+"/v1/forward-auth", nil)
		must(t, err)
		set(r)
		resp, err := d.client.Do(r)
		must(t, err)
		resp.Body.Close()
		if got := resp.Header.Values(
			"WWW-Authenticate",
		); resp.StatusCode != http.StatusUnauthorized || len(got) != 1 ||
			got[0] != `Bearer realm="patd"` {
			t.Errorf("%s: %s %q", name, resp.Status, got)
		}
	}
}
