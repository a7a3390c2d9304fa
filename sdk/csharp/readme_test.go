package csharp

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

// scratch has a throw-away patd, and a directory with one program of the README.
type scratch struct {
	*testing.T
	dir, url, token string
}

var (
	filePattern = regexp.MustCompile("(?s)```csharp (\\S+)\n(.*?)```")
	exportedURL = regexp.MustCompile(`export PATD_URL=(\S+) .*PATD_TOKEN_FILE='([^']+)'`)
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

// newScratch compiles a program of the README.
func newScratch(t *testing.T, file string) *scratch {
	t.Helper()
	s := &scratch{T: t, dir: t.TempDir()}
	text, err := os.ReadFile("README.md")
	must(t, err)
	for _, block := range filePattern.FindAllSubmatch(text, -1) {
		if string(block[1]) == file {
			must(t, os.WriteFile(filepath.Join(s.dir, file), block[2], 0o600))
		}
	}
	compile(t, filepath.Join(s.dir, file), s.dir)
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
	for end := time.Now().Add(patience); !so(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("%s: it never was so", what)
		}
	}
}

// program is the one that was compiled.
func (s *scratch) program() []string {
	sdkPath, err := filepath.Abs(sdk + "/dotnet")
	must(s.T, err)
	return []string{sdkPath, filepath.Join(s.dir, "app.dll")}
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

// TestFromTheReadmeToAProtectedRoute runs the server of the README with a real patd: only a token with the scope
// passes, and not for long after it is revoked.
func TestFromTheReadmeToAProtectedRoute(t *testing.T) {
	library(t)
	s := newScratch(t, "Program.cs")
	addr := proctest.FreeAddr(t)
	args := s.program()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(programs(), s.env("PORT="+addr[strings.LastIndex(addr, ":")+1:])...)
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
		if code, text := get(may); code != http.StatusOK || text != "hello demo" {
			t.Errorf("%d %s", code, text)
		}
	}
	if code, text := get(mayNot); code != http.StatusForbidden || !strings.Contains(text, "SCOPE_INSUFFICIENT") {
		t.Errorf("%d %s", code, text)
	}
	s.call(http.MethodDelete, "/v1/users/demo/tokens/"+id, "")
	s.until("the token is refused", func() bool { code, _ := get(may); return code == http.StatusUnauthorized })
}

// TestTheProgramOfTheReadme runs the other one, with a patd and without.
func TestTheProgramOfTheReadme(t *testing.T) {
	library(t)
	s := newScratch(t, "Check.cs")
	_, secret := s.mint("reports.read")
	args := s.program()
	for url, want := range map[string]string{s.url: "demo may\n", "http://127.0.0.1:1": "503: Unavailable\n"} {
		s.url = url
		if out, err := run(s.dir, s.env("SECRET="+secret), args[0], args[1:]...); err != nil || out != want {
			t.Errorf("%v, want %q\n%s", err, want, out)
		}
	}
}

// TestTheManagementOfTheReadme runs the program that manages tokens.
func TestTheManagementOfTheReadme(t *testing.T) {
	library(t)
	s := newScratch(t, "Manage.cs")
	args := s.program()
	out, err := run(s.dir, s.env(), args[0], args[1:]...)
	if want := "export reports.read ACTIVE\nSCOPE_NOT_HELD\nACTIVE\n"; err != nil || out != want {
		t.Errorf("%v, want %q\n%s", err, want, out)
	}
}
