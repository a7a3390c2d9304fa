package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/internal/oidctest"
)

// TestSignedInUsersManageTheirOwnTokens signs users in by a real OpenID provider, with its keys changing under way.
func TestSignedInUsersManageTheirOwnTokens(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	p := oidctest.StartReal(t, "0")
	data, admin := administer(t)
	flags := []string{"--oidc-issuer", p.URL, "--oidc-audience", oidctest.RealAudience}
	d := serve(t, data, flags...)
	a := connect(t, d, admin)
	for _, user := range []string{"alice", "bob", "web"} {
		if _, err := a.users.SetUserFeatures(
			t.Context(),
			&patdv1.SetUserFeaturesRequest{User: user, Features: []string{"reports.read", "reports.write"}},
		); err != nil {
			t.Fatal(err)
		}
	}
	alice := p.Sign(t, nil, p.Claims("alice"))
	ownTokens(t, d, a, alice)
	othersTokens(t, d, a, alice)

	// What the provider's own endpoint gives out works as what was made up for the test.
	d.call(t, http.MethodPost, "/v1/users/me/tokens", p.ForItself(t, oidctest.RealAudience), `{"name": "n", "scopes": ["reports.read"]}`).
		want(t, "the provider's own token", 200, `"user":"web"`)

	now := time.Now().Unix()
	for what, changed := range map[string]oidctest.Claims{
		"wrong audience": {"aud": "https://other.example"}, "expired": {"exp": now - 60}, "another issuer": {"iss": "https://other.example"},
		"no expiry": {"exp": nil}, "from the future": {"nbf": now + 600}, "no user": {"sub": ""},
	} {
		refused := d.call(t, http.MethodGet, "/v1/users/me/tokens", p.Sign(t, nil, p.Claims("alice").With(changed)), "").
			want(t, what, 401, "CREDENTIAL_INVALID")
		if got := refused.header.Get("WWW-Authenticate"); !strings.HasPrefix(got, "Bearer") {
			t.Errorf("%s: WWW-Authenticate is %q", what, got)
		}
	}

	p.Rotate(t)
	d.call(t, http.MethodGet, "/v1/users/me/tokens", p.Sign(t, nil, p.Claims("alice")), "").
		want(t, "under the new key", 200)
	d.call(t, http.MethodGet, "/v1/users/me/tokens", alice, "").
		want(t, "under the key that is gone", 401, "CREDENTIAL_INVALID")

	// A provider that is gone is no bad token: a patd that has its keys goes on, one that has not cannot tell.
	last := p.Sign(t, nil, p.Claims("alice"))
	p.Stop()
	d.call(t, http.MethodGet, "/v1/users/me/tokens", last, "").want(t, "the provider is gone", 200)
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(d.Log.String(), alice) || strings.Contains(d.Log.String(), last) {
		t.Error("a JWT stands in the log")
	}
	d = serve(t, data, flags...)
	d.call(t, http.MethodGet, "/v1/users/me/tokens", last, "").
		want(t, "the provider was never there", 503, "SIGNIN_UNAVAILABLE")
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
}

// ownTokens does all that a user may.
func ownTokens(t *testing.T, d *daemon, a api, alice string) {
	t.Helper()
	minted := d.call(t, http.MethodPost, "/v1/users/me/tokens", alice, `{"name": "laptop", "scopes": ["reports.read"]}`).
		want(t, "mint", 200, `"user":"alice"`)
	a.wantScopes(t, "minted by its user", []string{minted.field(t, "secret")}, "reports.read")
	id := minted.field(t, "token", "token_id")
	for _, own := range []string{"me", "alice"} {
		d.call(t, http.MethodGet, "/v1/users/"+own+"/tokens/"+id, alice, "").want(t, "get", 200, "laptop")
		d.call(t, http.MethodGet, "/v1/users/"+own+"/tokens", alice, "").want(t, "list", 200, id)
		d.call(t, http.MethodGet, "/v1/users/"+own+"/features", alice, "").want(t, "features", 200, "reports.write")
	}
	d.call(t, http.MethodPost, "/v1/users/me/tokens", alice, `{"name": "more", "scopes": ["billing.read"]}`).
		want(t, "mint what is not held", 400, "SCOPE_NOT_HELD")
	d.call(t, http.MethodPatch, "/v1/users/me/tokens/"+id, alice, `{"token": {"name": "desk"}, "update_mask": "name"}`).
		want(t, "update", 200, "desk")
	rotated := d.call(t, http.MethodPost, "/v1/users/me/tokens/"+id+":rotate", alice, `{"grace": "0s"}`).
		want(t, "rotate", 200).
		field(t, "secret")
	d.call(t, http.MethodDelete, "/v1/users/me/tokens/"+id, alice, "").want(t, "revoke", 200, "user:alice")
	got, err := a.introspect.Introspect(t.Context(), &patdv1.IntrospectRequest{Token: rotated})
	if err != nil || got.GetDecision() != patdv1.IntrospectResponse_REVOKED {
		t.Errorf("revoked by its user: %s, %v", got.GetDecision(), err)
	}
}

// othersTokens tries what a user may not.
func othersTokens(t *testing.T, d *daemon, a api, alice string) {
	t.Helper()
	m, err := a.tokens.CreateToken(
		t.Context(),
		&patdv1.CreateTokenRequest{User: "bob", Name: "his", Scopes: []string{"reports.read"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	his, none := m.GetToken().GetTokenId(), "00000000000"
	withoutID := func(a answer) string {
		var body struct {
			Error struct {
				Code            int
				Status, Message string
			}
		}
		if err := json.Unmarshal([]byte(a.body), &body); err != nil {
			t.Fatal(err)
		}
		return body.Error.Status + " " + body.Error.Message
	}
	for _, call := range []struct{ method, path, body string }{
		{http.MethodGet, "/v1/users/{user}/tokens/{id}", ""},
		{http.MethodDelete, "/v1/users/{user}/tokens/{id}", ""},
		{http.MethodPost, "/v1/users/{user}/tokens/{id}:rotate", "{}"},
		{http.MethodPatch, "/v1/users/{user}/tokens/{id}", `{"token": {"name": "x"}, "update_mask": "name"}`},
		{http.MethodGet, "/v1/users/{user}/tokens", ""},
		{http.MethodPost, "/v1/users/{user}/tokens", `{"name": "x", "scopes": ["reports.read"]}`},
		{http.MethodPost, "/v1/users/{user}/tokens:revoke", "{}"},
		{http.MethodGet, "/v1/users/{user}/features", ""},
		{http.MethodGet, "/v1/users/{user}", ""},
	} {
		var answers []string
		for _, of := range []struct{ user, id string }{{"bob", his}, {"bob", none}, {"nobody", none}} {
			path := strings.NewReplacer("{user}", of.user, "{id}", of.id).Replace(call.path)
			got := d.call(t, call.method, path, alice, call.body)
			if got.code != http.StatusForbidden && got.code != http.StatusNotFound {
				t.Errorf("%s %s: %d", call.method, call.path, got.code)
			}
			answers = append(answers, withoutID(got))
		}
		if answers[0] != answers[1] || answers[1] != answers[2] {
			t.Errorf("%s %s tells what exists: %q", call.method, call.path, answers)
		}
	}
	d.call(t, http.MethodGet, "/v1/users/me/tokens/"+his, alice, "").
		want(t, "another's token among one's own", 404, "NOT_FOUND")
	d.call(t, http.MethodPut, "/v1/users/me/features", alice, `{"features": ["admin"]}`).
		want(t, "write one's own features", 403)
	d.call(t, http.MethodPost, "/v1/users/me:refresh", alice, `{}`).want(t, "refresh", 403)
	d.call(t, http.MethodPost, "/v1/introspect", alice, `{"token": "x"}`).want(t, "introspect", 403)
	d.call(t, http.MethodGet, "/v1/audiences", alice, "").want(t, "catalogue", 403)
	a.wantScopes(t, "another's token, after all that", []string{m.GetSecret()}, "reports.read")
}

// TestFeaturesFromTheClaim mints by what the provider's token says, with no other source.
func TestFeaturesFromTheClaim(t *testing.T) {
	t.Parallel()
	p := oidctest.New(t, time.Now)
	sign := func(features any) string {
		return p.Sign(t, p.Claims("alice", "patd").With(oidctest.Claims{"features": features}))
	}
	data, admin := administer(t)
	d := serve(
		t,
		data,
		"--oidc-issuer",
		p.URL,
		"--oidc-audience",
		"patd",
		"--features-source",
		"claim",
		"--oidc-features-claim",
		"features",
	)
	a := connect(t, d, admin)
	alice := sign([]string{"reports.read", "reports.write"})
	minted := d.call(t, http.MethodPost, "/v1/users/me/tokens", alice, `{"name": "n", "scopes": ["reports.read"]}`).
		want(t, "mint", 200)
	d.call(t, http.MethodPost, "/v1/users/me/tokens", alice, `{"name": "m", "scopes": ["billing.read"]}`).
		want(t, "mint what the claim does not name", 400, "SCOPE_NOT_HELD")
	d.call(t, http.MethodGet, "/v1/users/me/features", alice, "").want(t, "features", 200, "reports.write")
	for what, claim := range map[string]any{"no features": []string{}, "no claim": nil} {
		jwt := sign(claim)
		if got := d.call(
			t,
			http.MethodPost,
			"/v1/users/me/tokens",
			jwt,
			`{"name": "o", "scopes": ["reports.read"]}`,
		); got.code == http.StatusOK {
			t.Errorf("%s: a token was minted", what)
		}
	}
	d.call(t, http.MethodPost, "/v1/users/alice/tokens", admin, `{"name": "p", "scopes": ["reports.read"]}`).
		want(t, "a service, which has no claim", 400, "SCOPE_NOT_HELD")
	// Nothing narrows it later: there is nobody to ask.
	a.wantScopes(t, "minted by the claim", []string{minted.field(t, "secret")}, "reports.read")
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
}
