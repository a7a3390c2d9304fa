package server_test

import (
	"net/http"
	"testing"

	"patd/tokens"
)

func TestWhatHasGETHasHEAD(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.steps(t, r.admin, []step{{"PUT", "/v1/users/alice/features", `{"features":["a"]}`, 200, "", ""}})
	for _, path := range []string{
		"/v1/users", "/v1/users/alice", "/v1/users/alice/tokens?page_size=1", "/v1/users/alice/features", "/v1/features", "/v1/audiences",
		"/v1/services", "/v1/events", "/healthz", "/.well-known/oauth-authorization-server", "/.well-known/jwks.json",
	} {
		get, head := r.rest("GET", path, r.admin, ""), r.rest("HEAD", path, r.admin, "")
		if get.code != 200 || head.code != 200 || head.body != "" ||
			head.header.Get("Content-Type") != get.header.Get("Content-Type") {
			t.Errorf("%s: GET %d, HEAD %d with %q, %v", path, get.code, head.code, head.body, head.header)
		}
	}
	_, bearer := r.pat(tokens.MintRequest{User: "alice", Name: "n"}, "a")
	for _, path := range []string{
		"/", "/new", "/signin", "/embed.js", "/admin", "/metrics", "/readyz", "/openapi.json", "/v1/forward-auth", "/v1/tokens", "/v1/sign-in",
		"/v1/whoami", "/v1/self", "/.well-known/oauth-protected-resource", "/v1/features/a", "/none",
	} {
		for _, credential := range []string{r.admin, bearer, ""} {
			get, head := r.rest("GET", path, credential, ""), r.rest("HEAD", path, credential, "")
			if head.code != get.code || head.body != "" ||
				head.header.Get("Content-Type") != get.header.Get("Content-Type") {
				t.Errorf(
					"%s: GET %d %v, HEAD %d with %q, %v",
					path,
					get.code,
					get.header,
					head.code,
					head.body,
					head.header,
				)
			}
		}
	}
	for _, c := range []struct {
		path, credential string
		code             int
	}{{"/v1/users/nobody", r.admin, 404}, {"/v1/users", "", 401}, {"/v1/introspect", r.admin, 405}, {"/v1/none", r.admin, 404}} {
		if got := r.rest("HEAD", c.path, c.credential, ""); got.code != c.code || got.body != "" {
			t.Errorf("HEAD %s: %d %q, want %d", c.path, got.code, got.body, c.code)
		}
	}
}

func TestSpacesAfterTheSchemeAreOneOrMoreEverywhere(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for spaces, code := range map[string]int{" ": 200, "  ": 200, "\t": 401} {
		if got := r.rest("GET", "/v1/users", "", "", "Authorization", "Bearer"+spaces+r.admin); got.code != code {
			t.Errorf("/v1/users with %q: %d", spaces, got.code)
		}
		got := r.rest("GET", "/v1/forward-auth", "", "", "Authorization", "Bearer"+spaces+"pat_none")
		want := `Bearer realm="patd", error="invalid_token"`
		if spaces == "\t" {
			want = `Bearer realm="patd"`
		}
		if got.code != http.StatusUnauthorized || undescribed(got.header.Get("WWW-Authenticate")) != want {
			t.Errorf("forward-auth with %q: %d %q", spaces, got.code, got.header.Get("WWW-Authenticate"))
		}
	}
}
