package server_test

import (
	"strings"
	"testing"
)

// FuzzJSONBody sends bodies to every method that takes one. Whatever the body, nothing panics, nothing is a fault of
// the server, and a secret in the body is not repeated.
func FuzzJSONBody(f *testing.F) {
	r := newRig(f)
	_, secret := r.mint("u1", "marked")
	r.features("target", "reports.read")
	var posts []binding
	for _, b := range bindings(f, r) {
		if b.verb != "GET" && b.verb != "DELETE" {
			posts = append(posts, b)
		}
	}
	for _, seed := range []string{
		``, `{}`, `null`, `[]`, `{"token":"SECRET"}`, `{"name":"SECRET","scopes":["reports.read"]}`, `{"SECRET":1}`, `{"name":{"SECRET":[]}}`,
		`{"requests":[{"token":"SECRET"},{"client_ip":"SECRET"}]}`, `{"ttl":"SECRET"}`, `{"expire_time":"2030-01-01T00:00:00Z","ttl":"1s"}`,
		`{"update_mask":"name","token":{"name":"SECRET"}}`, `{"features":["a"]}`, `{"add":["a"],"remove":["a"]}`, `{"labels":{"SECRET":"SECRET"}}`,
		`{"name":"x"`, "{\"name\":\"\xff\"}", `{"name":"\u0000"}`, `{"name":"\ud800"}`, `{"grace":"-1s"}`, `{"permissions":["admin"],"name":"s","ttl":"315576000000s"}`,
		`{"name":1e999}`, strings.Repeat(`{"token":`, 2000), strings.Repeat(`[`, 20000), `{"token":{"state":"SECRET"}}`, `{"token":{"state":99},"update_mask":"state"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		r := r.under(t)
		body = strings.ReplaceAll(body, "SECRET", secret)
		for _, b := range posts {
			got := r.rest(b.verb, b.path, r.admin, body)
			if got.code >= 500 {
				t.Errorf("%s %s: %d %s", b.verb, b.path, got.code, got.body)
			}
			if strings.Contains(got.body, secret) {
				t.Errorf("%s %s: the secret was repeated", b.verb, b.path)
			}
			if got.code >= 300 && !strings.HasPrefix(got.body, `{"error":{"code":`) {
				t.Errorf("%s %s: not the form of an error: %s", b.verb, b.path, got.body)
			}
		}
		if strings.Contains(r.logs.String(), secret) {
			t.Error("the secret is in the log")
		}
		r.logs.reset()
	})
}
