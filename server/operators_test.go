package server_test

import (
	"net/http"
	"strings"
	"testing"

	"patd/tokens"
)

// TestOperatorsHaveTheRightsOfTheirGroups is about a person who is a user, and in a group that makes it an operator.
func TestOperatorsHaveTheRightsOfTheirGroups(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.features("ann", "reports.read")
	r.features("bob", "reports.read")
	id, _ := r.mint("bob", "bob's")
	support := r.idp.jwt(t, "ann", claim{"groups", []string{"may-tokens", "may-users"}})
	for _, c := range []struct {
		what, verb, path, body string
		want                   int
	}{
		{"reads the tokens of all", "GET", "/v1/tokens?user=bob", "", http.StatusOK},
		{"reads another's token", "GET", "/v1/users/bob/tokens/" + id, "", http.StatusOK},
		{"makes a token for itself", "POST", "/v1/users/me/tokens", `{"name":"own","scopes":["reports.read"]}`, http.StatusOK},
		{"makes no token for another", "POST", "/v1/users/bob/tokens", `{"name":"x","scopes":["reports.read"]}`, http.StatusForbidden},
		{"rotates no token of another", "POST", "/v1/users/bob/tokens/" + id + ":rotate", `{}`, http.StatusForbidden},
		{"hands over nobody", "POST", "/v1/users/bob/page-sessions", `{}`, http.StatusForbidden},
		{"reads no events", "GET", "/v1/events", "", http.StatusForbidden},
		{"makes no service", "POST", "/v1/services", `{"name":"s","permissions":["audit"]}`, http.StatusForbidden},
		{"suspends a user", "POST", "/v1/users/bob:suspend", `{}`, http.StatusOK},
		{"resumes it", "POST", "/v1/users/bob:resume", `{}`, http.StatusOK},
		{"revokes another's token", "DELETE", "/v1/users/bob/tokens/" + id, "", http.StatusOK},
	} {
		if got := r.rest(c.verb, c.path, support, c.body); got.code != c.want {
			t.Errorf("an operator of tokens and users %s: %d %s; want %d", c.what, got.code, got.body, c.want)
		}
	}
	auditor := r.idp.jwt(t, "eve", claim{"groups", "staff may-audit"})
	for actor, actions := range map[string][]string{
		"operator:ann": {"token.revoke", "user.suspend", "user.resume"}, "user:ann": {"token.create"},
	} {
		got := r.rest("GET", "/v1/events?actor="+actor+"&page_size=200", auditor, "")
		for _, action := range actions {
			if got.code != http.StatusOK || !strings.Contains(got.body, `"action":"`+action+`"`) {
				t.Errorf("events of %s lack %s: %d %s", actor, action, got.code, got.body)
			}
		}
	}
	for what, jwt := range map[string]string{
		"of another group": r.idp.jwt(t, "dan", claim{"groups", []string{"may-", "tokens"}}),
		"of no group":      r.idp.jwt(t, "dan"),
		"whose groups are elsewhere": r.idp.jwt(t, "dan", claim{"groups", []string{"may-admin"}},
			claim{"_claim_names", map[string]string{"groups": "src1"}}),
		"whose groups are malformed": r.idp.jwt(t, "dan", claim{"groups", map[string]bool{"may-admin": true}}),
	} {
		if got := r.rest("GET", "/v1/tokens", jwt, ""); got.code != http.StatusForbidden {
			t.Errorf("a user %s: %d %s", what, got.code, got.body)
		}
	}
	_, err := r.svc.SuspendUser(t.Context(), tokens.Operator(), "ann", "")
	must(t, err)
	if got := r.rest("POST", "/v1/users/bob:suspend", support, `{}`); got.code < 400 {
		t.Errorf("an operator who is suspended: %d %s", got.code, got.body)
	}
}
