//go:build !race

package openapitest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"patd/internal/proctest"
)

// patience bounds every wait for another process. Nothing takes nearly as long, unless it is broken.
const patience = 2 * time.Minute

func TestMain(m *testing.M) { os.Exit(proctest.Main(m)) }

// binary builds patd once and returns its path.
var binary = proctest.Once()

// patd is the real server, run as a process.
type patd struct {
	url   string
	admin string // secret of the service "admin", which may do everything
	log   *proctest.Output
}

// serve runs patd until the test ends.
func serve(t *testing.T, flags ...string) *patd {
	t.Helper()
	program, err := binary()
	must(t, err)
	data := filepath.Join(t.TempDir(), "data")
	secret, err := exec.Command(program, "service", "create", "admin", "--permission", "admin", "--data-dir", data).
		Output()
	must(t, err)
	d, err := proctest.Launch(exec.Command(program, append([]string{
		"serve",
		"--data-dir",
		data,
		"--http-addr",
		"127.0.0.1:0",
		"--grpc-addr",
		"127.0.0.1:0",
		"--drain-delay",
		"0s",
		"--auth-failure-rate",
		"off",
	},
		flags...)...))
	must(t, err)
	t.Cleanup(func() { must(t, d.Stop()) })
	return &patd{url: d.HTTP, admin: strings.TrimSpace(string(secret)), log: d.Log}
}

// call makes a REST call as the operator, and reads its response into out.
func (p *patd) call(t *testing.T, method, path string, in, out any) {
	t.Helper()
	body, err := json.Marshal(in)
	must(t, err)
	r, err := http.NewRequest(method, p.url+path, bytes.NewReader(body))
	must(t, err)
	r.Header.Set("Authorization", "Bearer "+p.admin)
	resp, err := http.DefaultClient.Do(r)
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	if resp.StatusCode >= http.StatusBadRequest {
		t.Fatalf("%s %s: %s\n%s", method, path, resp.Status, text)
	}
	must(t, json.Unmarshal(text, out))
}

// document writes the document that the server has into a folder, and returns its path.
func (p *patd) document(t *testing.T, dir string) string {
	t.Helper()
	resp, err := http.Get(p.url + "/openapi.json")
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	path := filepath.Join(dir, "openapi.json")
	must(t, os.WriteFile(path, text, 0o600))
	return path
}

// run runs a program in a folder, and returns what it wrote.
func run(t *testing.T, dir string, env []string, program string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
