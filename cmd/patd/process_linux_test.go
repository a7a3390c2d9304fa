package main

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
)

// limitFiles sets how long files may become that a running daemon writes: what a full disk looks like to it.
func (d *daemon) limitFiles(t *testing.T, limit uint64) {
	t.Helper()
	rlimit := unix.Rlimit{Cur: limit, Max: unix.RLIM_INFINITY}
	if err := unix.Prlimit(d.Cmd.Process.Pid, unix.RLIMIT_FSIZE, &rlimit, nil); err != nil {
		t.Fatal(err)
	}
}

// TestDiskFullRefusesChangesAndGoesOnIntrospecting takes a running server all room to write, and gives it back.
func TestDiskFullRefusesChangesAndGoesOnIntrospecting(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	admin := patd(t, "service", "create", "disk", "--permission", "admin", "--data-dir", data)
	d := serve(t, data)
	a := connect(t, d, admin)
	if _, err := a.users.SetUserFeatures(
		t.Context(),
		&patdv1.SetUserFeaturesRequest{User: "u", Features: []string{"a"}},
	); err != nil {
		t.Fatal(err)
	}
	kept, err := a.tokens.CreateToken(
		t.Context(),
		&patdv1.CreateTokenRequest{User: "u", Name: "kept", Scopes: []string{"a"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	introspects := func(secret string, want patdv1.IntrospectResponse_Decision) {
		t.Helper()
		got, err := a.introspect.Introspect(t.Context(), &patdv1.IntrospectRequest{Token: secret})
		if err != nil || got.GetDecision() != want {
			t.Errorf("introspection answers %s, %v; want %s", got.GetDecision(), err, want)
		}
	}

	d.limitFiles(t, 1)
	_, mint := a.tokens.CreateToken(
		t.Context(),
		&patdv1.CreateTokenRequest{User: "u", Name: "lost", Scopes: []string{"a"}},
	)
	_, rotate := a.tokens.RotateToken(
		t.Context(),
		&patdv1.RotateTokenRequest{User: "u", TokenId: kept.GetToken().GetTokenId()},
	)
	_, revoke := a.tokens.RevokeToken(
		t.Context(),
		&patdv1.RevokeTokenRequest{User: "u", TokenId: kept.GetToken().GetTokenId()},
	)
	_, features := a.users.SetUserFeatures(t.Context(), &patdv1.SetUserFeaturesRequest{User: "u"})
	for what, err := range map[string]error{"mint": mint, "rotate": rotate, "revoke": revoke, "features": features} {
		if got := reason(err); status.Code(err) != codes.Unavailable || got != "DISK_FULL" {
			t.Errorf("%s with a full disk: %v, reason %s; want UNAVAILABLE, DISK_FULL", what, err, got)
		}
	}
	if code, body := d.post(
		t,
		"/v1/users/u/tokens",
		admin,
		`{"name": "lost", "scopes": ["a"]}`,
	); code != http.StatusServiceUnavailable ||
		!strings.Contains(body, "DISK_FULL") {
		t.Errorf("mint by REST with a full disk: %d %s, want 503 and DISK_FULL", code, body)
	}
	introspects(kept.GetSecret(), patdv1.IntrospectResponse_ALLOW)
	listed, err := a.tokens.ListTokens(t.Context(), &patdv1.ListTokensRequest{User: "u"})
	if err != nil || len(listed.GetTokens()) != 1 {
		t.Errorf("with a full disk the user has %d tokens, %v; want the one from before", len(listed.GetTokens()), err)
	}

	d.limitFiles(t, unix.RLIM_INFINITY)
	again, err := a.tokens.CreateToken(
		t.Context(),
		&patdv1.CreateTokenRequest{User: "u", Name: "lost", Scopes: []string{"a"}},
	)
	if err != nil {
		t.Fatalf("mint once there is room again: %v", err)
	}
	introspects(again.GetSecret(), patdv1.IntrospectResponse_ALLOW)
	if _, err := a.tokens.RevokeToken(
		t.Context(),
		&patdv1.RevokeTokenRequest{User: "u", TokenId: kept.GetToken().GetTokenId()},
	); err != nil {
		t.Fatalf("revoke once there is room again: %v", err)
	}
	introspects(kept.GetSecret(), patdv1.IntrospectResponse_REVOKED)
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
	if got := patd(t, "check", "--data-dir", data); !strings.HasPrefix(got, "ok: ") {
		t.Errorf("check: %s", got)
	}
}

// TestStartsOnAFullDisk kills a server that has no room left, and starts it and other commands where they have none.
func TestStartsOnAFullDisk(t *testing.T) {
	longtest.Slow(t)
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	admin := patd(t, "service", "create", "disk", "--permission", "admin", "--data-dir", data)
	d := serve(t, data)
	a := connect(t, d, admin)
	if _, err := a.users.SetUserFeatures(
		t.Context(),
		&patdv1.SetUserFeaturesRequest{User: "u", Features: []string{"a"}},
	); err != nil {
		t.Fatal(err)
	}
	kept, err := a.tokens.CreateToken(
		t.Context(),
		&patdv1.CreateTokenRequest{User: "u", Name: "kept", Scopes: []string{"a"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	d.limitFiles(t, 1)
	d.Kill()

	// The limit is set before patd starts, in blocks of 512 bytes: there is room for what SQLite cuts off and makes
	// anew at a start, its index of the log, and for no more of the log itself.
	full := filepath.Join(dir, "full")
	if err := os.WriteFile(full, []byte("#!/bin/sh\nulimit -f 64 && exec patd \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(full, "check", "--data-dir", data).
		CombinedOutput(); err != nil ||
		!strings.HasPrefix(string(out), "ok: ") {
		t.Errorf("check on a full disk: %v, %s", err, out)
	}
	if out, err := exec.Command(full, "service", "create", "late", "--permission", "audit", "--data-dir", data).
		CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "DISK_FULL") {
		t.Errorf("a change on a full disk: %v, %s; want DISK_FULL", err, out)
	}
	d, err = startAs(
		full,
		dir,
		os.Environ(),
		"serve",
		"--data-dir",
		data,
		"--http-addr",
		"127.0.0.1:0",
		"--grpc-addr",
		"127.0.0.1:0",
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.End)
	a = connect(t, d, admin)
	got, err := a.introspect.Introspect(t.Context(), &patdv1.IntrospectRequest{Token: kept.GetSecret()})
	if err != nil || got.GetDecision() != patdv1.IntrospectResponse_ALLOW {
		t.Errorf("introspection after a start on a full disk: %s, %v; want ALLOW", got.GetDecision(), err)
	}
	_, err = a.tokens.RevokeToken(
		t.Context(),
		&patdv1.RevokeTokenRequest{User: "u", TokenId: kept.GetToken().GetTokenId()},
	)
	if got := reason(err); status.Code(err) != codes.Unavailable || got != "DISK_FULL" {
		t.Errorf("revoke after a start on a full disk: %v; want UNAVAILABLE, DISK_FULL", err)
	}
}

// reason is the stable reason in an error.
func reason(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

func (d *daemon) post(t *testing.T, path, secret, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.HTTP+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// TestNoSecretInArgumentsEnvironmentOrLog looks at running processes as ps does, and at all that the server wrote.
func TestNoSecretInArgumentsEnvironmentOrLog(t *testing.T) {
	dir := t.TempDir()
	data, tokenFile := filepath.Join(dir, "data"), filepath.Join(dir, "token")
	admin := patd(t, "service", "create", "ps", "--permission", "admin", "--data-dir", data)
	if err := os.WriteFile(tokenFile, []byte(admin+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := serve(t, data, "--log-level", "debug")
	patd(t, "user", "features", "u", "--set", "a", "--addr", d.GRPC, "--token-file", tokenFile)
	secret := patd(
		t,
		"token",
		"create",
		"--user",
		"u",
		"--name",
		"n",
		"--scope",
		"a",
		"--addr",
		d.GRPC,
		"--token-file",
		tokenFile,
	)

	// An introspection that waits for its token is a client to look at.
	waiting := exec.Command(d.Cmd.Path, "introspect", "--addr", d.GRPC, "--token-file", tokenFile)
	waiting.Args[0] = "patd"
	stdin, err := waiting.StdinPipe()
	if err == nil {
		err = waiting.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{d.Cmd.Process.Pid, waiting.Process.Pid} {
		for _, file := range []string{"cmdline", "environ"} {
			text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), file))
			if err != nil {
				t.Fatal(err)
			}
			if secrets.Match(text) {
				t.Errorf("a secret stands in the %s of a process", file)
			}
		}
	}
	if _, err := io.WriteString(stdin, secret+"\n"); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	if err := waiting.Wait(); err != nil {
		t.Errorf("introspect: %v", err)
	}
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
	key, err := os.ReadFile(filepath.Join(data, "hash.key"))
	if err != nil {
		t.Fatal(err)
	}
	log := d.Log.String() + d.Stdout.String()
	if !strings.Contains(log, "CreateToken") {
		t.Error("the log does not tell of the calls: the test proves nothing")
	}
	if found := secrets.FindString(log); found != "" {
		t.Errorf("%d characters of a secret in the log", len(found))
	}
	for _, s := range []string{secret, admin, string(bytes.TrimSpace(key[3:]))} {
		if strings.Contains(log, s) {
			t.Error("a secret stands in the log")
		}
	}
	database, err := os.ReadFile(filepath.Join(data, "patd.db"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(database, []byte(secret[16:])) || bytes.Contains(database, key[3:67]) {
		t.Error("a secret or the key stands in the store's file")
	}
}
