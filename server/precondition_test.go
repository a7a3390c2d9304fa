package server_test

import (
	"net/http"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// TestNoPreconditionIsIgnored asks every kind of route with one that does not hold: nothing is changed.
func TestNoPreconditionIsIgnored(t *testing.T) {
	r := newRig(t)
	r.features("u1", "a")
	id, secret := r.mint("u1", "n")
	r.audience(tokens.AudienceEntry{ID: "api"})
	if got := r.rest("POST", "/v1/features", r.admin, `{"name":"f"}`); got.code != http.StatusCreated {
		t.Fatal(got)
	}
	token := "/v1/users/u1/tokens/" + id
	for _, c := range []struct {
		method, path, body, secret string
		want                       int
	}{
		{"PATCH", token, `{"token":{"name":"m"},"update_mask":"name"}`, r.admin, 412},
		{"POST", token + ":rotate", `{}`, r.admin, 412},
		{"POST", token + ":revoke", `{}`, r.admin, 412},
		{"DELETE", token, "", r.admin, 412},
		{"DELETE", "/v1/self", "", secret, 412},
		{"GET", token, "", r.admin, 412},
		{"GET", "/v1/self", "", secret, 412},
		{"PUT", "/v1/users/u1/features", `{"features":[]}`, r.admin, 412},
		{"PATCH", "/v1/users/u1/features", `{"remove":["a"]}`, r.admin, 412},
		{"POST", "/v1/users/u1:suspend", `{}`, r.admin, 412},
		{"DELETE", "/v1/users/u1", "", r.admin, 412},
		{"PUT", "/v1/features/f", `{}`, r.admin, 412},
		{"DELETE", "/v1/features/f", "", r.admin, 412},
		{"PUT", "/v1/audiences/api", `{}`, r.admin, 412},
		{"DELETE", "/v1/audiences/api", "", r.admin, 412},
		{"POST", "/v1/audiences", `{"id":"x"}`, r.admin, 400},
		{"POST", "/v1/features", `{"name":"x"}`, r.admin, 400},
		{"POST", "/v1/users/u1/tokens", `{"name":"x","scopes":["a"]}`, r.admin, 400},
		{"POST", "/v1/users/u1/tokens:revoke", `{}`, r.admin, 400},
		{"POST", "/v1/audiences/api:block", `{}`, r.admin, 400},
		{"GET", "/v1/audiences", "", r.admin, 400},
		{"POST", "/v1/introspect", `{"token":"x"}`, r.admin, 400},
		{"POST", "/v1/introspect:batch", `{"requests":[]}`, r.admin, 400},
		{"POST", "/oauth2/introspect", "", r.admin, 400},
		{"GET", "/healthz", "", "", 400},
	} {
		for _, tag := range []string{`"another"`, `W/"another"`} {
			if got := r.rest(c.method, c.path, c.secret, c.body, "If-Match", tag); got.code != c.want {
				t.Errorf("%s %s If-Match %s: %d %s, want %d", c.method, c.path, tag, got.code, got.body, c.want)
			}
		}
		if got := r.rest(c.method, c.path, c.secret, c.body, "If-Unmodified-Since", "Mon, 02 Jan 2006 15:04:05 GMT"); got.code != 400 {
			t.Errorf("%s %s If-Unmodified-Since: %d %s", c.method, c.path, got.code, got.body)
		}
	}
}

func TestAnEntityTagFollowsEachChange(t *testing.T) {
	r := newRig(t)
	r.features("u1", "a")
	id, _ := r.mint("u1", "n")
	r.audience(tokens.AudienceEntry{ID: "api"})
	for path, change := range map[string][2]string{
		"/v1/users/u1/tokens/" + id: {"PATCH", `{"token":{"description":"d"},"update_mask":"description"}`},
		"/v1/users/u1/features":     {"PUT", `{"features":["a","b"]}`},
		"/v1/audiences/api":         {"PUT", `{"max_ttl":"3600s"}`},
	} {
		before := r.rest("GET", path, r.admin, "").header.Get("Etag")
		if got := r.rest("GET", path, r.admin, "", "If-None-Match", "W/"+before); before == "" || got.code != http.StatusNotModified || got.body != "" {
			t.Errorf("%s: tag %s, then %d %q", path, before, got.code, got.body)
		}
		done := r.rest(change[0], path, r.admin, change[1], "If-Match", `"x", `+before)
		if after := r.rest("GET", path, r.admin, "").header.Get("Etag"); done.code != 200 || after == before || done.header.Get("Etag") != after {
			t.Errorf("%s: %d %s, tags %s, %s, %s", path, done.code, done.body, before, done.header.Get("Etag"), after)
		}
		if again := r.rest(change[0], path, r.admin, change[1], "If-Match", before); again.code != http.StatusPreconditionFailed {
			t.Errorf("%s: a second change of the same state: %d %s", path, again.code, again.body)
		}
	}
	c := patdv1.NewCatalogServiceClient(r.conn)
	_, err := c.ReplaceAudience(as(r.admin), &patdv1.ReplaceAudienceRequest{Id: "api", Audience: &patdv1.Audience{Etag: `"another"`}})
	if status.Code(err) != codes.Aborted {
		t.Errorf("the field: %v", err)
	}
	_, err = c.DeleteAudience(metadata.AppendToOutgoingContext(as(r.admin), "if-match", `"another"`), &patdv1.DeleteAudienceRequest{Id: "api"})
	if status.Code(err) != codes.Aborted {
		t.Errorf("over gRPC: %v", err)
	}
}
