package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
	"patd/tokens/secret"
)

// logged returns the one line of the call with a request id.
func (r *rig) logged(requestID string) map[string]any {
	r.t.Helper()
	lines := r.logs.find(map[string]any{"request_id": requestID})
	if len(lines) != 1 {
		r.t.Fatalf("%d lines of %s: %v", len(lines), requestID, lines)
	}
	return lines[0]
}

// wantFields compares fields of a log line; nil stands for one that is absent.
func wantFields(t *testing.T, what string, line map[string]any, want map[string]any) {
	t.Helper()
	for k, v := range want {
		if line[k] != v {
			t.Errorf("%s: %s is %v, want %v: %v", what, k, line[k], v, line)
		}
	}
}

func TestLogOfARefusedCredentialSaysWhyAndWhichToken(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, revoked := r.mint("u1", "a")
	live, _ := r.mint("u1", "b")
	number, err := secret.ParseID(live)
	must(t, err)
	forged, err := secret.Mint(secret.PrefixPersonal, number, zeros{})
	must(t, err)
	r.rest("DELETE", "/v1/users/u1/tokens/"+id, r.admin, "")
	service, err := r.svc.CreateService(
		context.Background(),
		tokens.Operator(),
		tokens.ServiceRequest{Name: "old", Permissions: []string{"admin"}},
	)
	must(t, err)
	_, err = r.svc.RevokeService(context.Background(), tokens.Operator(), "old", "")
	must(t, err)

	n := 0
	for _, c := range []struct{ what, credential, token string }{
		{"a revoked token", revoked, id},
		{"a revoked service", service.Secret.Reveal(), service.Service.ID.String()},
		{"a wrong secret", forged.Reveal(), ""},
	} {
		for _, path := range []string{"/v1/self", "/v1/users/u1/tokens", "/v1/introspect"} {
			method := map[bool]string{true: "POST", false: "GET"}[path == "/v1/introspect"]
			n++
			request := fmt.Sprintf("refused-%d", n)
			if got := r.rest(
				method,
				path,
				c.credential,
				map[bool]string{true: `{"token":"x"}`, false: ""}[method == "POST"],
				"X-Request-Id",
				request,
			); got.code != 401 {
				t.Errorf("%s at %s: %d", c.what, path, got.code)
			}
			line := r.logged(request)
			wantFields(
				t,
				c.what,
				line,
				map[string]any{
					"actor":       "nobody",
					"code":        "UNAUTHENTICATED",
					"http_method": method,
					"http_status": 401.0,
				},
			)
			if c.token == "" {
				wantFields(t, c.what, line, map[string]any{"token_id": nil})
				continue
			}
			wantFields(t, c.what, line, map[string]any{"token_id": c.token})
			if cause, _ := line["cause"].(string); cause == "" {
				t.Errorf("%s at %s: no cause: %v", c.what, path, line)
			}
		}
	}
	for _, text := range []string{revoked, service.Secret.Reveal(), forged.Reveal()} {
		if strings.Contains(r.logs.String(), text) {
			t.Error("the log holds a secret")
		}
	}
}

func TestLogOfAManagementCallNamesTheTokenActedOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, secret := r.mint("u1", "a")
	other, _ := r.mint("u1", "b")
	admin := strings.SplitN(r.admin, "_", 3)[1]
	calls := []struct {
		method, path, credential, body string
		token, actor, route            string
		status                         float64
	}{
		{"GET", "/v1/users/u1/tokens/" + id, r.admin, "", id, admin, "/v1/users/{user}/tokens/{token_id}", 200},
		{
			"PATCH",
			"/v1/users/u1/tokens/" + id,
			r.admin,
			`{"token":{"name":"c"},"update_mask":"name"}`,
			id,
			admin,
			"/v1/users/{user}/tokens/{token_id}",
			200,
		},
		{
			"POST",
			"/v1/users/u1/tokens/" + other + ":rotate",
			r.admin,
			"{}",
			other,
			admin,
			"/v1/users/{user}/tokens/{token_id}:rotate",
			200,
		},
		{
			"DELETE",
			"/v1/users/u1/tokens/" + other,
			r.admin,
			"",
			other,
			admin,
			"/v1/users/{user}/tokens/{token_id}",
			200,
		},
		{"GET", "/v1/self", secret, "", id, id, "/v1/self", 200},
		{"GET", "/v1/users/u1/tokens/" + id, secret, "", id, id, "/v1/users/{user}/tokens/{token_id}", 403},
		{"GET", "/v1/users/u1/tokens/" + id, r.admin, "", id, admin, "/v1/users/{user}/tokens/{token_id}", 304},
		{"GET", "/v1/users/u1/tokens/not-an-id", r.admin, "", "", admin, "/v1/users/{user}/tokens/{token_id}", 404},
		{"GET", "/v1/users/u1", r.admin, "", "", admin, "/v1/users/{user}", 200},
		{"POST", "/v1/features", r.admin, `{"name":"x"}`, "", admin, "/v1/features", 201},
		{"DELETE", "/v1/features/x", r.admin, "", "", admin, "/v1/features/{name}", 204},
	}
	for i, c := range calls {
		request := fmt.Sprintf("acted-%d", i)
		headers := []string{"X-Request-Id", request}
		if c.status == 304 {
			headers = append(headers, "If-None-Match", r.rest("GET", c.path, r.admin, "").header.Get("Etag"))
		}
		if got := r.rest(c.method, c.path, c.credential, c.body, headers...); float64(got.code) != c.status {
			t.Errorf("%s %s: %d %s", c.method, c.path, got.code, got.body)
		}
		want := map[string]any{
			"http_method":    c.method,
			"http_route":     c.route,
			"http_status":    c.status,
			"token_id":       c.token,
			"actor_token_id": c.actor,
		}
		if c.token == "" {
			want["token_id"] = nil
		}
		wantFields(t, c.method+" "+c.path, r.logged(request), want)
	}
	r.rest("POST", "/v1/features", r.admin, `{"nom":"x"}`, "X-Request-Id", "unread-1")
	wantFields(t, "a body that is not understood", r.logged("unread-1"), map[string]any{
		"http_method": "POST", "http_route": "/v1/features", "http_status": 400.0, "reason": "FIELD_UNKNOWN",
	})
	resp := r.rest(
		"POST",
		"/v1/users/u1/tokens",
		r.admin,
		`{"name":"made","scopes":["reports.read"]}`,
		"X-Request-Id",
		"made-1",
	)
	_, made, _ := strings.Cut(resp.body, `"token_id":"`)
	wantFields(t, "a minted token", r.logged("made-1"), map[string]any{"token_id": made[:11], "actor_token_id": admin})

	r.oauth("/oauth2/revoke", formOf("token", secret), "X-Request-Id", "presented-1")
	wantFields(
		t,
		"a secret that was presented",
		r.logged("presented-1"),
		map[string]any{"token_id": id, "actor": "nobody", "code": "OK"},
	)
	r.oauth("/oauth2/revoke", formOf("token", secret), "X-Request-Id", "presented-2")
	wantFields(t, "and again", r.logged("presented-2"), map[string]any{"token_id": id, "code": "OK"})
	r.oauth("/oauth2/revoke", formOf("token", guess(t, "pat", 1)), "X-Request-Id", "presented-3")
	wantFields(t, "an unknown one", r.logged("presented-3"), map[string]any{"token_id": nil, "code": "OK"})

	_, err := patdv1.NewTokenServiceClient(r.conn).
		GetToken(as(r.admin), &patdv1.GetTokenRequest{User: "u1", TokenId: id})
	must(t, err)
	over := r.logs.find(map[string]any{"method": "patd.v1.TokenService/GetToken", "token_id": id, "code": "OK"})
	if last := over[len(over)-1]; last["http_status"] != nil || last["http_route"] != nil {
		t.Errorf("a call over gRPC has a route of HTTP: %v", last)
	}
}

func TestLogOfABulkCallNamesWhatSelectedTheTokensAndHowMany(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.audience(tokens.AudienceEntry{ID: "api"})
	for _, name := range []string{"a", "b", "c"} {
		r.pat(tokens.MintRequest{User: "u1", Name: name, Audiences: []string{"api"}}, "x")
	}
	must(
		t,
		second(
			r.svc.ReplaceAudience(
				t.Context(),
				tokens.Operator(),
				tokens.AudienceEntry{ID: "api", MaxTTL: time.Hour, DefaultTTL: time.Hour},
			),
		),
	)
	call := func(id, method, path, body string) answerOf {
		got := r.rest(method, path, r.admin, body, "X-Request-Id", id)
		if got.code != 200 {
			t.Fatalf("%s %s: %d %s", method, path, got.code, got.body)
		}
		return got
	}
	call("blocked-1", "POST", "/v1/audiences/api:block", "{}")
	wantFields(t, "blocking", r.logged("blocked-1"), map[string]any{"audience": "api", "token_count": 3.0})
	call("unblocked-1", "POST", "/v1/audiences/api:unblock", "{}")
	wantFields(t, "unblocking", r.logged("unblocked-1"), map[string]any{"audience": "api", "token_count": 3.0})
	const filter = `{"filter":{"user":"u1","q":"a"},`
	var dry bulkAnswer
	must(t, json.Unmarshal([]byte(call("dry-1", "POST", "/v1/tokens:revoke", filter+`"dry_run":true}`).body), &dry))
	wantFields(t, "a dry run", r.logged("dry-1"), map[string]any{"plan": dry.Plan, "token_count": 1.0})
	call("bulk-1", "POST", "/v1/tokens:revoke", filter+`"plan":"`+dry.Plan+`"}`)
	wantFields(t, "a bulk revocation", r.logged("bulk-1"), map[string]any{"plan": dry.Plan, "token_count": 1.0})
	call("all-1", "POST", "/v1/users/u1/tokens:revoke", "{}")
	wantFields(t, "revoking all", r.logged("all-1"), map[string]any{"user": "u1", "token_count": 2.0, "plan": nil})
}

func TestDecisionsAreCountedByEveryWay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, secret := r.mint("u1", "a")
	count := func(decision string) string {
		_, after, ok := strings.Cut(
			r.rest("GET", "/metrics", "", "").body,
			`patd_decisions_total{decision="`+decision+`"} `,
		)
		if !ok {
			t.Fatalf("the metrics have no decisions %s", decision)
		}
		return strings.SplitN(after, "\n", 2)[0]
	}
	for _, name := range patdv1.IntrospectResponse_Decision_name {
		if name != "DECISION_UNSPECIFIED" && count(name) != "0" {
			t.Errorf("%s: %s before any call", name, count(name))
		}
	}
	body := `{"token":"` + secret + `"}`
	r.rest("POST", "/v1/introspect", r.admin, body, "X-Request-Id", "allowed-1")
	r.rest("POST", "/v1/introspect:batch", r.admin, `{"requests":[`+body+`,{"token":"x"}]}`)
	r.rest("GET", "/v1/forward-auth", secret, "")
	r.rest("GET", "/v1/forward-auth?scope=reports.write", secret, "", "X-Request-Id", "lacking-1")
	rpc := patdv1.NewIntrospectionServiceClient(r.conn)
	_, err := rpc.Introspect(as(r.admin), &patdv1.IntrospectRequest{Token: secret})
	must(t, err)
	stream, err := rpc.IntrospectStream(as(r.admin))
	must(t, err)
	must(t, stream.Send(&patdv1.IntrospectStreamRequest{Id: 1, Request: &patdv1.IntrospectRequest{Token: secret}}))
	_, err = stream.Recv()
	must(t, err)
	must(t, stream.CloseSend())
	for decision, want := range map[string]string{"ALLOW": "5", "NOT_FOUND": "1", "INSUFFICIENT_SCOPE": "1", "REVOKED": "0"} {
		if got := count(decision); got != want {
			t.Errorf("%s: %s, want %s", decision, got, want)
		}
	}
	wantFields(
		t,
		"a decision",
		r.logged("allowed-1"),
		map[string]any{"decision": "ALLOW", "token_id": id, "http_route": "/v1/introspect", "http_status": 200.0},
	)
	wantFields(
		t,
		"a refusal at a gateway",
		r.logged("lacking-1"),
		map[string]any{
			"decision":    "INSUFFICIENT_SCOPE",
			"token_id":    id,
			"http_route":  "/v1/forward-auth",
			"http_status": 403.0,
		},
	)
}
