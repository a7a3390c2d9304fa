package server_test

import (
	"strings"
	"testing"

	"patd/tokens"
)

// oauthCase is a request to an OAuth endpoint and the error it ends in.
type oauthCase struct {
	what string
	path string
	form []string // name, value, …
	code int
	name string
}

const (
	atIntrospect = "/oauth2/introspect"
	atRevoke     = "/oauth2/revoke"
	atToken      = "/oauth2/token"
)

// TestEveryErrorOfTheRFCs has a case at least for each error of RFC 6749 section 5.2, RFC 7662 section 2.3, RFC 7009
// section 2.2.1, RFC 8693 section 2.2.2 and RFC 8707 section 2 that can be. unauthorized_client cannot: every client
// may use every grant.
func TestEveryErrorOfTheRFCs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.audience(tokens.AudienceEntry{ID: "on", Resource: "https://on.example"})
	r.audience(tokens.AudienceEntry{ID: "off", AllowOffline: true})
	r.audience(tokens.AudienceEntry{ID: "jwt", AccessFormat: tokens.AccessJWT})
	_, pat := r.pat(tokens.MintRequest{User: "u1", Name: "a"}, "a", "b")
	_, on := r.pat(tokens.MintRequest{User: "u1", Name: "on", Audiences: []string{"on"}}, "a", "b")
	_, bound := r.pat(tokens.MintRequest{User: "u1", Name: "bound", CIDRs: []string{"192.0.2.0/24"}}, "a", "b")
	_, boundJWT := r.pat(
		tokens.MintRequest{User: "u1", Name: "jwt", Audiences: []string{"jwt"}, CIDRs: []string{"127.0.0.0/8"}},
		"a",
		"b",
	)
	_, bare := r.pat(tokens.MintRequest{User: "bare", Name: "bare"}, "a")
	r.features("bare")
	access, jwt := r.exchange(pat).text("access_token"), r.exchange(pat, "audience", "jwt").text("access_token")
	exchange := func(subject string, more ...string) []string {
		return append(
			[]string{"grant_type", grantExchange, "subject_token", subject, "subject_token_type", typeAccess},
			more...)
	}
	refresh := func(more ...string) []string { return append([]string{"grant_type", "refresh_token"}, more...) }
	long := strings.Repeat("x", 1<<20)
	for _, c := range []oauthCase{
		// RFC 6749 section 5.2: invalid_request.
		{"no grant_type", atToken, []string{"scope", "a"}, 400, "invalid_request"},
		{"an empty grant_type", atToken, []string{"grant_type", ""}, 400, "invalid_request"},
		{"grant_type twice", atToken, exchange(pat, "grant_type", grantExchange), 400, "invalid_request"},
		{"scope twice", atToken, exchange(pat, "scope", "a", "scope", "a"), 400, "invalid_request"},
		{"an unknown parameter twice", atToken, exchange(pat, "x", "1", "x", "2"), 400, "invalid_request"},
		{"no refresh_token", atToken, refresh(), 400, "invalid_request"},
		{"a body over the limit", atToken, exchange(pat, "x", long), 413, "invalid_request"},
		// invalid_client, see also TestBadClientsAreRefused.
		{"a bad client", atToken, exchange(pat, "client_id", "admin", "client_secret", "x"), 401, "invalid_client"},
		{"a bad client, refreshing", atToken, refresh("refresh_token", "x", "client_id", "admin", "client_secret", "x"), 401, "invalid_client"},
		// invalid_grant.
		{"a bad refresh token", atToken, refresh("refresh_token", "x"), 400, "invalid_grant"},
		{"another kind of token", atToken, refresh("refresh_token", pat), 400, "invalid_grant"},
		{"an access token as refresh token", atToken, refresh("refresh_token", access), 400, "invalid_grant"},
		// unsupported_grant_type.
		{"client_credentials", atToken, []string{"grant_type", "client_credentials"}, 400, "unsupported_grant_type"},
		{"authorization_code", atToken, []string{"grant_type", "authorization_code", "code", "x"}, 400, "unsupported_grant_type"},
		{"password", atToken, []string{"grant_type", "password", "username", "u1", "password", "x"}, 400, "unsupported_grant_type"},
		{"a grant in capitals", atToken, []string{"grant_type", "REFRESH_TOKEN"}, 400, "unsupported_grant_type"},
		// invalid_scope.
		{"a scope that was not granted", atToken, exchange(pat, "scope", "a c"), 400, "invalid_scope"},
		{"two spaces", atToken, exchange(pat, "scope", "a  b"), 400, "invalid_scope"},
		{"a space at the end", atToken, exchange(pat, "scope", "a "), 400, "invalid_scope"},
		{"a quote", atToken, exchange(pat, "scope", `"a"`), 400, "invalid_scope"},
		{"a line break", atToken, exchange(pat, "scope", "a\nb"), 400, "invalid_scope"},
		{"too many scopes", atToken, exchange(pat, "scope", strings.TrimSuffix(strings.Repeat("s ", 1000), " ")+" t"), 400, "invalid_scope"},
		{"no scope is left", atToken, exchange(bare), 400, "invalid_scope"},
		{"offline for no audience", atToken, exchange(pat, "scope", "offline_access a"), 400, "invalid_scope"},
		{"offline where it is not allowed", atToken, exchange(on, "scope", "offline_access"), 400, "invalid_scope"},
		// RFC 8693 section 2.2.2: a bad subject is invalid_request.
		{"no subject", atToken, []string{"grant_type", grantExchange, "subject_token_type", typeAccess}, 400, "invalid_request"},
		{"no type of subject", atToken, []string{"grant_type", grantExchange, "subject_token", pat}, 400, "invalid_request"},
		{"another type of subject", atToken, []string{"grant_type", grantExchange, "subject_token", pat, "subject_token_type", typeJWT}, 400, "invalid_request"},
		{"garbage", atToken, exchange("garbage"), 400, "invalid_request"},
		{"an access token as subject", atToken, exchange(access), 400, "invalid_request"},
		{"a service's token as subject", atToken, exchange(r.admin), 400, "invalid_request"},
		{"a JWT as subject", atToken, exchange(r.idp.jwt(t, "u1")), 400, "invalid_request"},
		{"from where the token may not", atToken, exchange(bound), 400, "invalid_request"},
		{"an actor", atToken, exchange(pat, "actor_token", pat, "actor_token_type", typeAccess), 400, "invalid_request"},
		{"a type of actor", atToken, exchange(pat, "actor_token_type", typeAccess), 400, "invalid_request"},
		{"a refresh token requested", atToken, exchange(pat, "requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token"), 400, "invalid_request"},
		{"a JWT where there is none", atToken, exchange(on, "requested_token_type", typeJWT), 400, "invalid_request"},
		// RFC 8693 section 2.2.2 and RFC 8707 section 2: invalid_target.
		{"an audience that the token is not for", atToken, exchange(on, "audience", "off"), 400, "invalid_target"},
		{"an audience that is not", atToken, exchange(pat, "audience", "nowhere"), 400, "invalid_target"},
		{"one good and one bad", atToken, exchange(pat, "audience", "on", "audience", "nowhere"), 400, "invalid_target"},
		{"a resource that is not", atToken, exchange(pat, "resource", "https://nowhere.example"), 400, "invalid_target"},
		{"no text", atToken, exchange(pat, "audience", "\xff\x00"), 400, "invalid_target"},
		{"a JWT that would have to hold to networks", atToken, exchange(boundJWT), 400, "invalid_target"},
		// RFC 7662 section 2.3.
		{"no token", atIntrospect, []string{"client_id", "admin", "client_secret", r.admin}, 400, "invalid_request"},
		{"an empty token", atIntrospect, []string{"client_id", "admin", "client_secret", r.admin, "token", ""}, 400, "invalid_request"},
		{"two tokens", atIntrospect, []string{"client_id", "admin", "client_secret", r.admin, "token", "x", "token", "y"}, 400, "invalid_request"},
		{"no address", atIntrospect, []string{"client_id", "admin", "client_secret", r.admin, "token", "x", "client_ip", "x"}, 400, "invalid_request"},
		{"nobody", atIntrospect, []string{"token", pat}, 401, "invalid_client"},
		{"a bad caller", atIntrospect, []string{"client_id", "admin", "client_secret", "x", "token", pat}, 401, "invalid_client"},
		// RFC 7009 section 2.2.1.
		{"no token to revoke", atRevoke, nil, 400, "invalid_request"},
		{"two tokens to revoke", atRevoke, []string{"token", "x", "token", "y"}, 400, "invalid_request"},
		{"a JWT, which nothing ends", atRevoke, []string{"token", jwt}, 400, "unsupported_token_type"},
		{"a service's token", atRevoke, []string{"token", r.admin}, 400, "unsupported_token_type"},
		{"a bad client that revokes", atRevoke, []string{"token", pat, "client_id", "admin", "client_secret", "x"}, 401, "invalid_client"},
	} {
		r.oauth(c.path, formOf(c.form...)).want(t, c.path+", "+c.what, c.code, c.name)
	}
	if got := r.lookAt(pat); got.json["active"] != true {
		t.Errorf("a refused request had an effect: %s", got.body)
	}
}

// TestRequestsThatAreNoFormsAreRefused looks at methods, types, encodings and addresses, at every endpoint.
func TestRequestsThatAreNoFormsAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, secret := r.mint("u1", "a")
	const form = "application/x-www-form-urlencoded"
	good := formOf(
		"token",
		secret,
		"grant_type",
		grantExchange,
		"subject_token",
		secret,
		"subject_token_type",
		typeAccess,
	)
	client := basic("admin", r.admin)
	for _, path := range []string{atIntrospect, atRevoke, atToken} {
		for _, method := range []string{"GET", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"} {
			got := r.checked(path, r.rest(method, path, "", "", client...))
			if got.want(t, method+" "+path, 405, "invalid_request"); got.header.Get("Allow") != "POST" {
				t.Errorf("%s %s: Allow is %q", method, path, got.header.Get("Allow"))
			}
		}
		if got := r.rest("HEAD", path, "", "", client...); got.code != 405 || got.header.Get("Allow") != "POST" {
			t.Errorf("HEAD %s: %d", path, got.code)
		}
		for what, got := range map[string]answerOf{
			"JSON":                    r.rest("POST", path, "", `{"token":"`+secret+`"}`, append(client, "Content-Type", "application/json")...),
			"no type":                 r.rest("POST", path, "", good, client...),
			"two types":               r.rest("POST", path, "", good, append(client, "Content-Type", form, "Content-Type", form)...),
			"a multipart form":        r.rest("POST", path, "", good, append(client, "Content-Type", "multipart/form-data; boundary=x")...),
			"a broken type":           r.rest("POST", path, "", good, append(client, "Content-Type", form+"; charset")...),
			"a query":                 r.rest("POST", path+"?token="+secret, "", good, append(client, "Content-Type", form)...),
			"an empty query":          r.rest("POST", path+"?", "", good, append(client, "Content-Type", form)...),
			"a harmless query":        r.rest("POST", path+"?a=b", "", good, append(client, "Content-Type", form)...),
			"a semicolon":             r.rest("POST", path, "", good+"&a;b", append(client, "Content-Type", form)...),
			"a broken percent":        r.rest("POST", path, "", good+"&a=%zz", append(client, "Content-Type", form)...),
			"a name of a secret":      r.rest("POST", path, "", good+"&"+secret+"=1&"+secret+"=2", append(client, "Content-Type", form)...),
			"JSON with the form type": r.rest("POST", path, "", `{"token":"`+secret+`"}`, append(client, "Content-Type", form)...),
		} {
			a := r.checked(path, got)
			if a.want(t, path+", "+what, 400, "invalid_request"); strings.Contains(a.body, secret) {
				t.Errorf("%s, %s: the secret is repeated", path, what)
			}
		}
	}
	if got := r.lookAt(secret); got.json["active"] != true {
		t.Errorf("a refused request had an effect: %s", got.body)
	}
	for _, kind := range []string{form + "; charset=utf-8", "Application/X-WWW-Form-Urlencoded"} {
		if got := r.rest(
			"POST",
			atIntrospect,
			"",
			formOf("token", secret),
			append(client, "Content-Type", kind)...); got.code != 200 {
			t.Errorf("%s: %d %s", kind, got.code, got.body)
		}
	}
}

// TestBearerChallengesOnREST looks at RFC 6750 section 3 beside the OAuth endpoints.
func TestBearerChallengesOnREST(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, pat := r.mint("u1", "a")
	_, bound := r.pat(tokens.MintRequest{User: "u1", Name: "bound", CIDRs: []string{"192.0.2.0/24"}}, "x")
	audit, jwt := r.service("audit", "audit"), r.idp.jwt(t, "alice")
	for _, c := range []struct {
		what, verb, path, credential string
		code                         int
		challenge                    string
	}{
		{"nobody", "GET", "/v1/users", "", 401, `Bearer realm="patd"`},
		{"a bad token", "GET", "/v1/users", "x", 401, `Bearer realm="patd", error="invalid_token"`},
		{"a PAT that would manage", "GET", "/v1/users/u1/tokens", pat, 403, `Bearer realm="patd", error="insufficient_scope"`},
		{"a service without the permission", "GET", "/v1/users", audit, 403, `Bearer realm="patd", error="insufficient_scope", scope="users"`},
		{"a service that would introspect", "POST", "/v1/introspect", audit, 403, `Bearer realm="patd", error="insufficient_scope", scope="introspect"`},
		{"a user at another's", "GET", "/v1/users/u1", jwt, 403, `Bearer realm="patd", error="insufficient_scope"`},
		{"admin as a PAT", "GET", "/v1/self", r.admin, 403, `Bearer realm="patd", error="insufficient_scope"`},
		{"a PAT from elsewhere", "GET", "/v1/self", bound, 401, `Bearer realm="patd", error="invalid_token"`}, // more scope would not help
		{"what is fine", "GET", "/v1/self", pat, 200, ""},
	} {
		if got := r.rest(
			c.verb,
			c.path,
			c.credential,
			"",
		); got.code != c.code ||
			undescribed(got.header.Get("WWW-Authenticate")) != c.challenge {
			t.Errorf(
				"%s: %d, %q, want %d, %q",
				c.what,
				got.code,
				got.header.Get("WWW-Authenticate"),
				c.code,
				c.challenge,
			)
		}
	}
}
