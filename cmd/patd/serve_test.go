package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"patd/cmd/patd/internal/cli"
	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/internal/proctest"
)

// TestServeLeavesNothingRunning serves inside this process, so that what it leaves behind can be seen.
func TestServeLeavesNothingRunning(t *testing.T) {
	longtest.Slow(t)
	for name, flags := range map[string][]string{
		"alone":         nil,
		"signing in":    {"--oidc-issuer", "http://127.0.0.1:1", "--oidc-audience", "patd", "--features-source", "claim", "--oidc-features-claim", "f"},
		"callback":      {"--features-source", "callback", "--features-callback-url", "http://127.0.0.1:1", "--features-callback-key-file", written(t, "key", strings.Repeat("k", 32))},
		"late database": {"--features-source", "sql", "--features-database-url", "postgres://u@127.0.0.1:1/c", "--features-query", "SELECT f FROM t WHERE u = $1"},
	} {
		t.Run(name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			log, code := proctest.NewOutput(), make(chan int, 1)
			go func() {
				code <- Main(ctx, append([]string{
					"serve", "--data-dir", filepath.Join(t.TempDir(), "data"), "--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0",
					"--drain-delay", "0s",
				}, flags...), cli.System{Stdin: strings.NewReader(""), Stdout: log, Stderr: log, Getenv: func(string) (string, bool) { return "", false }})
			}()
			if _, err := log.Await(patience, proctest.Ready()); err != nil {
				t.Fatal(err)
			}
			cancel()
			if got := <-code; got != cli.ExitOK {
				t.Errorf("serve ends with %d; it said\n%s", got, log)
			}
		})
	}
}

// TestFailedStartLeavesNothing fails after the store was opened.
func TestFailedStartLeavesNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	log := proctest.NewOutput()
	code := Main(t.Context(), []string{
		"serve",
		"--data-dir",
		filepath.Join(t.TempDir(), "data"),
		"--http-addr",
		"192.0.2.1:0",
		"--grpc-addr",
		"127.0.0.1:0",
		"--insecure",
		"--oidc-issuer",
		"http://127.0.0.1:1",
		"--oidc-audience",
		"patd",
		"--features-source",
		"sql",
		"--features-database-url",
		"postgres://u@127.0.0.1:1/c",
		"--features-query",
		"SELECT f FROM t WHERE u = $1",
	}, cli.System{Stdin: strings.NewReader(""), Stdout: log, Stderr: log, Getenv: func(string) (string, bool) { return "", false }})
	if code != cli.ExitFault ||
		!regexp.MustCompile(`(?m)"level":"ERROR","msg":"patd serve: .*192\.0\.2\.1`).MatchString(log.String()) {
		t.Errorf("serve on an address that is not here: exit %d, %s", code, log)
	}
}

// TestListFollowsPages lists more tokens than one answer holds.
func TestListFollowsPages(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	const many = 205
	dir := t.TempDir()
	data, tokenFile := filepath.Join(dir, "data"), filepath.Join(dir, "token")
	admin := patd(t, "service", "create", "pages", "--permission", "admin", "--data-dir", data)
	if err := os.WriteFile(tokenFile, []byte(admin), 0o600); err != nil {
		t.Fatal(err)
	}
	d := serve(t, data, "--max-tokens-per-user", fmt.Sprint(many))
	a := connect(t, d, admin)
	if _, err := a.users.SetUserFeatures(
		t.Context(),
		&patdv1.SetUserFeaturesRequest{User: "u", Features: []string{"a"}},
	); err != nil {
		t.Fatal(err)
	}
	for n := range many {
		if _, err := a.tokens.CreateToken(
			t.Context(),
			&patdv1.CreateTokenRequest{User: "u", Name: fmt.Sprint(n), Scopes: []string{"a"}},
		); err != nil {
			t.Fatal(err)
		}
	}
	var answer struct {
		Tokens []struct{ Name string }
	}
	if err := json.Unmarshal(
		[]byte(patd(t, "token", "list", "--user", "u", "--json", "--addr", d.GRPC, "--token-file", tokenFile)),
		&answer,
	); err != nil {
		t.Fatal(err)
	}
	if len(answer.Tokens) != many || answer.Tokens[0].Name != fmt.Sprint(many-1) {
		t.Errorf("listed %d tokens of %d, the first of them %q", len(answer.Tokens), many, answer.Tokens[0].Name)
	}
}
