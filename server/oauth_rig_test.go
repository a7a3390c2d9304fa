package server_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"patd/tokens"
)

// What the token endpoint is asked for.
const (
	grantExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
	typeAccess    = "urn:ietf:params:oauth:token-type:access_token"
	typeJWT       = "urn:ietf:params:oauth:token-type:jwt"
)

// formOf is the parameters name, value, …, in their order.
func formOf(pairs ...string) string {
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(url.QueryEscape(pairs[i]) + "=" + url.QueryEscape(pairs[i+1]))
	}
	return b.String()
}

// basic is the Authorization header of a client that shows itself so. Names and tokens are sent as they are.
func basic(name, secret string) []string {
	return []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+secret))}
}

// oauth sends a form to an endpoint. Headers come as name, value, ….
func (r *rig) oauth(path, form string, headers ...string) oauthAnswer {
	r.t.Helper()
	got := r.rest(
		"POST",
		path,
		"",
		form,
		append([]string{"Content-Type", "application/x-www-form-urlencoded"}, headers...)...)
	return r.checked(path, got)
}

// oauthAnswer is an answer of an OAuth endpoint, with its JSON.
type oauthAnswer struct {
	answerOf
	json map[string]any
}

func (a oauthAnswer) text(name string) string {
	s, _ := a.json[name].(string)
	return s
}

// checked looks at what all answers have in common: no store, and an error where there is no success, which never says
// active.
func (r *rig) checked(path string, got answerOf) oauthAnswer {
	r.t.Helper()
	a := oauthAnswer{got, map[string]any{}}
	if got.header.Get("Cache-Control") != "no-store" || got.header.Get("Pragma") != "no-cache" ||
		got.header.Get("X-Request-Id") == "" {
		r.t.Errorf("%s: headers %v", path, got.header)
	}
	if got.body == "" {
		if got.code != http.StatusOK || path != "/oauth2/revoke" {
			r.t.Errorf("%s: %d without a body", path, got.code)
		}
		return a
	}
	if err := json.Unmarshal(
		[]byte(got.body),
		&a.json,
	); err != nil ||
		got.header.Get("Content-Type") != "application/json" {
		r.t.Errorf("%s: %d is no JSON: %s", path, got.code, got.body)
	}
	_, active := a.json["active"]
	if failed := a.text(
		"error",
	) != ""; failed != (got.code != http.StatusOK) ||
		failed && (active || a.text("error_description") == "") {
		r.t.Errorf("%s: %d %s", path, got.code, got.body)
	}
	return a
}

// want checks an error.
func (a oauthAnswer) want(t *testing.T, what string, code int, name string) {
	t.Helper()
	if a.code != code || a.text("error") != name {
		t.Errorf("%s: %d %s, want %d %s", what, a.code, a.body, code, name)
	}
}

// lookAt introspects a secret as the service admin.
func (r *rig) lookAt(secret string, more ...string) oauthAnswer {
	r.t.Helper()
	return r.oauth(
		"/oauth2/introspect",
		formOf(append([]string{"token", secret}, more...)...),
		basic("admin", r.admin)...)
}

// wantInactive checks that an answer is exactly what stands for everything that is not active.
func wantInactive(t *testing.T, what string, got oauthAnswer) {
	t.Helper()
	if got.code != http.StatusOK || got.body != `{"active":false}` {
		t.Errorf("%s: %d %s, want exactly {\"active\":false}", what, got.code, got.body)
	}
}

// audience adds an audience.
func (r *rig) audience(e tokens.AudienceEntry) {
	r.t.Helper()
	_, err := r.svc.CreateAudience(context.Background(), tokens.Operator(), e)
	must(r.t, err)
}

// pat mints a token of a user who holds some features, and gets all of them as scopes.
func (r *rig) pat(q tokens.MintRequest, features ...string) (tokens.Token, string) {
	r.t.Helper()
	r.features(q.User, features...)
	if q.Scopes == nil {
		q.Scopes = features
	}
	m, err := r.svc.Mint(context.Background(), tokens.Operator(), q)
	must(r.t, err)
	return m.Token, m.Secret.Reveal()
}

// exchange asks for an access token for a personal one.
func (r *rig) exchange(subject string, more ...string) oauthAnswer {
	r.t.Helper()
	return r.oauth("/oauth2/token", formOf(append([]string{
		"grant_type", grantExchange, "subject_token", subject, "subject_token_type", typeAccess}, more...)...))
}

// refresh asks for the next access token.
func (r *rig) refresh(token string, more ...string) oauthAnswer {
	r.t.Helper()
	return r.oauth(
		"/oauth2/token",
		formOf(append([]string{"grant_type", "refresh_token", "refresh_token", token}, more...)...),
	)
}
