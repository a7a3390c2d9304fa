package server_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"patd/server"
)

func TestMetadataTellsWhatIsPublished(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.Issuer = "https://patd.example/base/" })
	const path = "/.well-known/oauth-authorization-server"
	read := func(path string) map[string]any {
		t.Helper()
		got := r.rest("GET", path, "no good credential", "")
		var body map[string]any
		must(t, json.Unmarshal([]byte(got.body), &body))
		if got.code != 200 || got.header.Get("Content-Type") != "application/json" ||
			got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", path, got.code, got.header)
		}
		return body
	}
	// RFC 8414 section 3.2: lists without elements are left out.
	want := map[string]any{
		"issuer": "https://patd.example/base/", "response_types_supported": []any{},
		"token_endpoint":                                "https://patd.example/base/oauth2/token",
		"introspection_endpoint":                        "https://patd.example/base/oauth2/introspect",
		"revocation_endpoint":                           "https://patd.example/base/oauth2/revoke",
		"jwks_uri":                                      "https://patd.example/base/.well-known/jwks.json",
		"grant_types_supported":                         []any{grantExchange, "refresh_token"},
		"token_endpoint_auth_methods_supported":         []any{"client_secret_basic", "client_secret_post", "none"},
		"revocation_endpoint_auth_methods_supported":    []any{"client_secret_basic", "client_secret_post", "none"},
		"introspection_endpoint_auth_methods_supported": []any{"client_secret_basic", "client_secret_post", "Bearer"},
	}
	if diff := cmp.Diff(want, read(path)); diff != "" {
		t.Errorf("with nothing published: %s", diff)
	}
	r.steps(t, r.admin, []step{
		{"POST", "/v1/features", `{"name":"b","metadata_publish":"ALL_CLIENTS"}`, 201, "", ""},
		{"POST", "/v1/features", `{"name":"a","metadata_publish":"ALL_CLIENTS"}`, 201, "", ""},
		{"POST", "/v1/features", `{"name":"hidden"}`, 201, "", ""},
	})
	want["scopes_supported"] = []any{"a", "b"}
	for _, p := range []string{path, path + "/base"} {
		if diff := cmp.Diff(want, read(p)); diff != "" {
			t.Errorf("%s: %s", p, diff)
		}
	}
	r.steps(
		t,
		"",
		[]step{
			{"POST", path, "", 405, "METHOD_NOT_ALLOWED", ""},
			{"HEAD", path, "", 200, "", ""},
			{"GET", path + "/other", "", 404, "PATH_NOT_FOUND", ""},
		},
	)
	r.store.set(outage{}.hook())
	got := r.rest("GET", path, "", "")
	if reason, _ := got.reason(); got.code != http.StatusServiceUnavailable || reason != "STORE_UNAVAILABLE" {
		t.Errorf("an outage: %d %s", got.code, got.body)
	}
	if len(r.logs.find(map[string]any{"level": "ERROR", "method": "http", "http_status": 503.0})) != 1 {
		t.Errorf("the outage is not in the log: %s", r.logs.String())
	}
	r.store.set(nil)
}
