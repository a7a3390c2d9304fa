package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"patd/cmd/patd/internal/cli"
)

// TestServeRefusesSettingsThatDoNotFit has settings of serve that are wrong, or wrong together: each is a usage error
// that says what to give, and nothing is made.
func TestServeRefusesSettingsThatDoNotFit(t *testing.T) {
	t.Parallel()
	ended, end := context.WithCancel(t.Context()) // what is not refused ends by itself
	end()
	dir := t.TempDir()
	data, file := filepath.Join(dir, "data"), filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("a secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const issuer = "--oidc-issuer https://idp.example.com --oidc-audience https://patd.example.com "
	const events = "--security-event-issuer https://idp.example.com --security-event-audience patd "
	for _, c := range []struct{ flags, want string }{
		// Identity providers that tell of users.
		{"--scim-user-id mail", "--scim-user-id must be externalId, userName or id"},
		{"--security-event-audience patd", "--security-event-audience needs --security-event-issuer URL"},
		{"--security-event-user email", "--security-event-user needs --security-event-issuer URL"},
		{"--security-event-issuer https://idp.example.com", "--security-event-issuer needs --security-event-audience"},
		{events + "--security-event-keys-url https://a.example.com,https://b.example.com", "there are 1 issuers and 2 addresses"},
		{events + "--security-event-user name", "--security-event-user must be subject or email"},
		{events + "--security-event-actions account-disabled", `"account-disabled" must be TYPE=ACTION; the types are account-disabled,`},
		{events + "--security-event-actions gone=suspend", `"gone=suspend" must be TYPE=ACTION`},
		{events + "--security-event-actions account-purged=suspend,account-purged=delete", "names account-purged twice; write its actions with + between them"},
		{events + "--security-event-actions account-purged=vanish", "--security-event-actions account-purged: "},

		// The pages.
		{"--oidc-client-id patd", "--oidc-client-id needs --oidc-issuer URL"},
		{issuer + "--oidc-client-id patd", "--oidc-client-id needs --oidc-client-secret-file FILE"},
		{issuer + "--oidc-client-secret-file FILE", "--oidc-client-secret-file needs --oidc-client-id ID"},
		{issuer + "--oidc-scopes email", "--oidc-scopes needs --oidc-client-id ID"},
		{issuer + "--oidc-client-id patd --oidc-client-secret-file FILE.gone", "read --oidc-client-secret-file: "},
		{"--page-origins https://app.example.com/", "--page-origins must be origins such as https://app.example.com"},
		{"--page-origins https://App.example.com", "a scheme and a host in lower case"},
		{"--page-origins https://*.example.com", "--page-origins must be origins"},
		{"--page-origins http://app.example.com", "http://app.example.com must be https; http is for loopback only"},
		{"--page-accent #eee", "--page-accent must be a colour such as #0a5bd3"},
		{"--page-accent #ffff00", "--page-accent "},

		// Signing in on the command line.
		{"--oidc-cli-port 8000", "need --oidc-cli-client-id ID"},
		{"--oidc-cli-client-id cli", "--oidc-cli-client-id needs --oidc-issuer URL"},
		{"--oidc-issuer https://idp.example.com --oidc-client-id patd --oidc-client-secret-file FILE --oidc-cli-client-id cli", "--oidc-cli-client-id needs --oidc-audience"},
		{issuer + "--oidc-cli-client-id cli --oidc-cli-port 70000", "--oidc-cli-port must be a port, or 0 for any"},
		{issuer + "--oidc-cli-client-id cli --oidc-cli-parameters client_secret=x", "--oidc-cli-parameters must be NAME=VALUE, each name once, of "},
		{issuer + "--oidc-cli-client-id cli --oidc-cli-parameters prompt=login,prompt=none", "each name once"},
		{"--oidc-leeway 1m", "--oidc-leeway needs --oidc-issuer URL: without an issuer nobody signs in"},

		// Where features come from.
		{"--features-source claim " + issuer, "--features-source claim needs --oidc-features-claim NAME"},
		{"--features-source callback", "--features-source callback needs --features-callback-url URL"},
		{"--features-source callback --features-callback-url https://a.example.com", "needs the key that questions are signed with: --features-callback-key-file FILE or PATD_FEATURES_CALLBACK_KEY"},
		{"--features-source callback --features-callback-url https://a.example.com --features-callback-key-file FILE --features-timeout 0s", "--features-timeout must be longer than 0s"},
		{"--features-source callback --features-callback-url https://a.example.com --features-callback-key-file FILE --features-ttl 1h --features-max-stale 1m", "--features-max-stale 1m0s is less than --features-ttl 1h0m0s"},

		// Values.
		{"--accept cookie", "must be basic or x-api-key, or both, comma-separated"},
		{"--renew-url //evil.example.com:x", "must be an address such as https://example.com/settings/tokens"},
		{"--max-connections -1", "must be a number from 0"},
		{"--disk-reserve lots", "must be a size such as 256MiB or 1GiB"},
		{"--mint-rate NaN", "must be a number of times per second such as 10 or 0.5, or off"},
		{"--audit-retention 1h", "--audit-retention must be 1d or longer, or 0s: keep events for ever"},
		{"--expiry-notices soon", "must be durations such as 30d,7d,1d, or off"},
	} {
		args := append(
			[]string{"serve", "--data-dir", data},
			strings.Fields(strings.ReplaceAll(c.flags, "FILE", file))...)
		out, errs, code := runIn(ended, time.Now(), args...)
		if code != cli.ExitUsage || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit %d, %s%s; want %d and %q", c.flags, code, out, errs, cli.ExitUsage, c.want)
		}
		if strings.Contains(errs, "a secret") {
			t.Errorf("%s: the secret is in %s", c.flags, errs)
		}
	}
	if _, err := os.Stat(data); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a server that did not start has made %s: %v", data, err)
	}
}

// TestCommandsRefuseFlagsThatDoNotFit is the same for other commands. None of them gets as far as a server or a store.
func TestCommandsRefuseFlagsThatDoNotFit(t *testing.T) {
	t.Parallel()
	ended, end := context.WithCancel(t.Context()) // what is not refused ends by itself
	end()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("a secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ command, want string }{
		{"agent", "say which token: --token-file FILE, with a token that may rotate itself"},
		{"agent --token-file FILE --grace 10s", "--grace must be from 1m to 30d"},
		{"agent --token-file FILE --before 0s", "--before and --poll must be longer than 0s"},
		{"agent --token-file FILE --every 5s", "--every must be 1m or longer, or 0s"},
		{"agent --token-file FILE --ca-file FILE.gone", "read --ca-file: "},
		{"agent --token-file FILE --ca-file FILE", "holds no certificate in PEM"},
		{"agent --token-file FILE --server http://patd.example.com", "--server: "},
		{"top --every 1ms", "--every must be 100ms or longer"},
		{"top patd.example.com", "a server is named by its URL, such as http://127.0.0.1:8080"},
		{"credential list --kind cookie --data-dir DIR", "--kind must be token, service or session"},
		{"credential list --issued-before yesterday --data-dir DIR", "--issued-before must be a time such as 2026-01-31T12:00:00Z"},
		{"credential end --reason= --data-dir DIR", "--reason must have 1 to 1000 bytes"},
		{"credential end --confirm some --data-dir DIR", "must be a number"},
		{"token list --user u", "PATD_TOKEN"},
		{"keys retire --data-dir DIR", "takes one argument: KEY"},
		{"keys", "say which command: prepare, rotate, status, retire"},
		{"keys turn --data-dir DIR", `there is no command "turn"; the commands are prepare, retire, rotate, status`},
		{"migrate", "say where the store is: --data-dir DIR, or --database-url postgres://…"},
		{"check --database-url postgres://u@127.0.0.1/d", "say where the hash key is: --data-dir DIR, --hash-key-file FILE or PATD_HASH_KEY"},
		{"check --data-dir DIR --database-password-file FILE", "--database-password-file is a setting of --database-url postgres://…"},
		{"check --database-url postgres://u@127.0.0.1/d#e", "characters such as @ / : # % in a password are written percent-encoded"},
	} {
		at := strings.NewReplacer("FILE", file, "DIR", filepath.Join(dir, "data"))
		out, errs, code := runIn(ended, time.Now(), strings.Fields(at.Replace(c.command))...)
		if code != cli.ExitUsage || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("patd %s: exit %d, %s%s; want %d and %q", c.command, code, out, errs, cli.ExitUsage, c.want)
		}
		if strings.Contains(errs, "a secret") {
			t.Errorf("patd %s: the secret is in %s", c.command, errs)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("the commands have made %v, %v", left, err)
	}
}
