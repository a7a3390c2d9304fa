package server_test

import (
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"patd/server"
	"patd/store/storetest"
	"patd/tokens"
	"patd/tokens/secret"
)

// TestExchangeGivesAShorterNarrowerToken goes through the life of an opaque access token.
func TestExchangeGivesAShorterNarrowerToken(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.audience(tokens.AudienceEntry{ID: "api", Resource: "https://api.example/v1", AccessTTL: time.Hour})
	pat, secret := r.pat(tokens.MintRequest{User: "u1", Name: "a", Audiences: []string{"api", "other"}}, "a", "b", "c")
	got := r.exchange(secret, "scope", "c a", "audience", "api", "client_id", "my app")
	access := got.text("access_token")
	want := map[string]any{
		"access_token":      access,
		"issued_token_type": typeAccess,
		"token_type":        "Bearer",
		"expires_in":        3600.0,
		"scope":             "a c",
	}
	if diff := cmp.Diff(want, got.json); diff != "" || got.code != 200 || !strings.HasPrefix(access, "pata_") {
		t.Fatalf("%d %s", got.code, diff)
	}
	seen := r.lookAt(access)
	id, now := seen.text("jti"), float64(r.now().UTC().Truncate(time.Microsecond).Unix())
	want = map[string]any{
		"active":     true,
		"scope":      "a c",
		"client_id":  "my app",
		"username":   "u1",
		"sub":        "u1",
		"token_type": "Bearer",
		"aud":        "api",
		"iat":        now,
		"nbf":        now,
		"exp":        now + 3600,
		"iss":        r.srv.Issuer(),
		"jti":        id,
	}
	if diff := cmp.Diff(want, seen.json); diff != "" || id == pat.ID.String() || len(id) != 11 {
		t.Errorf("introspection: %s", diff)
	}
	all := r.exchange(secret)
	if all.text("scope") != "a b c" {
		t.Errorf("without a scope: %d %s", all.code, all.body)
	}
	if seen := r.lookAt(
		all.text("access_token"),
	); seen.text("client_id") != pat.ID.String() ||
		!cmp.Equal(seen.json["aud"], []any{"api", "other"}) {
		t.Errorf("of a client without a name: %s", seen.body)
	}
	if got := r.exchange(
		secret,
		"resource",
		"https://api.example/v1",
		"scope",
		"b",
		"requested_token_type",
		typeAccess,
	); got.code != 200 ||
		r.lookAt(got.text("access_token")).text("aud") != "api" {
		t.Errorf("by resource: %d %s", got.code, got.body)
	}
	r.features("u1", "c")
	if seen := r.lookAt(access); seen.text("scope") != "c" {
		t.Errorf("after a feature was lost: %s", seen.body)
	}
	if got := r.rest("DELETE", "/v1/users/u1/tokens/"+pat.ID.String(), r.admin, ""); got.code != 200 {
		t.Fatal(got.body)
	}
	wantInactive(t, "after its token was revoked", r.lookAt(access))
	r.exchange(secret).want(t, "a revoked token", 400, "invalid_request")
	if found := r.logs.find(
		map[string]any{
			"method":   "oauth2.token",
			"code":     "OK",
			"actor":    "token:" + pat.ID.String(),
			"token_id": pat.ID.String(),
		},
	); len(
		found,
	) != 3 {
		t.Errorf("%d exchanges are in the log: %s", len(found), r.logs.String())
	}
}

func TestRevokingAnAccessTokenEndsIt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, secret := r.pat(tokens.MintRequest{User: "u1", Name: "a"}, "a")
	one, two := r.exchange(secret).text("access_token"), r.exchange(secret).text("access_token")
	if got := r.oauth("/oauth2/revoke", formOf("token", one)); got.code != 200 {
		t.Errorf("%d %s", got.code, got.body)
	}
	wantInactive(t, "the revoked one", r.lookAt(one))
	for _, live := range []string{two, secret} {
		if got := r.lookAt(live); got.json["active"] != true {
			t.Errorf("another: %s", got.body)
		}
	}
}

// TestJWTsFollowRFC9068 verifies one as a resource server would: by the published keys.
func TestJWTsFollowRFC9068(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.Issuer = "https://patd.example/" })
	r.wait(r.now().Truncate(time.Second).Add(time.Second).Sub(r.now())) // a JWT's times are whole seconds
	r.audience(tokens.AudienceEntry{ID: "jwt", AccessFormat: tokens.AccessJWT, AccessTTL: 5 * time.Minute})
	pat, secret := r.pat(tokens.MintRequest{User: "u1", Name: "a", Audiences: []string{"jwt"}}, "a", "b")
	for _, c := range []struct{ requested, issued, client string }{{"", typeAccess, ""}, {typeAccess, typeAccess, "app"}, {typeJWT, typeJWT, "app"}} {
		more := []string{"scope", "a"}
		if c.requested != "" {
			more = append(more, "requested_token_type", c.requested)
		}
		if c.client != "" {
			more = append(more, "client_id", c.client)
		}
		got := r.exchange(secret, more...)
		if got.code != 200 || got.text("issued_token_type") != c.issued || got.json["expires_in"] != 300.0 ||
			got.text("refresh_token") != "" {
			t.Fatalf("%v: %d %s", c, got.code, got.body)
		}
		header, claims := r.verify(t, got.text("access_token"))
		if header.ExtraHeaders["typ"] != "at+jwt" || header.Algorithm != "ES256" || header.JSONWebKey != nil {
			t.Errorf("the header: %v", header)
		}
		client := c.client
		if client == "" {
			client = pat.ID.String()
		}
		id, _ := claims["jti"].(string)
		now := float64(r.now().UTC().Truncate(time.Microsecond).Unix())
		want := map[string]any{
			"iss":       "https://patd.example/",
			"sub":       "u1",
			"aud":       "jwt",
			"iat":       now,
			"exp":       now + 300,
			"jti":       id,
			"client_id": client,
			"scope":     "a",
		}
		if diff := cmp.Diff(want, claims); diff != "" || len(id) != 11 {
			t.Errorf("the claims: %s", diff)
		}
		wantInactive(t, "a JWT", r.lookAt(got.text("access_token")))
	}
	_, opaque := r.pat(tokens.MintRequest{User: "u1", Name: "b"}, "a", "b")
	r.exchange(opaque, "requested_token_type", typeJWT).want(t, "a JWT for no audience", 400, "invalid_request")
}

// TestWhatIsNotHandedOutIsNotMade asks for a JWT where there is none, with and without a refresh token.
func TestWhatIsNotHandedOutIsNotMade(t *testing.T) {
	t.Parallel()
	r, pat, secret := offline(t)
	for _, scope := range []string{"a", "a offline_access"} {
		r.exchange(secret, "scope", scope, "requested_token_type", typeJWT).want(t, scope, 400, "invalid_request")
		got := r.rest("GET", "/v1/events?token_id="+pat.ID.String(), r.admin, "")
		if strings.Contains(got.body, string(tokens.ActionTokenExchange)) {
			t.Errorf("%s: something was made: %s", scope, got.body)
		}
	}
}

// verify checks a JWT's signature by the published keys, of which exactly one must have its id.
func (r *rig) verify(t *testing.T, jwt string) (jose.Header, map[string]any) {
	t.Helper()
	published := r.rest("GET", "/.well-known/jwks.json", "", "")
	var set jose.JSONWebKeySet
	must(t, json.Unmarshal([]byte(published.body), &set))
	if published.code != 200 || published.header.Get("Cache-Control") != "public, max-age=300" || len(set.Keys) == 0 ||
		strings.Contains(published.body, `"d"`) {
		t.Fatalf("%d %v %s", published.code, published.header, published.body)
	}
	for _, k := range set.Keys {
		sum, err := k.Thumbprint(crypto.SHA256)
		must(t, err)
		if !k.IsPublic() || !k.Valid() || k.Use != "sig" || k.Algorithm != "ES256" ||
			k.KeyID != base64.RawURLEncoding.EncodeToString(sum) {
			t.Errorf("a key: %+v", k)
		}
	}
	signed, err := jose.ParseSignedCompact(jwt, []jose.SignatureAlgorithm{jose.ES256})
	must(t, err)
	header := signed.Signatures[0].Header
	keys := set.Key(header.KeyID)
	if len(keys) != 1 {
		t.Fatalf("%d keys of id %q", len(keys), header.KeyID)
	}
	text, err := signed.Verify(keys[0])
	must(t, err)
	var claims map[string]any
	must(t, json.Unmarshal(text, &claims))
	return header, claims
}

// TestKeysOfOlderJWTsStayPublished rotates the digest keys, from which the signing keys come.
func TestKeysOfOlderJWTsStayPublished(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.audience(tokens.AudienceEntry{ID: "jwt", AccessFormat: tokens.AccessJWT})
	_, s := r.pat(tokens.MintRequest{User: "u1", Name: "a", Audiences: []string{"jwt"}}, "a")
	before := r.exchange(s).text("access_token")
	both, err := secret.ParseKeys("k2:" + strings.Repeat("ab", 32) + "\n" + keyLine)
	must(t, err)
	r.keys.Set(both)
	after := r.exchange(s).text("access_token")
	old, _ := r.verify(t, before)
	current, _ := r.verify(t, after)
	if old.KeyID == current.KeyID {
		t.Error("the key was not rotated")
	}
}

// offline is a rig with an audience that allows refresh tokens, and a token for it.
func offline(t *testing.T, change ...func(*server.Config)) (r *rig, pat tokens.Token, secret string) {
	r = newRig(t, change...)
	r.audience(tokens.AudienceEntry{ID: "off", AllowOffline: true, AccessTTL: time.Hour})
	pat, secret = r.pat(tokens.MintRequest{User: "u1", Name: "a", Audiences: []string{"off"}}, "a", "b")
	return r, pat, secret
}

// TestRefreshTokensRotate uses each of a family once, and then an old one again.
func TestRefreshTokensRotate(t *testing.T) {
	t.Parallel()
	r, _, secret := offline(t)
	if got := r.exchange(secret); got.json["refresh_token"] != nil {
		t.Errorf("nobody asked for it: %s", got.body)
	}
	got := r.exchange(secret, "scope", "offline_access a b", "client_id", "app")
	if got.text("scope") != "a b" || !strings.HasPrefix(got.text("refresh_token"), "patr_") {
		t.Fatalf("%d %s", got.code, got.body)
	}
	used := []string{got.text("refresh_token")}
	access := []string{got.text("access_token")}
	wantInactive(t, "a refresh token", r.lookAt(used[0]))
	for i := range 3 {
		got = r.refresh(used[i], "client_id", "app", "scope", "offline_access b")
		want := map[string]any{
			"access_token": got.text(
				"access_token",
			),
			"token_type":    "Bearer",
			"expires_in":    3600.0,
			"scope":         "b",
			"refresh_token": got.text("refresh_token"),
		}
		if diff := cmp.Diff(want, got.json); diff != "" || slices.Contains(used, got.text("refresh_token")) {
			t.Fatalf("refresh %d: %d %s", i, got.code, diff)
		}
		used, access = append(used, got.text("refresh_token")), append(access, got.text("access_token"))
	}
	for _, a := range access {
		if seen := r.lookAt(a); seen.json["active"] != true || seen.text("client_id") != "app" {
			t.Errorf("an access token: %s", seen.body)
		}
	}
	r.refresh(used[3], "client_id", "other").want(t, "another client", 400, "invalid_grant")
	r.refresh(used[3]).want(t, "a client without a name", 400, "invalid_grant")
	r.refresh(used[3], "client_id", "app", "scope", "c").want(t, "more than was granted", 400, "invalid_scope")
	r.refresh(used[3], "client_id", "app", "audience", "elsewhere").want(t, "for elsewhere", 400, "invalid_target")
	if got := r.refresh(used[3], "client_id", "app"); got.code != 200 || got.text("scope") != "a b" {
		t.Errorf("a refused refresh used the token up: %d %s", got.code, got.body)
	}
	r.refresh(used[1], "client_id", "app").want(t, "an old one again", 400, "invalid_grant")
	for _, a := range access {
		wantInactive(t, "of a family that ended", r.lookAt(a))
	}
	r.refresh(used[3], "client_id", "app").want(t, "of a family that ended", 400, "invalid_grant")
	if got := r.lookAt(secret); got.json["active"] != true {
		t.Errorf("the personal access token ended too: %s", got.body)
	}
}

func TestRevokingARefreshTokenEndsItsFamily(t *testing.T) {
	t.Parallel()
	r, _, secret := offline(t)
	got := r.exchange(secret, "scope", "offline_access")
	if got.text("scope") != "a b" {
		t.Errorf("%d %s", got.code, got.body)
	}
	if got := r.oauth("/oauth2/revoke", formOf("token", got.text("refresh_token"))); got.code != 200 {
		t.Errorf("%d %s", got.code, got.body)
	}
	wantInactive(t, "the access token", r.lookAt(got.text("access_token")))
	r.refresh(got.text("refresh_token")).want(t, "the refresh token", 400, "invalid_grant")
}

// TestAnAuthenticatedClientStaysOne binds a family to a service.
func TestAnAuthenticatedClientStaysOne(t *testing.T) {
	t.Parallel()
	r, _, secret := offline(t)
	app := r.service("app", "audit")
	form := formOf(
		"grant_type",
		grantExchange,
		"subject_token",
		secret,
		"subject_token_type",
		typeAccess,
		"scope",
		"offline_access",
	)
	got := r.oauth("/oauth2/token", form, basic("app", app)...)
	token := got.text("refresh_token")
	if got.code != 200 || r.lookAt(got.text("access_token")).text("client_id") != "app" {
		t.Fatalf("%d %s", got.code, got.body)
	}
	r.refresh(token, "client_id", "app").want(t, "by the name alone", 400, "invalid_grant")
	r.refresh(token, "client_id", "app", "client_secret", "x").want(t, "with a wrong secret", 401, "invalid_client")
	if got := r.refresh(token, "client_id", "app", "client_secret", app); got.code != 200 {
		t.Errorf("%d %s", got.code, got.body)
	}
}

// TestOutageGrantsNothing takes the store away at each of its calls, and at the commit.
func TestOutageGrantsNothing(t *testing.T) {
	t.Parallel()
	r, pat, secret := offline(t)
	token := r.exchange(secret, "scope", "offline_access").text("refresh_token")
	for _, fault := range []error{storetest.Outage(), storetest.Full()} {
		for _, op := range []storetest.Op{"", storetest.OpCommit} {
			if op == "" {
				r.faulty.Fail(fault)
			} else {
				r.faulty.FailOp(op, fault)
			}
			for what, got := range map[string]oauthAnswer{
				"exchange": r.exchange(secret), "exchange, offline": r.exchange(secret, "scope", "offline_access"), "refresh": r.refresh(token),
				"revoke": r.oauth("/oauth2/revoke", formOf("token", secret)), "revoke the family": r.oauth("/oauth2/revoke", formOf("token", token)),
			} {
				if got.want(
					t,
					what+" without "+string(op),
					503,
					"temporarily_unavailable",
				); got.header.Get(
					"Retry-After",
				) == "" {
					t.Errorf("%s without %s: no Retry-After", what, op)
				}
			}
			r.faulty.Fail(nil)
		}
	}
	if got := r.refresh(token); got.code != 200 {
		t.Errorf("an outage used the refresh token up: %d %s", got.code, got.body)
	}
	_, err := r.svc.Revoke(context.Background(), tokens.Operator(), "u1", pat.ID.String(), "")
	must(t, err)
	r.exchange(secret).want(t, "afterwards", http.StatusBadRequest, "invalid_request")
}

func TestThereAreNoClientCredentials(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	got := r.rest(
		"POST",
		"/oauth2/token",
		r.admin,
		"grant_type=client_credentials&scope=reports.read",
		"Content-Type",
		"application/x-www-form-urlencoded",
	)
	if got.code != 400 || !strings.Contains(got.body, `"error":"unsupported_grant_type"`) ||
		!strings.Contains(got.body, "docs/oauth.md") {
		t.Errorf("%d %s", got.code, got.body)
	}
	if meta := r.rest(
		"GET",
		"/.well-known/oauth-authorization-server",
		"",
		"",
	).body; strings.Contains(
		meta,
		"client_credentials",
	) {
		t.Errorf("the metadata offers them: %s", meta)
	}
}
