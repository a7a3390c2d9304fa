package java

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"patd/internal/proctest"
	"patd/internal/sdktest"
)

// programs puts the blocks of the README into a directory, and returns how one is run, with the jar alone.
func programs(t *testing.T, dir string) func(file string) []string {
	t.Helper()
	for name, text := range sdktest.Blocks(t, "README.md", "java") {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
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
	addr := proctest.FreeAddr(t)
	cmd := exec.Command("java", run("Server.java")...)
	cmd.Env = append(os.Environ(), s.Env("PORT="+addr[strings.LastIndex(addr, ":")+1:])...)
	s.Start(cmd, filepath.Join(s.Dir, "server.log"), 143) // Java's own, after SIGTERM
	s.Guards("http://"+addr+"/reports", "hello demo")
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
