package java

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"patd/internal/sdktest"
)

// programs puts the blocks of the README into a directory, and returns how one is run, with the jar alone.
func programs(t *testing.T, dir string) func(file string) []string {
	t.Helper()
	sdktest.WriteBlocks(t, "README.md", "java", dir)
	path, err := filepath.Abs(jar)
	if err != nil {
		t.Fatal(err)
	}
	return func(file string) []string { return append(append([]string{}, small...), "-cp", path, file) }
}

// TestFromTheReadmeToAProtectedRoute runs the server of the README with a real patd.
func TestFromTheReadmeToAProtectedRoute(t *testing.T) {
	library(t)
	s := sdktest.New(t, binary(t))
	run := programs(t, s.Dir)
	url := s.Serve(exec.Command("java", run("Server.java")...), 143) // Java's own, after SIGTERM
	s.Guards(url+"/reports", "hello demo", "")
	s.Calls("README.md", "sh curl", "3000", strings.TrimPrefix(url, "http://"), "hello demo")
}

// TestTheProgramsOfTheReadme runs the others.
func TestTheProgramsOfTheReadme(t *testing.T) {
	library(t)
	s := sdktest.New(t, binary(t))
	run := programs(t, s.Dir)
	_, secret := s.Mint("reports.read")
	for _, c := range []struct{ file, want string }{
		{"Check.java", "demo may\n"},
		{"Tokens.java", "export [reports.read] ACTIVE\nSCOPE_NOT_HELD\nACTIVE\n"},
		{"Reports.java", "ALLOW\nINSUFFICIENT_SCOPE\nREVOKED\nUNAVAILABLE\n"},
	} {
		out, err := sdktest.Run(s.Dir, s.Env("SECRET="+secret), "java", run(c.file)...)
		if err != nil || out != c.want {
			t.Errorf("%s: %v, want %q\n%s", c.file, err, c.want, out)
		}
	}
	s.URL = "http://127.0.0.1:1" // nothing listens there
	out, err := sdktest.Run(s.Dir, s.Env("SECRET="+secret), "java", run("Check.java")...)
	if err != nil || !strings.HasSuffix(out, "503: UNAVAILABLE\n") {
		t.Errorf("without a patd: %v\n%s", err, out)
	}
}
