package python

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"patd/internal/proctest"
	"patd/internal/sdktest"
)

// scratch has a throw-away patd, and a directory with the package and the files of the README.
type scratch struct {
	*sdktest.Scratch
	packages string
	addr     string // of the program that protected starts
}

// newScratch has the files of a page. A command, if there is one, makes what they stand in.
func newScratch(t *testing.T, page string, first ...string) *scratch {
	t.Helper()
	program, err := patd()
	must(t, err)
	s := &scratch{Scratch: sdktest.New(t, program)}
	if len(first) > 0 {
		if out, err := run(s.Dir, nil, interpreter(), first...); err != nil {
			t.Fatalf("%q: %v\n%s", first, err, out)
		}
	}
	sdktest.WriteBlocks(t, page, "python", s.Dir)
	// What pip install would do with the wheel.
	s.packages = filepath.Join(s.Dir, "packages")
	wheel := build(t, source(t))[0]
	if out, err := run(s.Dir, nil, interpreter(), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
		"--disable-pip-version-check", "--target", s.packages, wheel); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return s
}

func (s *scratch) env(more ...string) []string {
	return append(s.Env(more...), "PYTHONPATH="+s.packages)
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
			s := newScratch(t, "README.md")
			protected(s, program)
			s.Calls("README.md", "sh curl", "3000", s.addr, `"demo"}`)
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
		_, reader := s.Mint("reports.read")
		_, deployer := s.Mint("deploy.run")
		more(s, get, "GET /me", deployer, http.StatusOK, `{"user":"demo"}`)
		more(s, get, "DELETE /reports/7", reader, http.StatusForbidden, "deploy.run")
		more(s, get, "GET /openapi.json", "", http.StatusOK, `"security":[{"patd":["reports.read"]}]`)
	})
	t.Run("django", func(t *testing.T) {
		t.Parallel()
		s := newScratch(t, "../../docs/frameworks/django.md", "-m", "django", "startproject", "site1", ".")
		get := protected(s, []string{"manage.py", "runserver", "--noreload"})
		_, reader := s.Mint("reports.read")
		_, deployer := s.Mint("deploy.run")
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
	s.addr = addr
	cmd := exec.Command(interpreter(), append(program, addr[strings.LastIndex(addr, ":")+1:])...)
	cmd.Env = append(os.Environ(), s.env()...)
	s.Start(cmd, filepath.Join(s.Dir, "server.log"), -1) // runserver ends by the signal
	do := func(what, secret string) (int, string) {
		method, path, _ := strings.Cut(what, " ")
		code, text := s.Request(method, "http://"+addr+path, secret, "")
		return code, strings.ReplaceAll(text, " ", "")
	}
	get := func(secret string) (int, string) { return do("GET /reports", secret) }
	s.GuardedBy(get, `{"hello":"demo"}`, "SCOPE_INSUFFICIENT")
	return do
}

// TestTheProgramsOfTheReadme runs the others, and looks at the types of all.
func TestTheProgramsOfTheReadme(t *testing.T) {
	library(t)
	s := newScratch(t, "README.md")
	_, secret := s.Mint("reports.read")
	files, err := filepath.Glob(filepath.Join(s.Dir, "*.py"))
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
		out, err := run(s.Dir, s.env("SECRET="+secret, "MYPYPATH="+s.packages), interpreter(), c.args...)
		if err != nil || !strings.HasSuffix(out, c.want) { // there may be lines of the log before
			t.Errorf("%q: %v, want %q\n%s", c.args, err, c.want, out)
		}
	}
	s.URL = "http://127.0.0.1:1" // nothing listens there
	out, err := run(s.Dir, s.env("SECRET="+secret), interpreter(), "check.py")
	if err != nil || !strings.HasSuffix(out, "503: unavailable\n") { // after a line of the log
		t.Errorf("without a patd: %v\n%s", err, out)
	}
}
