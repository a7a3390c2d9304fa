package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
)

// providerAudience is what the provider's access tokens are for.
const providerAudience = "https://patd.example/api"

// provider is oidc-provider, a certified OpenID provider, run by Node. How users sign in with a browser is tested in
// package signin; here its own endpoints and its keys matter.
type provider struct {
	issuer string
	stop   func()
}

func startProvider(t *testing.T) *provider {
	t.Helper()
	dir := filepath.Join("..", "..", "server", "signin", "testdata", "provider")
	missing := t.Skipf
	if os.Getenv("CI") != "" {
		missing = t.Fatalf
	}
	if _, err := exec.LookPath("node"); err != nil {
		missing("the real OpenID provider needs Node: %v", err)
	}
	// What npm writes last.
	if _, err := os.Stat(filepath.Join(dir, "node_modules", ".package-lock.json")); err != nil {
		missing("the real OpenID provider is not installed: run npm ci in server/signin/testdata/provider: %v", err)
	}
	cmd := exec.Command("node", "provider.mjs", "0")
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stderr = dir, &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	p := &provider{stop: func() {
		if !stopped {
			stopped = true
			_ = stdin.Close()
			_ = cmd.Wait()
		}
	}}
	t.Cleanup(p.stop)
	var ready struct{ Issuer string }
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &ready)
	}
	if err != nil {
		p.stop()
		t.Fatalf("the provider did not start: %v\n%s", err, &stderr)
	}
	p.issuer = ready.Issuer
	return p
}

func (p *provider) post(t *testing.T, path, contentType, body string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.issuer+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	r.SetBasicAuth("web", "a-secret-for-tests-only")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v: %s", path, response.Status, err, text)
	}
	return string(text)
}

// jwt is a token of a user, signed with the provider's current key, with some claims changed.
func (p *provider) jwt(t *testing.T, user string, changed map[string]any) string {
	t.Helper()
	now := time.Now().Unix()
	claims := map[string]any{"iss": p.issuer, "sub": user, "aud": providerAudience, "iat": now, "exp": now + 600}
	for k, v := range changed {
		claims[k] = v
	}
	body, err := json.Marshal(map[string]any{"claims": claims})
	if err != nil {
		t.Fatal(err)
	}
	return p.post(t, "/test/sign", "application/json", string(body))
}

// granted is the access token that the provider's token endpoint gives the client web for itself.
func (p *provider) granted(t *testing.T) string {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "resource": {providerAudience}}
	return answer{
		body: p.post(t, "/token", "application/x-www-form-urlencoded", form.Encode()),
	}.field(
		t,
		"access_token",
	)
}

// TestSignedInUsersManageTheirOwnTokens signs users in by a real OpenID provider, with its keys changing under way.
func TestSignedInUsersManageTheirOwnTokens(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	p := startProvider(t)
	data, admin := administer(t)
	flags := []string{"--oidc-issuer", p.issuer, "--oidc-audience", providerAudience}
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
	alice := p.jwt(t, "alice", nil)
	ownTokens(t, d, a, alice)
	othersTokens(t, d, a, alice)

	// What the provider's own endpoint gives out works as what was made up for the test.
	d.call(t, http.MethodPost, "/v1/users/me/tokens", p.granted(t), `{"name": "n", "scopes": ["reports.read"]}`).
		want(t, "the provider's own token", 200, `"user":"web"`)

	now := time.Now().Unix()
	for what, changed := range map[string]map[string]any{
		"wrong audience": {"aud": "https://other.example"}, "expired": {"exp": now - 60}, "another issuer": {"iss": "https://other.example"},
		"no expiry": {"exp": nil}, "from the future": {"nbf": now + 600}, "no user": {"sub": ""},
	} {
		refused := d.call(t, http.MethodGet, "/v1/users/me/tokens", p.jwt(t, "alice", changed), "").
			want(t, what, 401, "CREDENTIAL_INVALID")
		if got := refused.header.Get("WWW-Authenticate"); !strings.HasPrefix(got, "Bearer") {
			t.Errorf("%s: WWW-Authenticate is %q", what, got)
		}
	}

	p.post(t, "/test/rotate", "application/json", "{}")
	d.call(t, http.MethodGet, "/v1/users/me/tokens", p.jwt(t, "alice", nil), "").want(t, "under the new key", 200)
	d.call(t, http.MethodGet, "/v1/users/me/tokens", alice, "").
		want(t, "under the key that is gone", 401, "CREDENTIAL_INVALID")

	// A provider that is gone is no bad token: a patd that has its keys goes on, one that has not cannot tell.
	last := p.jwt(t, "alice", nil)
	p.stop()
	d.call(t, http.MethodGet, "/v1/users/me/tokens", last, "").want(t, "the provider is gone", 200)
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(d.log.String(), alice) || strings.Contains(d.log.String(), last) {
		t.Error("a JWT stands in the log")
	}
	d = serve(t, data, flags...)
	d.call(t, http.MethodGet, "/v1/users/me/tokens", last, "").
		want(t, "the provider was never there", 503, "SIGNIN_UNAVAILABLE")
	if err := d.stop(); err != nil {
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
	p := startProvider(t)
	data, admin := administer(t)
	d := serve(
		t,
		data,
		"--oidc-issuer",
		p.issuer,
		"--oidc-audience",
		providerAudience,
		"--features-source",
		"claim",
		"--oidc-features-claim",
		"features",
	)
	a := connect(t, d, admin)
	alice := p.jwt(t, "alice", map[string]any{"features": []string{"reports.read", "reports.write"}})
	minted := d.call(t, http.MethodPost, "/v1/users/me/tokens", alice, `{"name": "n", "scopes": ["reports.read"]}`).
		want(t, "mint", 200)
	d.call(t, http.MethodPost, "/v1/users/me/tokens", alice, `{"name": "m", "scopes": ["billing.read"]}`).
		want(t, "mint what the claim does not name", 400, "SCOPE_NOT_HELD")
	d.call(t, http.MethodGet, "/v1/users/me/features", alice, "").want(t, "features", 200, "reports.write")
	for what, claim := range map[string]any{"no features": []string{}, "no claim": nil} {
		jwt := p.jwt(t, "alice", map[string]any{"features": claim})
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
	if err := d.stop(); err != nil {
		t.Error(err)
	}
}
