package server_test

import (
	"context"
	"slices"
	"testing"

	"patd/tokens"
)

func TestScopesMeanTheSameInTokenIntrospectAndSelf(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.features("u1", "a", "b")
	m, err := r.svc.Mint(
		context.Background(),
		tokens.Operator(),
		tokens.MintRequest{User: "u1", Name: "n", Scopes: []string{"a", "b"}},
	)
	must(t, err)
	r.features("u1", "b", "c")
	id, secret := m.Token.ID.String(), m.Secret.Reveal()
	texts := func(v any) (out []string) {
		list, _ := v.([]any)
		for _, one := range list {
			s, _ := one.(string)
			out = append(out, s)
		}
		return out
	}
	check := func(what string, in map[string]any, granted string) {
		t.Helper()
		for field, want := range map[string][]string{granted: {"a", "b"}, "effective_scopes": {"b"}, "suspended_scopes": {"a"}} {
			if got := texts(in[field]); !slices.Equal(got, want) {
				t.Errorf("%s: %s is %v, want %v", what, field, got, want)
			}
		}
	}
	token := func(body string) map[string]any { one, _ := objectOf(t, body)["token"].(map[string]any); return one }
	get := token(r.rest("GET", "/v1/users/u1/tokens/"+id, r.admin, "").body)
	check("Get", get, "scopes")
	if get["scopes_state"] != "CURRENT" {
		t.Errorf("Get: %v", get["scopes_state"])
	}
	for _, path := range []string{"/v1/users/u1/tokens", "/v1/tokens"} {
		list, _ := objectOf(t, r.rest("GET", path, r.admin, "").body)["tokens"].([]any)
		one, _ := list[0].(map[string]any)
		check(path, one, "scopes")
	}
	self := r.rest("GET", "/v1/self", secret, "").body
	check("Self", token(self), "scopes")
	check("Self's own fields", map[string]any{
		"scopes":           token(self)["scopes"],
		"effective_scopes": objectOf(t, self)["effective_scopes"],
		"suspended_scopes": objectOf(t, self)["suspended_scopes"],
	}, "scopes")
	// The short way, and the one through the gateway.
	check(
		"Introspect",
		objectOf(t, r.rest("POST", "/v1/introspect", r.admin, `{"token":"`+secret+`"}`).body),
		"granted_scopes",
	)
	check(
		"Introspect by the gateway",
		objectOf(t, r.rest("POST", "/v1/introspect", r.admin, `{"token":"`+secret+`"}`, "Grpc-Timeout", "5S").body),
		"granted_scopes",
	)
	changed := token(
		r.rest("PATCH", "/v1/users/u1/tokens/"+id, r.admin, `{"token":{"name":"m"},"update_mask":"name"}`).body,
	)
	if changed["scopes_state"] != "UNKNOWN" || len(texts(changed["effective_scopes"])) != 0 {
		t.Errorf("a change: %v", changed)
	}
}
