package csharp

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"patd/internal/sdktest"
)

// references are what the compiler has to be told of.
var references = []string{
	"packs/Microsoft.NETCore.App.Ref/3.1.0/ref/netcoreapp3.1",
	"packs/Microsoft.AspNetCore.App.Ref/3.1.2/ref/netcoreapp3.1",
}

// runtime says which frameworks a program needs.
const runtime = `{"runtimeOptions": {"frameworks": [
  {"name": "Microsoft.NETCore.App", "version": "3.1.2"}, {"name": "Microsoft.AspNetCore.App", "version": "3.1.2"}]}}`

// compile compiles a program into a directory, without a project.
func compile(t *testing.T, source, dir string) {
	t.Helper()
	args := []string{
		filepath.Join(sdk, "sdk/3.1.102/Roslyn/bincore/csc.dll"),
		"-nologo", "-langversion:8.0", "-nullable:enable", "-warnaserror",
		"-out:" + filepath.Join(dir, "app.dll"), source,
	}
	for _, name := range []string{"Patd.dll", "Patd.AspNetCore.dll"} {
		library, err := os.ReadFile(built(t, "tests", name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, name), library, 0o600))
		args = append(args, "-r:"+filepath.Join(dir, name))
	}
	for _, pack := range references {
		list, err := filepath.Glob(filepath.Join(sdk, pack, "*.dll"))
		must(t, err)
		for _, one := range list {
			args = append(args, "-r:"+one)
		}
	}
	if out, err := dotnet(".", args...); err != nil {
		t.Fatalf("compile %s: %v\n%s", source, err, out)
	}
	must(t, os.WriteFile(filepath.Join(dir, "app.runtimeconfig.json"), []byte(runtime), 0o600))
}

// newScratch has a throw-away patd, and a program of the README, compiled.
func newScratch(t *testing.T, file string) *sdktest.Scratch {
	t.Helper()
	program, err := patd()
	must(t, err)
	s := sdktest.New(t, program)
	sdktest.WriteBlocks(t, "README.md", "csharp", s.Dir)
	compile(t, filepath.Join(s.Dir, file), s.Dir)
	return s
}

// program is how the one that was compiled is run.
func program(s *sdktest.Scratch) (name, file string) {
	s.Helper()
	name, err := filepath.Abs(sdk + "/dotnet")
	must(s.T, err)
	return name, filepath.Join(s.Dir, "app.dll")
}

// TestFromTheReadmeToAProtectedRoute runs the server of the README with a real patd: only a token with the scope
// passes, and not for long after it is revoked.
func TestFromTheReadmeToAProtectedRoute(t *testing.T) {
	library(t)
	s := newScratch(t, "Program.cs")
	name, file := program(s)
	cmd := exec.Command(name, file)
	cmd.Env = programs()
	url := s.Serve(cmd)
	s.Guards(url+"/reports", "hello demo", "SCOPE_INSUFFICIENT")
	s.Calls("README.md", "sh curl", "3000", strings.TrimPrefix(url, "http://"), "hello demo")
}

// TestTheProgramOfTheReadme runs the other one, with a patd and without.
func TestTheProgramOfTheReadme(t *testing.T) {
	library(t)
	s := newScratch(t, "Check.cs")
	_, secret := s.Mint("reports.read")
	name, file := program(s)
	for url, want := range map[string]string{s.URL: "demo may\n", "http://127.0.0.1:1": "503: Unavailable\n"} {
		s.URL = url
		if out, err := run(s.Dir, s.Env("SECRET="+secret), name, file); err != nil || out != want {
			t.Errorf("%v, want %q\n%s", err, want, out)
		}
	}
}

// TestTheManagementOfTheReadme runs the program that manages tokens.
func TestTheManagementOfTheReadme(t *testing.T) {
	library(t)
	s := newScratch(t, "Manage.cs")
	name, file := program(s)
	out, err := run(s.Dir, s.Env(), name, file)
	if want := "export reports.read ACTIVE\nSCOPE_NOT_HELD\nACTIVE\n"; err != nil || out != want {
		t.Errorf("%v, want %q\n%s", err, want, out)
	}
}
