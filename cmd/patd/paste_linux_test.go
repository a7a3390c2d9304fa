package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"patd/client/routes"
	patdv1 "patd/gen/patd/v1"
	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/internal/pagetest"
)

func repository(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs(pagetest.Root(t))
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// TestDeploymentCanBePasted builds and serves patd as README.md says, and then calls it from the shell as
// docs/running.md and docs/features.md say.
func TestDeploymentCanBePasted(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	k := newDesk(t, "curl")
	// The program is built already: by `go build` too, in package proctest.
	d := k.serve(t, block(t, "sh serve"), append(becomes, "go build -o patd ./cmd/patd", "true")...)
	k.env = append(k.env, "PATD_ADDR="+d.GRPC)
	if got := k.paste(t, block(t, "sh cli")); !strings.Contains(got, "ALLOW") {
		t.Errorf("the commands printed\n%s", secrets.ReplaceAllString(got, "[secret]"))
	}
	if got := k.paste(t, block(t, "sh call"), "http://127.0.0.1:8080", d.HTTP); !strings.Contains(got, `"name":"ci"`) {
		t.Errorf("the call printed\n%s", got)
	}
	if got := k.paste(
		t,
		block(t, "sh completion")+"\ncomplete -p patd",
	); !strings.Contains(
		got,
		"-F __start_patd patd",
	) {
		t.Errorf("completion is registered as %s", got)
	}
	if got := k.paste(t, block(t, "sh prune")); !strings.HasPrefix(got, "deleted 0 events before ") {
		t.Errorf("the pruning printed\n%s", got)
	}
	k.env = append(
		k.env,
		"PATD_TOKEN_FILE="+written(
			t,
			"catalog.token",
			patd(
				t,
				"service",
				"create",
				"catalog",
				"--permission",
				"catalog",
				"--data-dir",
				filepath.Join(k.dir, "data"),
			),
		),
	)
	if got := k.paste(t, block(t, "sh policy")); !strings.Contains(got, "api") {
		t.Errorf("the commands about policies printed\n%s", got)
	}
}

// TestUserAndTokenCommandsCanBePasted renews a token, and lets its user go.
func TestUserAndTokenCommandsCanBePasted(t *testing.T) {
	t.Parallel()
	k := newDesk(t)
	data, admin := administer(t)
	d := serve(t, data)
	a := connect(t, d, admin)
	if _, err := a.users.SetUserFeatures(
		t.Context(),
		&patdv1.SetUserFeaturesRequest{User: "alice", Features: []string{"a"}},
	); err != nil {
		t.Fatal(err)
	}
	first, err := a.tokens.CreateToken(
		t.Context(),
		&patdv1.CreateTokenRequest{User: "alice", Name: "n", Scopes: []string{"a"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	k.env = append(
		k.env,
		"PATD_ADDR="+d.GRPC,
		"PATD_TOKEN_FILE="+written(t, "admin.token", admin),
		"ID="+first.GetToken().GetTokenId(),
	)
	k.paste(t, block(t, "sh renewing"))
	renewed, err := os.ReadFile(filepath.Join(k.dir, "new.token"))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{first.GetSecret(), strings.TrimSpace(string(renewed))} {
		if scopes, _, err := a.may(t, secret); err != nil || len(scopes) != 1 {
			t.Errorf("after the rotation a secret may %v, %v", scopes, err)
		}
	}
	second, err := a.tokens.CreateToken(
		t.Context(),
		&patdv1.CreateTokenRequest{User: "alice", Name: "m", Scopes: []string{"a"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	rotated, err := a.tokens.RotateToken(
		t.Context(),
		&patdv1.RotateTokenRequest{User: "alice", TokenId: second.GetToken().GetTokenId()},
	)
	if err != nil {
		t.Fatal(err)
	}
	k.env = append(k.env, "ID="+second.GetToken().GetTokenId())
	k.paste(t, block(t, "sh cancelling"))
	for text, want := range map[string]patdv1.IntrospectResponse_Decision{
		second.GetSecret(): patdv1.IntrospectResponse_ALLOW, rotated.GetSecret(): patdv1.IntrospectResponse_SUPERSEDED,
	} {
		if got, err := a.introspect.Introspect(
			t.Context(),
			&patdv1.IntrospectRequest{Token: text},
		); err != nil ||
			got.GetDecision() != want {
			t.Errorf("after a rotation was canceled: %s, %v; want %s", got.GetDecision(), err, want)
		}
	}
	for _, of := range []string{"sh noticed", "sh unused", "sh resuming"} {
		k.paste(t, block(t, of))
	}
	selfRotates(t, k, d, a)
	k.paste(t, block(t, "sh offboarding"))
	got, err := a.introspect.Introspect(t.Context(), &patdv1.IntrospectRequest{Token: first.GetSecret()})
	if err != nil || got.GetDecision() != patdv1.IntrospectResponse_REVOKED {
		t.Errorf("once the user has left: %s, %v", got.GetDecision(), err)
	}
}

// selfRotates pastes how a token is made that may rotate itself, and how it does.
func selfRotates(t *testing.T, k *desk, d *daemon, a api) {
	t.Helper()
	k.paste(t, block(t, "sh selfrotating"))
	var answer struct{ Secret string }
	k.paste(t, strings.ReplaceAll(block(t, "sh selfrotated"), "http://127.0.0.1:8080", d.HTTP))
	said, err := os.ReadFile(filepath.Join(k.dir, "rotated.json"))
	if err == nil {
		err = json.Unmarshal(said, &answer)
	}
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]patdv1.IntrospectResponse_Decision{
		answer.Secret: patdv1.IntrospectResponse_ALLOW, "pat_x": patdv1.IntrospectResponse_NOT_FOUND,
	} {
		if got, err := a.introspect.Introspect(
			t.Context(),
			&patdv1.IntrospectRequest{Token: text},
		); err != nil ||
			got.GetDecision() != want {
			t.Errorf("after a token rotated itself: %s, %v; want %s", got.GetDecision(), err, want)
		}
	}
}

// TestModulesOfPagesDecide runs the modules of docs/frameworks/python.md and node.md: what they say of a good token, of
// one without the scope, of a revoked one, and when patd is gone.
func TestModulesOfPagesDecide(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	for _, m := range []struct{ kind, program, file, code string }{
		{"python", "python3", "patd.py", "import sys, patd\nfound = patd.may(sys.argv[1], 'a')\nprint('passes ' + found['user'] if found else 'refused')\n"},
		{"js", "node", "patd.mjs", "import { may } from './patd.mjs';\nconst found = await may(process.argv[2], 'a');\nconsole.log(found ? 'passes ' + found.user : 'refused');\n"},
	} {
		t.Run(m.kind, func(t *testing.T) {
			t.Parallel()
			k := newDesk(t, m.program)
			data, admin := administer(t)
			d := serve(t, data)
			a := connect(t, d, admin)
			if _, err := a.users.SetUserFeatures(
				t.Context(),
				&patdv1.SetUserFeaturesRequest{User: "alice", Features: []string{"a", "b"}},
			); err != nil {
				t.Fatal(err)
			}
			secrets := map[string]string{
				"good":    a.mint(t, "alice", "good", "a"),
				"other":   a.mint(t, "alice", "other", "b"),
				"garbage": "pat_x",
			}
			write(t, filepath.Join(k.dir, m.file), block(t, m.kind))
			code := filepath.Join(k.dir, "decide"+filepath.Ext(m.file))
			write(t, code, m.code)
			k.env = append(k.env, "PATD_URL="+d.HTTP, "PATD_TOKEN_FILE="+written(t, "service.token", admin))
			decide := m.program + " " + code + ` "$SECRET"`
			for name, want := range map[string]string{"good": "passes alice", "other": "refused", "garbage": "refused"} {
				k.env = append(k.env, "SECRET="+secrets[name])
				if got := strings.TrimSpace(k.paste(t, decide)); got != want {
					t.Errorf("the %s token: %s, want %s", name, got, want)
				}
			}
			if err := d.Stop(); err != nil {
				t.Fatal(err)
			}
			if out, err := k.bash(t, decide).CombinedOutput(); err == nil {
				t.Errorf("without patd it says %s", out)
			}
		})
	}
}

// TestDevCanBePasted runs the first command of README.md.
func TestDevCanBePasted(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	k := newDesk(t, "go")
	k.env = append(k.env, "TMPDIR="+k.dir, "GOTMPDIR="+os.TempDir())
	d := k.serve(t, "cd '"+repository(t)+"'\n"+block(t, "sh dev"), "go run", "exec go run")
	// As by Ctrl-C, which goes to both: `go run` waits for patd.
	if err := syscall.Kill(-d.Cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Error(err)
	}
	<-d.Exited
	d.Err = nil // `go run` says 1 when it is interrupted, whatever patd said
}

// TestTestsAreRunAsTheReadmeSays holds that CI and make run the same command as README.md.
func TestTestsAreRunAsTheReadmeSays(t *testing.T) {
	t.Parallel()
	command := "\t" + block(t, "sh test")
	text, err := os.ReadFile(filepath.Join(repository(t), "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), command) {
		t.Errorf("the Makefile does not run %q", command)
	}
}

// TestPostgresCanBePasted makes a database, serves from it, and moves another store into it.
func TestPostgresCanBePasted(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	k, s := newDesk(t, "psql"), dbtest.Postgres(t)
	k.env = append(
		k.env,
		"PGHOST="+s.Host,
		"PGPORT="+s.Port,
		"PGUSER="+s.User,
		"PGPASSWORD="+s.Password,
		"PGDATABASE="+s.Database,
	)
	d := k.serve(t, block(t, "sh postgres"), append(becomes, "db.example.com:5432", s.Addr())...)
	d.call(t, http.MethodGet, "/readyz", "", "").want(t, "readiness", 200)
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	k.paste(t, "psql -c 'DROP DATABASE patd' -c 'CREATE DATABASE patd OWNER patd'")
	data := filepath.Join(k.dir, "var")
	moved := patd(t, "service", "create", "moved", "--permission", "users", "--data-dir", data)
	k.paste(t, block(t, "sh move"), "/var/lib/patd", data, "db.example.com", s.Addr())
	d = k.serve(
		t,
		"exec ./patd serve --database-url postgres://patd@"+s.Addr()+"/patd --database-password-file db.password --hash-key-file "+data+"/hash.key",
	)
	d.call(t, http.MethodGet, "/v1/users", moved, "").
		want(t, "the users, with a service token from before the move", 200, `"users":[]`)
}

// TestSignInCanBePasted starts with an issuer that is not there: patd serves, and finds out later.
func TestSignInCanBePasted(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	for _, b := range pagetest.Blocks(t, "sh signin") {
		k := newDesk(t)
		write(t, filepath.Join(k.dir, "client-secret"), "of the client at the provider")
		d := k.serve(t, b.Text, becomes...)
		d.call(t, http.MethodGet, "/healthz", "", "").want(t, "health", 200)
	}
}

// TestHandOffCanBePasted hands a user over as docs/page.md says, and fetches what a company's own page loads.
func TestHandOffCanBePasted(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	k := newDesk(t, "curl")
	d := k.serve(t, "exec ./patd serve --data-dir ./data --page-origins https://app.example.com")
	var answer struct {
		URL string `json:"url"`
	}
	printed := k.paste(t, block(t, "sh handoff"), "https://patd.example.com", d.HTTP)
	printed = printed[strings.Index(printed, "{"):]
	if err := json.Unmarshal([]byte(printed), &answer); err != nil {
		t.Fatalf("%v: %s", err, printed)
	}
	got := k.paste(
		t,
		`curl -sS -c jar -o shown -w '%{http_code} %{redirect_url} ' '`+answer.URL+`' && curl -sS -b jar `+d.HTTP+`/`,
	)
	if !strings.HasPrefix(got, "303 "+d.HTTP+"/ ") || !strings.Contains(got, "<strong>alice</strong>") ||
		!strings.Contains(got, "https://app.example.com/settings") {
		t.Errorf("the hand-off leads to\n%s", got)
	}
	src := regexp.MustCompile(`src="https://patd.example.com([^"]*)" type="module"`).
		FindStringSubmatch(block(t, "html embed"))
	if script := k.paste(
		t,
		"curl -sSi "+d.HTTP+src[1],
	); !strings.Contains(script, "customElements.define('patd-tokens'") ||
		!strings.Contains(script, "Access-Control-Allow-Origin: *") {
		t.Errorf("%s is\n%s", src[1], script)
	}
}

// TestGatewaysCommandsCanBePasted runs what the pages about Envoy and Apache have beside the configurations.
func TestGatewaysCommandsCanBePasted(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	k := newDesk(t)
	k.program(t, "envoy", `test "$*" = "-c envoy.yaml" && printf %s "$PATD_TOKEN" > shown`)
	k.paste(t, block(t, "sh envoy"))
	if shown, err := os.ReadFile(filepath.Join(k.dir, "shown")); err != nil || !secrets.Match(shown) {
		t.Errorf("Envoy is not given a service token: %v", err)
	}
	k.paste(t, "umask 077; ./patd service create gateway --permission introspect --data-dir ./data > gateway.token")
	k.paste(t, block(t, "sh apache"), "/etc/apache2", k.dir)
	if defined, err := os.ReadFile(
		filepath.Join(k.dir, "patd-secret.conf"),
	); err != nil || !secrets.Match(defined) ||
		!strings.HasPrefix(string(defined), "Define PATD_SECRET pats_") {
		t.Errorf("Apache is not given a service token: %v", err)
	}
}

// TestScannerCanBePasted scans a folder with gitleaks.
func TestScannerCanBePasted(t *testing.T) {
	longtest.Slow(t)
	k := newDesk(t, "go")
	k.program(
		t,
		"gitleaks",
		`test "$2" = . && at=$PWD && cd '`+repository(
			t,
		)+`' && exec go tool -modfile=tools.mod gitleaks "$1" "$at" --config "$at/$4"`,
	)
	k.paste(t, block(t, "sh scanner"))
	write(t, filepath.Join(k.dir, "found.txt"), freshSecret(t, "pat"))
	cmd := k.bash(t, block(t, "sh scanner"))
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "leaks found: 1") {
		t.Errorf("with a secret in the folder: %v\n%s", err, secrets.ReplaceAll(out, []byte("[secret]")))
	}
}

// TestScopesCanBePasted adds the scopes of the page's document to a catalogue, and reads its table of routes.
func TestScopesCanBePasted(t *testing.T) {
	t.Parallel()
	k := newDesk(t)
	data, admin := administer(t)
	d := serve(t, data)
	k.env = append(k.env, "PATD_ADDR="+d.GRPC, "PATD_TOKEN_FILE="+written(t, "admin.token", admin))
	write(t, filepath.Join(k.dir, "openapi.yaml"), block(t, "yaml openapi.yaml"))
	k.paste(t, block(t, "sh scopes"))
	e, err := patdv1.NewCatalogServiceClient(connect(t, d, admin).conn).
		GetFeature(t.Context(), &patdv1.GetFeatureRequest{Name: "reports.read"})
	if err != nil || e.GetFeature().GetDescription() != "Read reports" {
		t.Errorf("the catalogue has %v, %v", e, err)
	}
	table, err := routes.ReadFile(filepath.Join(k.dir, "routes.json"))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{"/v1/reports": true, "/v1/reports/1": true, "/v1/reports/latest": false, "/reports": false} {
		if _, ok := table.Find("GET", path); ok != want {
			t.Errorf("%s is open: %v, want %v", path, ok, want)
		}
	}
	if config, err := os.ReadFile(
		filepath.Join(k.dir, "api.conf"),
	); err != nil ||
		!strings.Contains(string(config), "reports.delete+reports.write") {
		t.Errorf("the gateway's configuration is %s, %v", config, err)
	}
}
