package server_test

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"patd/tokens"
)

// TestProtectedResourcesAreDescribedOnTheirOwnHost asks for the metadata of RFC 9728 as a gateway passes it on.
func TestProtectedResourcesAreDescribedOnTheirOwnHost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const known = "/.well-known/oauth-protected-resource"
	for id, resource := range map[string]string{
		"root": "https://api.example.com", "v1": "https://api.example.com/v1", "slash": "https://api.example.com/v2/", "plain": "http://plain.example.com:8000/x",
		"query": "https://api.example.com/v3?k=v", "none": "", "urn": "urn:api.example.com:/urn",
	} {
		r.audience(tokens.AudienceEntry{ID: id, Resource: resource, DisplayName: "API " + id})
	}
	for _, c := range []struct{ host, path, resource string }{
		{"api.example.com", known, "https://api.example.com"}, {"API.example.com", known, "https://api.example.com"}, {"api.example.com:443", known, "https://api.example.com"},
		{"api.example.com", known + "/v1", "https://api.example.com/v1"}, {"api.example.com", known + "/v2/", "https://api.example.com/v2/"},
		{"api.example.com", known + "/v3?k=v", "https://api.example.com/v3?k=v"}, {"plain.example.com:8000", known + "/x", "http://plain.example.com:8000/x"},
		{"api.example.com", known + "/v2", ""}, {"api.example.com", known + "/v3", ""}, {"other.example.com", known, ""}, {"plain.example.com", known + "/x", ""},
		{"api.example.com", known + "/none", ""}, {"api.example.com", known + "x", ""},
	} {
		q, err := http.NewRequest(http.MethodGet, "http://"+r.srv.HTTPAddr()+c.path, nil)
		must(t, err)
		q.Host = c.host
		resp, err := r.client.Do(q)
		must(t, err)
		text, err := io.ReadAll(resp.Body)
		must(t, err)
		resp.Body.Close()
		var got struct {
			Resource string
			Servers  []string `json:"authorization_servers"`
		}
		must(t, json.Unmarshal(text, &got))
		if c.resource == "" {
			if resp.StatusCode != http.StatusNotFound {
				t.Errorf("%s%s: %s %s", c.host, c.path, resp.Status, text)
			}
			continue
		}
		if resp.StatusCode != http.StatusOK || got.Resource != c.resource || len(got.Servers) != 1 ||
			got.Servers[0] != r.srv.Issuer() {
			t.Errorf("%s%s: %s %s, want %s", c.host, c.path, resp.Status, text, c.resource)
		}
	}
	// The challenge names the metadata of the audience that was asked for.
	for audience, want := range map[string]string{"v1": `Bearer realm="patd", resource_metadata="https://api.example.com` + known + `/v1"`, "none": challenged, "urn": challenged, "unknown": challenged} {
		if got := r.ask("?audience="+audience, "").header.Get("WWW-Authenticate"); got != want {
			t.Errorf("%s: %s, want %s", audience, got, want)
		}
	}
}
