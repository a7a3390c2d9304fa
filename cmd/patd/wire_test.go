package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	patdv1 "patd/gen/patd/v1"
)

// answer is what REST answers.
type answer struct {
	code   int
	header http.Header
	body   string
}

// call makes a REST call as the bearer of a credential.
func (d *daemon) call(t *testing.T, method, path, credential, body string) answer {
	t.Helper()
	return d.request(t, method, path, body, "Authorization", "Bearer "+credential)
}

// want checks an answer's status, and that its body holds some texts.
func (a answer) want(t *testing.T, what string, code int, texts ...string) answer {
	t.Helper()
	if a.code != code {
		t.Fatalf("%s: %d, want %d: %s", what, a.code, code, secrets.ReplaceAllString(a.body, "[secret]"))
	}
	for _, text := range texts {
		if !strings.Contains(a.body, text) {
			t.Errorf("%s: there is no %q in %s", what, text, secrets.ReplaceAllString(a.body, "[secret]"))
		}
	}
	return a
}

// field reads a text out of an answer in JSON, by its path.
func (a answer) field(t *testing.T, path ...string) string {
	t.Helper()
	var at any
	if err := json.Unmarshal([]byte(a.body), &at); err != nil {
		t.Fatal(err)
	}
	for _, name := range path {
		object, _ := at.(map[string]any)
		at = object[name]
	}
	text, _ := at.(string)
	return text
}

// administer makes a store with a service that may do everything, and returns the folder of the store and the service's
// token.
func administer(t *testing.T) (data, admin string) {
	t.Helper()
	data = filepath.Join(t.TempDir(), "data")
	return data, patd(t, "service", "create", "admin", "--permission", "admin", "--data-dir", data)
}

// written writes a file for one test and returns its path.
func written(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// mint makes a token by gRPC.
func (a api) mint(t *testing.T, user, name string, scopes ...string) string {
	t.Helper()
	m, err := a.tokens.CreateToken(t.Context(), &patdv1.CreateTokenRequest{User: user, Name: name, Scopes: scopes})
	if err != nil {
		t.Fatalf("mint %s of %s: %v", name, user, err)
	}
	return m.GetSecret()
}

// may returns which scopes a token has in effect, and whether that is what was last known during an outage. It fails
// when the token is not active, which no test of a source of features makes it.
func (a api) may(t *testing.T, secret string) (scopes []string, stale bool, err error) {
	t.Helper()
	got, err := a.introspect.Introspect(t.Context(), &patdv1.IntrospectRequest{Token: secret})
	switch {
	case err != nil && (status.Code(err) != codes.Unavailable || reason(err) != "FEATURES_UNAVAILABLE"):
		t.Fatalf("introspection fails with %v, which is no outage of the source", err)
	case err == nil && got.GetDecision() != patdv1.IntrospectResponse_ALLOW:
		t.Fatalf("introspection decides %s", got.GetDecision())
	}
	return got.GetScopes(), got.GetStale(), err
}

// wantScopes checks what tokens may do at this moment.
func (a api) wantScopes(t *testing.T, what string, secrets []string, want ...string) {
	t.Helper()
	for i, secret := range secrets {
		if got, _, err := a.may(t, secret); err != nil || !slices.Equal(got, want) {
			t.Fatalf("%s: token %d may %v, %v; want %v", what, i, got, err, want)
		}
	}
}

// TestPolicyChangesOverTheWire makes an audience by the command line and changes its policy by REST.
func TestPolicyChangesOverTheWire(t *testing.T) {
	data, admin := administer(t)
	d := serve(t, data)
	patd(
		t,
		"audience",
		"create",
		"https://api.example",
		"--max-ttl",
		"90d",
		"--addr",
		d.GRPC,
		"--token-file",
		written(t, "token", admin),
	)
	const at = "/v1/audiences/https:%2F%2Fapi.example"
	d.call(t, http.MethodPut, "/v1/users/u/features", admin, `{"features": ["a"]}`).want(t, "features", 200)
	mint := func(name, ttl string) answer {
		return d.call(t, http.MethodPost, "/v1/users/u/tokens", admin,
			`{"name": "`+name+`", "scopes": ["a"], "audiences": ["https://api.example"], "ttl": "`+ttl+`"}`)
	}
	decides := func(secret, want string) {
		t.Helper()
		d.call(t, http.MethodPost, "/v1/introspect", admin, `{"token": "`+secret+`"}`).
			want(t, "introspect", 200, `"decision":"`+want+`"`)
	}
	mint("over", "7776001s").want(t, "mint over the maximum", 400, "TTL_ABOVE_MAXIMUM")
	long := mint("long", "7776000s").want(t, "mint", 200).field(t, "secret")
	short := mint("short", "3600s").want(t, "mint", 200).field(t, "secret")

	d.call(t, http.MethodPost, at+":check", admin, `{"max_ttl": "86400s"}`).
		want(t, "dry run", 200, `"exceeding_count":"1"`, `"name":"long"`)
	decides(long, "ALLOW")
	d.call(t, http.MethodPost, at+":block", admin, `{}`).want(t, "block under the old policy", 200, `"blocked_count":0`)
	d.call(t, http.MethodPut, at, admin, `{"max_ttl": "86400s"}`).want(t, "replace", 200, `"max_ttl":"86400s"`)
	decides(long, "ALLOW")
	d.call(t, http.MethodPost, at+":block", admin, `{"reason": "shorter now"}`).
		want(t, "block", 200, `"blocked_count":1`, `"remaining_count":"0"`)
	decides(long, "POLICY_BLOCKED")
	decides(short, "ALLOW")
	d.call(t, http.MethodGet, "/v1/self", long, "").want(t, "self of a blocked token", 401)
	d.call(t, http.MethodPost, at+":unblock", admin, `{}`).want(t, "unblock", 200, `"unblocked_count":1`)
	decides(long, "ALLOW")
	d.call(t, http.MethodGet, "/v1/events?user=u", admin, "").want(t, "events", 200, "shorter now")
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
}

// TestBadCredentialsAreLimitedPerAddress shows that the setting is in force, and what a caller is told.
func TestBadCredentialsAreLimitedPerAddress(t *testing.T) {
	data, admin := administer(t)
	d := serve(t, data, "--auth-failure-rate", "0.01", "--auth-failure-burst", "3")
	for range 3 {
		d.call(t, http.MethodGet, "/v1/users", "pats_nonsense", "").want(t, "bad credential", 401)
	}
	refused := d.call(t, http.MethodGet, "/v1/users", "pats_nonsense", "").
		want(t, "too many bad credentials", 429, "RATE_LIMITED", "RetryInfo")
	if after := refused.header.Get("Retry-After"); after == "" || after == "0" {
		t.Errorf("Retry-After is %q", after)
	}
	d.call(t, http.MethodGet, "/v1/users", admin, "").want(t, "a good credential at the same address", 200)
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
	d = serve(t, data, "--auth-failure-rate", "off", "--auth-failure-burst", "3")
	for range 10 {
		d.call(t, http.MethodGet, "/v1/users", "pats_nonsense", "").want(t, "bad credential without a limit", 401)
	}
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
}
