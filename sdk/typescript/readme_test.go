package typescript

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"patd/internal/sdktest"
)

// newScratch has a throw-away patd, the package, and the files of a page.
func newScratch(t *testing.T, page string) *sdktest.Scratch {
	t.Helper()
	program, err := patd()
	must(t, err)
	s := sdktest.New(t, program)
	sdktest.WriteBlocks(t, page, "js", s.Dir)
	// What npm install would do: the package as it is packed, and the frameworks beside it.
	home := filepath.Join(s.Dir, "node_modules", "patd")
	must(t, os.MkdirAll(home, 0o700))
	file := pack(t, ".", s.Dir)
	if out, err := sdktest.Run(s.Dir, nil, "tar", "-xzf", file, "-C", home, "--strip-components=1"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"express", "fastify", "hono"} {
		path, err := filepath.Abs(filepath.Join("node_modules", name))
		must(t, err)
		must(t, os.Symlink(path, filepath.Join(s.Dir, "node_modules", name)))
	}
	return s
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
	url := s.Serve(exec.Command("node", file))
	s.Guards(url+"/reports", `{"hello":"demo"}`, "SCOPE_INSUFFICIENT")
	if page == "README.md" {
		s.Calls(page, "sh curl", "3000", strings.TrimPrefix(url, "http://"), `{"hello":"demo"}`)
	}
}

// TestTheProgramsOfTheReadme runs the others.
func TestTheProgramsOfTheReadme(t *testing.T) {
	library(t)
	s := newScratch(t, "README.md")
	_, secret := s.Mint("reports.read")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"check.mjs"}, "demo may\n"},
		{[]string{"manage.mjs"}, "export reports.read true\nSCOPE_NOT_HELD\nACTIVE\n"},
		{[]string{"--test", "reports.test.mjs"}, ""},
	} {
		out, err := sdktest.Run(s.Dir, s.Env("SECRET="+secret), "node", c.args...)
		if err != nil || c.want != "" && out != c.want {
			t.Errorf("%q: %v, want %q\n%s", c.args, err, c.want, out)
		}
	}
	s.URL = "http://127.0.0.1:1" // nothing listens there
	out, err := sdktest.Run(s.Dir, s.Env("SECRET="+secret), "node", "check.mjs")
	if err != nil || out != "503: unavailable\n" {
		t.Errorf("without a patd: %v\n%s", err, out)
	}
}
