package python

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
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
	dir, url, token, packages string
}

var (
	filePattern  = regexp.MustCompile("(?s)```python (\\S+)\n(.*?)```")
	exportedURL  = regexp.MustCompile(`export PATD_URL=(\S+) .*PATD_TOKEN_FILE='([^']+)'`)
	waitForBytes = 20 * time.Millisecond
)

// newScratch has the files of a page. A command, if there is one, makes what they stand in.
func newScratch(t *testing.T, page string, first ...string) *scratch {
	t.Helper()
	s := &scratch{T: t, dir: t.TempDir()}
	if len(first) > 0 {
		if out, err := run(s.dir, nil, interpreter(), first...); err != nil {
			t.Fatalf("%q: %v\n%s", first, err, out)
		}
	}
	text, err := os.ReadFile(page)
	must(t, err)
	for _, block := range filePattern.FindAllSubmatch(text, -1) {
		must(t, os.WriteFile(filepath.Join(s.dir, string(block[1])), block[2], 0o600))
	}
	// What pip install would do with the wheel.
	s.packages = filepath.Join(s.dir, "packages")
	wheel := build(t, source(t))[0]
	if out, err := run(s.dir, nil, interpreter(), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
		"--disable-pip-version-check", "--target", s.packages, wheel); err != nil {
		t.Fatalf("%v\n%s", err, out)
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
			if err != nil && err.Error() != "signal: terminated" { // runserver has no other end
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
	return append(more, "PATD_URL="+s.url, "PATD_TOKEN_FILE="+s.token, "PYTHONPATH="+s.packages)
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
	body := fmt.Sprintf(`{"name": "test %s %d"`, scope, time.Now().UnixNano()) + `, "scopes": ["` + scope + `"], "ttl": "1d"}`
	out := s.call(http.MethodPost, "/v1/users/demo/tokens", body)
	secret, _ = out["secret"].(string)
	return strings.Split(secret, "_")[1], secret
}

// TestFromTheReadmeToAProtectedRoute runs the servers of the README with a real patd.
func TestFromTheReadmeToAProtectedRoute(t *testing.T) {
	library(t)
	for _, program := range [][]string{
		{"-m", "uvicorn", "--log-level", "warning", "server:app", "--port"},
		{"site.py"},
	} {
		t.Run(program[0], func(t *testing.T) {
			t.Parallel()
			protected(newScratch(t, "README.md"), program)
		})
	}
}

// TestFromPagesToAProtectedRoute does what the pages about frameworks say.
func TestFromPagesToAProtectedRoute(t *testing.T) {
	library(t)
	t.Run("fastapi", func(t *testing.T) {
		t.Parallel()
		s := newScratch(t, "../../docs/frameworks/fastapi.md")
		get := protected(s, []string{"-m", "uvicorn", "--log-level", "warning", "api:app", "--port"})
		_, reader := s.mint("reports.read")
		_, deployer := s.mint("deploy.run")
		more(s, get, "GET /me", deployer, http.StatusOK, `{"user":"demo"}`)
		more(s, get, "DELETE /reports/7", reader, http.StatusForbidden, "deploy.run")
		more(s, get, "GET /openapi.json", "", http.StatusOK, `"security":[{"patd":["reports.read"]}]`)
	})
	t.Run("django", func(t *testing.T) {
		t.Parallel()
		s := newScratch(t, "../../docs/frameworks/django.md", "-m", "django", "startproject", "site1", ".")
		get := protected(s, []string{"manage.py", "runserver", "--noreload"})
		_, reader := s.mint("reports.read")
		_, deployer := s.mint("deploy.run")
		more(s, get, "GET /me", reader, http.StatusOK, `{"user":"demo"}`)
		more(s, get, "POST /deploy", deployer, http.StatusOK, `{"deployedby":"demo"}`)
		more(s, get, "POST /deploy", reader, http.StatusForbidden, "SCOPE_INSUFFICIENT")
	})
}

// more compares a response.
func more(s *scratch, do request, what, secret string, code int, text string) {
	s.Helper()
	if got, body := do(what, secret); got != code || !strings.Contains(body, text) {
		s.Errorf("%s: %d %s, want %d %s", what, got, body, code, text)
	}
}

// request sends a request, and returns the status and the body without spaces.
type request func(what, secret string) (int, string)

// protected starts a program, with a port as its last argument: only a token with the scope passes to /reports, and not
// for long after it is revoked.
func protected(s *scratch, program []string) request {
	s.Helper()
	addr := proctest.FreeAddr(s.T)
	cmd := exec.Command(interpreter(), append(program, addr[strings.LastIndex(addr, ":")+1:])...)
	cmd.Env = append(os.Environ(), s.env()...)
	out, err := os.Create(filepath.Join(s.dir, "server.log"))
	must(s.T, err)
	s.start(cmd, out)
	do := func(what, secret string) (int, string) {
		method, path, _ := strings.Cut(what, " ")
		ctx, cancel := context.WithTimeout(s.Context(), patience)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, method, "http://"+addr+path, nil)
		must(s.T, err)
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
		must(s.T, err)
		return resp.StatusCode, strings.ReplaceAll(string(text), " ", "")
	}
	const reports = "GET /reports"
	s.until("it listens", func() bool { code, _ := do(reports, ""); return code == http.StatusUnauthorized })
	id, may := s.mint("reports.read")
	_, mayNot := s.mint("deploy.run")
	for range 5 {
		more(s, do, reports, may, http.StatusOK, `{"hello":"demo"}`)
	}
	more(s, do, reports, mayNot, http.StatusForbidden, "SCOPE_INSUFFICIENT")
	s.call(http.MethodDelete, "/v1/users/demo/tokens/"+id, "")
	s.until("the token is refused", func() bool { code, _ := do(reports, may); return code == http.StatusUnauthorized })
	return do
}

// TestTheProgramsOfTheReadme runs the others, and looks at the types of all.
func TestTheProgramsOfTheReadme(t *testing.T) {
	library(t)
	s := newScratch(t, "README.md")
	_, secret := s.mint("reports.read")
	files, err := filepath.Glob(filepath.Join(s.dir, "*.py"))
	must(t, err)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"check.py"}, "demo may\n"},
		{[]string{"manage.py"}, "export reports.read True\nSCOPE_NOT_HELD\nACTIVE\n"},
		{[]string{"-m", "pytest", "-q", "-p", "no:cacheprovider", "test_reports.py"}, ""},
		{append([]string{"-m", "mypy", "--strict", "--cache-dir", t.TempDir()}, files...), ""},
	} {
		out, err := run(s.dir, s.env("SECRET="+secret, "MYPYPATH="+s.packages), interpreter(), c.args...)
		if err != nil || !strings.HasSuffix(out, c.want) { // there may be lines of the log before
			t.Errorf("%q: %v, want %q\n%s", c.args, err, c.want, out)
		}
	}
	s.url = "http://127.0.0.1:1" // nothing listens there
	out, err := run(s.dir, s.env("SECRET="+secret), interpreter(), "check.py")
	if err != nil || !strings.HasSuffix(out, "503: unavailable\n") { // after a line of the log
		t.Errorf("without a patd: %v\n%s", err, out)
	}
}
