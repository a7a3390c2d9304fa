package typescript

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"patd/internal/proctest"
)

// scratch has a throw-away patd, and a directory with the package and the files of the README.
type scratch struct {
	*testing.T
	dir, url, token string
}

var (
	filePattern  = regexp.MustCompile("(?s)```js (\\S+)\n(.*?)```")
	exportedURL  = regexp.MustCompile(`export PATD_URL=(\S+) .*PATD_TOKEN_FILE='([^']+)'`)
	waitForBytes = 20 * time.Millisecond
)

// newScratch has the files of a page.
func newScratch(t *testing.T, page string) *scratch {
	t.Helper()
	s := &scratch{T: t, dir: t.TempDir()}
	text, err := os.ReadFile(page)
	must(t, err)
	for _, block := range filePattern.FindAllSubmatch(text, -1) {
		must(t, os.WriteFile(filepath.Join(s.dir, string(block[1])), block[2], 0o600))
	}
	// What npm install would do: the package as it is packed, and the frameworks beside it.
	home := filepath.Join(s.dir, "node_modules", "patd")
	must(t, os.MkdirAll(home, 0o700))
	file := pack(t, ".", s.dir)
	if out, err := run(s.dir, nil, "tar", "-xzf", file, "-C", home, "--strip-components=1"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"express", "fastify", "hono"} {
		path, err := filepath.Abs(filepath.Join("node_modules", name))
		must(t, err)
		must(t, os.Symlink(path, filepath.Join(s.dir, "node_modules", name)))
	}
	s.startPatd()
	return s
}

// startPatd starts `patd dev`, and reads what it prints.
func (s *scratch) startPatd() {
	program, err := patd()
	must(s.T, err)
	log := filepath.Join(s.dir, "patd.log")
	out, err := os.Create(log)
	must(s.T, err)
	http, grpc := proctest.FreeAddr(s.T), proctest.FreeAddr(s.T)
	s.start(exec.Command(program, "dev", "--http-addr", http, "--grpc-addr", grpc), out)
	s.until("patd dev", func() bool {
		text, err := os.ReadFile(log)
		must(s.T, err)
		found := exportedURL.FindSubmatch(text)
		if found == nil || !bytes.Contains(text, []byte("msg=ready")) {
			return false
		}
		s.url, s.token = string(found[1]), string(found[2])
		return true
	})
}

// start starts a program that ends with the test, by SIGTERM and with status 0.
func (s *scratch) start(cmd *exec.Cmd, out *os.File) {
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, out, out
	must(s.T, cmd.Start())
	s.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err := <-ended:
			if err != nil {
				s.Errorf("%s: %v", cmd.Path, err)
			}
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			s.Errorf("%s does not end", cmd.Path)
		}
		_ = out.Close()
	})
}

func (s *scratch) until(what string, so func() bool) {
	s.Helper()
	for end := time.Now().Add(patience); !so(); <-time.After(waitForBytes) {
		if time.Now().After(end) {
			s.Fatalf("%s: it never was so", what)
		}
	}
}

func (s *scratch) env(more ...string) []string {
	return append(more, "PATD_URL="+s.url, "PATD_TOKEN_FILE="+s.token)
}

// call calls patd and returns the response.
func (s *scratch) call(method, path, body string) map[string]any {
	s.Helper()
	secret, err := os.ReadFile(s.token)
	must(s.T, err)
	r, err := http.NewRequestWithContext(s.Context(), method, s.url+path, strings.NewReader(body))
	must(s.T, err)
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(secret)))
	resp, err := http.DefaultClient.Do(r)
	must(s.T, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(s.T, err)
	var out map[string]any
	if resp.StatusCode != http.StatusOK || json.Unmarshal(text, &out) != nil {
		s.Fatalf("%s %s: %s\n%s", method, path, resp.Status, text)
	}
	return out
}

// mint creates a token of the demo user.
func (s *scratch) mint(scope string) (id, secret string) {
	s.Helper()
	body := `{"name": "test ` + scope + `", "scopes": ["` + scope + `"], "ttl": "1d"}`
	out := s.call(http.MethodPost, "/v1/users/demo/tokens", body)
	secret, _ = out["secret"].(string)
	return strings.Split(secret, "_")[1], secret
}

// TestFromTheReadmeToAProtectedRoute runs the servers of the README.
func TestFromTheReadmeToAProtectedRoute(t *testing.T) {
	library(t)
	for _, file := range []string{"server.mjs", "fastify.mjs"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			protected(t, "README.md", file)
		})
	}
}

// TestFromThePagesToAProtectedRoute does what the pages about frameworks say.
func TestFromThePagesToAProtectedRoute(t *testing.T) {
	library(t)
	for _, framework := range []string{"express", "fastify"} {
		t.Run(framework, func(t *testing.T) {
			t.Parallel()
			protected(t, "../../docs/frameworks/"+framework+".md", framework+".mjs")
		})
	}
}

// protected runs a server of a page with a real patd: only a token with the scope passes, and not for long after it is
// revoked.
func protected(t *testing.T, page, file string) {
	t.Helper()
	s := newScratch(t, page)
	addr := proctest.FreeAddr(t)
	cmd := exec.Command("node", file)
	cmd.Env = append(os.Environ(), s.env("PORT="+addr[strings.LastIndex(addr, ":")+1:])...)
	out, err := os.Create(filepath.Join(s.dir, "server.log"))
	must(t, err)
	s.start(cmd, out)
	get := func(secret string) (int, string) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/reports", nil)
		must(t, err)
		if secret != "" {
			r.Header.Set("Authorization", "Bearer "+secret)
		}
		r.Close = true
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		must(t, err)
		return resp.StatusCode, string(text)
	}
	s.until("it listens", func() bool { code, _ := get(""); return code == http.StatusUnauthorized })
	id, may := s.mint("reports.read")
	_, mayNot := s.mint("deploy.run")
	for range 5 {
		if code, text := get(may); code != http.StatusOK || text != `{"hello":"demo"}` {
			t.Errorf("%d %s", code, text)
		}
	}
	if code, text := get(mayNot); code != http.StatusForbidden || !strings.Contains(text, "SCOPE_INSUFFICIENT") {
		t.Errorf("%d %s", code, text)
	}
	s.call(http.MethodDelete, "/v1/users/demo/tokens/"+id, "")
	s.until("the token is refused", func() bool { code, _ := get(may); return code == http.StatusUnauthorized })
}

// TestTheProgramsOfTheReadme runs the others.
func TestTheProgramsOfTheReadme(t *testing.T) {
	library(t)
	s := newScratch(t, "README.md")
	_, secret := s.mint("reports.read")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"check.mjs"}, "demo may\n"},
		{[]string{"manage.mjs"}, "export reports.read true\nSCOPE_NOT_HELD\nACTIVE\n"},
		{[]string{"--test", "reports.test.mjs"}, ""},
	} {
		out, err := run(s.dir, s.env("SECRET="+secret), "node", c.args...)
		if err != nil || c.want != "" && out != c.want {
			t.Errorf("%q: %v, want %q\n%s", c.args, err, c.want, out)
		}
	}
	s.url = "http://127.0.0.1:1" // nothing listens there
	out, err := run(s.dir, s.env("SECRET="+secret), "node", "check.mjs")
	if err != nil || out != "503: unavailable\n" {
		t.Errorf("without a patd: %v\n%s", err, out)
	}
}
