package main

import (
	"database/sql"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/store"
	"patd/tokens/secret"
)

// hand opens the database as somebody does who goes around patd, and runs statements.
func hand(t *testing.T, driver, dsn string, statements ...string) {
	t.Helper()
	database, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer database.Close()
	for _, statement := range statements {
		if _, err := database.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// TestAnEditedRowIsRefusedByAServer edits rows under a running server, in a file and in PostgreSQL, to which the store
// was copied: no endpoint takes what they belong to for good, and they can be revoked.
func TestAnEditedRowIsRefusedByAServer(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	m := settled(t)
	patd(t, "copy", "--from", m.file, "--to", m.url("edited"), "--to-password-file", m.password, "--hash-key-file",
		filepath.Join(m.data, "hash.key"))
	for _, place := range []struct {
		name, driver, dsn string
		args              []string
	}{
		{"SQLite", "sqlite", strings.TrimPrefix(m.file, "sqlite:"), nil},
		{"PostgreSQL", "pgx", m.server.PostgresURL(m.server.Password) + "&search_path=edited",
			[]string{"--database-url", m.url("edited"), "--database-password-file", m.password}},
	} {
		t.Run(place.name, func(t *testing.T) {
			edit := func(statements ...string) { hand(t, place.driver, place.dsn, statements...) }
			m.edited(t, serve(t, m.data, append([]string{"--log-format", "text"}, place.args...)...), edit, place.args)
		})
	}
}

func (m *moving) edited(t *testing.T, d *daemon, edit func(...string), place []string) {
	t.Helper()
	a := connect(t, d, m.admin)
	minted, err := a.tokens.CreateToken(
		t.Context(),
		&patdv1.CreateTokenRequest{User: "ü/1", Name: "edited", Scopes: []string{"a"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	token, id := minted.GetSecret(), minted.GetToken().GetTokenId()
	store := append([]string{"--data-dir", m.data}, place...)
	gateway := patd(t, append([]string{"service", "create", "gateway", "--permission", "introspect"}, store...)...)
	edit(
		`UPDATE tokens SET expire_us = expire_us + 1 WHERE name = 'edited'`,
		`UPDATE services SET permissions = 'admin' WHERE name = 'gateway'`,
	)

	refused := func(what string, err error) {
		t.Helper()
		if reason(err) != "RECORD_INVALID" {
			t.Errorf("%s: %v; want RECORD_INVALID", what, err)
		}
	}
	_, err = a.introspect.Introspect(t.Context(), &patdv1.IntrospectRequest{Token: token})
	refused("Introspect", err)
	_, err = a.introspect.BatchIntrospect(
		t.Context(),
		&patdv1.BatchIntrospectRequest{Requests: []*patdv1.IntrospectRequest{{Token: token}}},
	)
	refused("BatchIntrospect", err)
	_, err = connect(t, d, gateway).introspect.Introspect(t.Context(), &patdv1.IntrospectRequest{Token: m.kept})
	refused("a service whose permissions were edited", err)
	_, err = a.tokens.RotateToken(t.Context(), &patdv1.RotateTokenRequest{User: "ü/1", TokenId: id})
	refused("RotateToken", err)
	for what, call := range map[string]func() (int, string){
		"introspection over REST": func() (int, string) { return d.post(t, "/v1/introspect", m.admin, `{"token":"`+token+`"}`) },
		"exchange": func() (int, string) {
			return form(t, d.HTTP+"/oauth2/token", "", "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token_type="+
				"urn:ietf:params:oauth:token-type:access_token&subject_token="+token)
		},
		"RFC 7662":                      func() (int, string) { return form(t, d.HTTP+"/oauth2/introspect", m.admin, "token="+token) },
		"the bearer of the token":       func() (int, string) { return get(t, d.HTTP+"/v1/self", token) },
		"the service, over REST":        func() (int, string) { return get(t, d.HTTP+"/v1/users", gateway) },
		"the service, where it may not": func() (int, string) { return d.post(t, "/v1/users/u:suspend", gateway, `{}`) },
	} {
		if code, body := call(); code != http.StatusServiceUnavailable || strings.Contains(body, `"active"`) {
			t.Errorf("%s: %d %s; want 503", what, code, body)
		}
	}
	if _, metrics := get(
		t,
		d.HTTP+"/metrics",
		"",
	); !regexp.MustCompile(`(?m)^patd_rows_refused_total [1-9]`).
		MatchString(metrics) ||
		!strings.Contains(metrics, "patd_rows_sealed 1") {
		t.Error("the metrics do not tell of refused rows")
	}
	if n := strings.Count(d.Log.String(), "table=tokens id="+id); n != 1 {
		t.Errorf("the refused token is logged %d times, want once", n)
	}
	said, err := run(append([]string{"check"}, store...)...)
	if err == nil || !strings.Contains(err.Error(), "token "+id+" is refused") ||
		!strings.Contains(err.Error(), "service token ") {
		t.Errorf("check: %s, %v", said, err)
	}
	if _, err := a.tokens.RevokeToken(t.Context(), &patdv1.RevokeTokenRequest{User: "ü/1", TokenId: id}); err != nil {
		t.Errorf("revoke: %v", err)
	}
	got, err := a.introspect.Introspect(t.Context(), &patdv1.IntrospectRequest{Token: token})
	if err != nil || got.GetDecision() != patdv1.IntrospectResponse_REVOKED {
		t.Errorf("once it is revoked: %s, %v", got.GetDecision(), err)
	}
	patd(t, append([]string{"service", "revoke", "gateway"}, store...)...)
	patd(t, append([]string{"check"}, store...)...)
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
}

func get(t *testing.T, url, secret string) (int, string) {
	t.Helper()
	return send(t, http.MethodGet, url, secret, "")
}

func form(t *testing.T, url, secret, body string) (int, string) {
	t.Helper()
	return send(t, http.MethodPost, url, secret, body)
}

func send(t *testing.T, method, url, secret, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
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

// TestAStoreFromBeforeChecksumsIsSealedByMigrate: it works until then, and the command, the key file, a backup from
// before and one from after go together.
func TestAStoreFromBeforeChecksumsIsSealedByMigrate(t *testing.T) {
	t.Parallel()
	data, admin := administer(t)
	key, file := filepath.Join(data, "hash.key"), filepath.Join(data, "patd.db")
	older := []string{`DELETE FROM sealed`, `UPDATE compatibility SET oldest = 4`}
	for _, table := range []string{"users", "tokens", "old_secrets", "services", "families", "refresh_tokens", "access_tokens",
		"webhooks", "provisioned_users"} {
		older = append(older, `UPDATE `+table+` SET row_mac = NULL`)
	}
	hand(t, "sqlite", file, older...)
	withLine, err := os.ReadFile(key)
	if err != nil || !strings.Contains(string(withLine), "\n"+secret.SealedLine()+"\n") {
		t.Fatalf("the key file of a new store does not say that its rows are sealed: %v", err)
	}
	unsealed := strings.ReplaceAll(string(withLine), secret.SealedLine()+"\n", "")
	if err := os.WriteFile(key, []byte(unsealed), 0o600); err != nil {
		t.Fatal(err)
	}

	d := serve(t, data)
	a := connect(t, d, admin)
	if _, err := a.users.SetUserFeatures(
		t.Context(),
		&patdv1.SetUserFeaturesRequest{User: "u", Features: []string{"a"}},
	); err != nil {
		t.Fatal(err)
	}
	token := a.mint(t, "u", "n", "a")
	if !strings.Contains(d.Log.String(), store.SealRows) {
		t.Error("the server does not warn that rows are not sealed")
	}
	if said := patd(t, "check", "--data-dir", data, "--json"); !strings.Contains(said, store.SealRows) {
		t.Errorf("check does not warn: %s", said)
	}
	before, after := filepath.Join(t.TempDir(), "before.db"), filepath.Join(t.TempDir(), "after.db")
	patd(t, "backup", before, "--data-dir", data)
	if said := patd(
		t,
		"migrate",
		"--seal-rows",
		"--data-dir",
		data,
	); !strings.Contains(
		said,
		"the rows are sealed: 1 row got a checksum",
	) {
		t.Errorf("migrate says %s", said)
	}
	if now, err := os.ReadFile(key); err != nil || string(now) != string(withLine) {
		t.Errorf("the key file is\n%s, %v", now, err)
	}
	got, err := a.introspect.Introspect(t.Context(), &patdv1.IntrospectRequest{Token: token})
	if err != nil || got.GetDecision() != patdv1.IntrospectResponse_ALLOW {
		t.Errorf("once it is sealed: %s, %v", got.GetDecision(), err)
	}
	patd(t, "backup", after, "--data-dir", data)
	if said := patd(t, "check", "--data-dir", data, "--json"); strings.Contains(said, store.SealRows) {
		t.Errorf("check still warns: %s", said)
	}
	if err := d.Stop(); err != nil {
		t.Error(err)
	}

	// A key file without the line gets it from the store.
	if err := os.WriteFile(key, []byte(unsealed), 0o600); err != nil {
		t.Fatal(err)
	}
	patd(t, "check", "--data-dir", data)
	if now, err := os.ReadFile(key); err != nil || string(now) != string(withLine) {
		t.Errorf("the key file stays\n%s, %v", now, err)
	}

	if _, err := run(
		"restore",
		before,
		"--data-dir",
		data,
	); err == nil ||
		!strings.Contains(err.Error(), "before the rows were sealed") {
		t.Errorf("a backup from before: %v", err)
	}
	patd(t, "restore", after, "--data-dir", data)
	said := patd(t, "migrate", "--seal-rows", "--database-url", "sqlite:"+before, "--hash-key-file", key)
	if !strings.Contains(said, "1 row got a checksum") {
		t.Errorf("sealing a backup says %s", said)
	}
	patd(t, "restore", before, "--data-dir", data)
	if found := patd(t, "check", "--data-dir", data); !strings.HasPrefix(found, "ok: ") {
		t.Errorf("check of what was restored: %s", found)
	}
	// Without its row in the database a server is not fooled.
	hand(t, "sqlite", file, `DELETE FROM sealed`, `UPDATE tokens SET row_mac = NULL`)
	d = serve(t, data)
	_, err = connect(t, d, admin).introspect.Introspect(t.Context(), &patdv1.IntrospectRequest{Token: token})
	if reason(err) != "RECORD_INVALID" || !strings.Contains(d.Log.String(), store.SealRows) {
		t.Errorf("once the database's word was taken away: %v", err)
	}
}
