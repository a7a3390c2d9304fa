//go:build !race

package openapitest

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"patd/internal/longtest"
	"patd/internal/proctest"
)

var httpStatus = regexp.MustCompile(`"http_status":([0-9]+)`)

const (
	nodeDir   = "testdata/node"
	pythonDir = "testdata/python"
)

// tool returns the path of a program that npm installed.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(nodeDir, "node_modules", ".bin", name))
	must(t, err)
	if _, err := os.Stat(path); err != nil {
		proctest.Missing(t, name+" (npm ci in internal/openapitest/"+nodeDir+")")
	}
	return path
}

// TestRedoclyFindsNothing of its recommended rules to say about the document of a running server.
func TestRedoclyFindsNothing(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	redocly := tool(t, "redocly")
	p := serve(t)
	config, err := filepath.Abs(filepath.Join(nodeDir, "redocly.yaml"))
	must(t, err)
	dir := t.TempDir()
	out, err := run(t, dir, []string{"REDOCLY_TELEMETRY=off", "REDOCLY_SUPPRESS_UPDATE_NOTICE=true"},
		redocly, "lint", p.document(t, dir), "--config", config, "--format", "json")
	var found struct {
		Totals *struct{ Errors, Warnings, Ignored int }
	}
	at := strings.Index(out, "{")
	if at < 0 || json.NewDecoder(strings.NewReader(out[at:])).Decode(&found) != nil || found.Totals == nil {
		t.Fatalf("redocly: %v\n%s", err, out)
	}
	if err != nil || *found.Totals != (struct{ Errors, Warnings, Ignored int }{}) {
		t.Errorf("redocly: %v\n%s", err, out)
	}
}

// TestAGeneratedClientCompilesAndWorks makes a TypeScript client of the document, compiles a program with it in strict
// mode, and runs that against the server.
func TestAGeneratedClientCompilesAndWorks(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	generator, compiler := tool(t, "openapi-typescript"), tool(t, "tsc")
	p := serve(t)
	dir, err := os.MkdirTemp(nodeDir, "run-") // beside node_modules, where the program finds its packages
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	program, err := os.ReadFile(filepath.Join(nodeDir, "client.ts"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "client.ts"), program, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "tsconfig.json"), []byte(`{"extends": "../tsconfig.json"}`), 0o600))
	if out, err := run(t, dir, nil, generator, filepath.Base(p.document(t, dir)), "-o", "patd.d.ts"); err != nil {
		t.Fatalf("generate: %v\n%s", err, out)
	}
	if out, err := run(t, dir, nil, compiler, "-p", "."); err != nil {
		t.Fatalf("compile: %v\n%s", err, out)
	}
	out, err := run(t, dir, []string{"PATD_URL=" + p.url, "PATD_TOKEN=" + p.admin}, "node", "client.js")
	if err != nil || strings.TrimSpace(out) != "done" {
		t.Errorf("run: %v\n%s", err, out)
	}
}

// TestGeneratedRequestsAreAnsweredAsDocumented has Schemathesis make requests of the document, good and bad: no
// response is a fault of the server, none has a status or a form that is not in the document, none is given to a caller
// without a credential.
func TestGeneratedRequestsAreAnsweredAsDocumented(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	schemathesis, err := filepath.Abs(filepath.Join(pythonDir, "venv", "bin", "schemathesis"))
	must(t, err)
	if _, err := os.Stat(schemathesis); err != nil {
		proctest.Missing(t, "schemathesis (requirements.txt of internal/openapitest/"+pythonDir+", in a venv there)")
	}
	config, err := filepath.Abs(filepath.Join(pythonDir, "schemathesis.toml"))
	must(t, err)
	p := serve(t)
	held := map[string]any{"features": []string{"billing.read", "reports.read"}}
	p.call(t, http.MethodPut, "/v1/users/carol/features", held, &struct{}{})
	var minted struct {
		Token struct {
			ID string `json:"token_id"`
		}
		Secret string
	}
	asked := map[string]any{"name": "generated", "scopes": []string{"reports.read"}}
	p.call(t, http.MethodPost, "/v1/users/carol/tokens", asked, &minted)
	env := []string{"PATD_ADMIN=" + p.admin, "PATD_PERSONAL=" + minted.Secret, "PATD_TOKEN_ID=" + minted.Token.ID}
	// What may end the credentials that the requests carry comes last.
	const ends = `^/v1/(services/\{name\}|self)`
	// They take what others sign: JWTs, and messages of GitHub, whose keys are not here.
	const signed = `|^/v1/security-events|^/v1/leaks/github`
	const endless = `|^/v1/invalidations`
	for _, some := range [][]string{
		{"--exclude-path-regex", ends + signed + endless, "--max-time", "50"}, {"--include-path-regex", ends, "--max-time", "10"},
	} {
		out, err := run(t, t.TempDir(), env, schemathesis, append([]string{
			"--config-file", config, "run", p.url + "/openapi.json", "--no-color", "--warnings", "off",
		}, some...)...)
		t.Log(out[max(0, len(out)-600):])
		if err != nil || !strings.Contains(out, " passed") {
			t.Errorf("schemathesis: %v\n%s", err, out)
		}
	}
	answered := map[string]int{}
	for _, status := range httpStatus.FindAllStringSubmatch(p.log.String(), -1) {
		answered[status[1]]++
	}
	t.Logf("by status: %v", answered)
	if answered["200"] < 20 || answered["400"] < 20 {
		t.Errorf("too few requests that succeed, or that are refused: %v", answered)
	}
	if text := p.log.String(); strings.Contains(text, `"INTERNAL"`) || strings.Contains(text, `"msg":"panic"`) {
		t.Errorf("a fault in the log:\n%s", text)
	}
}
