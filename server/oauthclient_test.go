package server_test

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"patd/server"
	"patd/tokens"
)

// everyByteEncoded is every byte of a text in percent-encoding, as a client may write it that encodes more than it
// must.
func everyByteEncoded(s string) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	for i := range len(s) {
		b.Write([]byte{'%', digits[s[i]>>4], digits[s[i]&15]})
	}
	return b.String()
}

// TestClientsAuthenticateInEveryWay drives introspection, which needs a client.
func TestClientsAuthenticateInEveryWay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, secret := r.mint("u1", "a")
	gate := r.service("gate.way-1_x", "introspect")
	const name = "gate.way-1_x"
	bearer := []string{"Authorization", "Bearer " + gate}
	none := []string(nil)
	for _, c := range []struct {
		what    string
		headers []string
		form    []string
	}{
		{"Basic", basic(name, gate), nil},
		{"Basic, form-encoded", basic(url.QueryEscape(name), url.QueryEscape(gate)), nil},
		{"Basic, all of it encoded", basic(everyByteEncoded(name), everyByteEncoded(gate)), nil},
		{"Basic in small letters", []string{"Authorization", "basic " + strings.TrimPrefix(basic(name, gate)[1], "Basic ")}, nil},
		{"Basic, and the name again", basic(name, gate), []string{"client_id", name}},
		{"the form", none, []string{"client_id", name, "client_secret", gate}},
		{"Bearer", bearer, nil},
		{"bearer in small letters", []string{"Authorization", "bearer " + gate}, nil},
		{"Bearer, and the name", bearer, []string{"client_id", name}},
		{"Basic, and an empty secret", basic(name, gate), []string{"client_secret", ""}},
	} {
		if got := r.oauth(
			"/oauth2/introspect",
			formOf(append(c.form, "token", secret)...),
			c.headers...); got.code != 200 ||
			got.json["active"] != true {
			t.Errorf("%s: %d %s", c.what, got.code, got.body)
		}
	}
	if found := r.logs.find(
		map[string]any{"method": "oauth2.introspect", "code": "OK", "actor": "service:" + name, "peer": "127.0.0.1"},
	); len(found) != 10 ||
		found[0]["token_id"] == nil {
		t.Errorf("the calls are not in the log: %s", r.logs.String())
	}
}

// TestBadClientsAreRefused looks at the status, the error and the challenge.
func TestBadClientsAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, secret := r.mint("u1", "a")
	gate, other := r.service("gate", "introspect"), r.service("other", "audit")
	bearer := func(s string) []string { return []string{"Authorization", "Bearer " + s} }
	const (
		anyOf     = `Basic realm="patd", charset="UTF-8"|Bearer realm="patd"`
		basicOnly = `Basic realm="patd", charset="UTF-8"`
		invalid   = `Bearer realm="patd", error="invalid_token"`
	)
	for _, c := range []struct {
		what      string
		headers   []string
		form      []string
		code      int
		error     string
		challenge string
	}{
		{"nobody", nil, nil, 401, "invalid_client", anyOf},
		{"a name without a secret", nil, []string{"client_id", "gate"}, 401, "invalid_client", anyOf},
		{"a wrong secret", nil, []string{"client_id", "gate", "client_secret", gate + "x"}, 401, "invalid_client", anyOf},
		{"another's secret", nil, []string{"client_id", "gate", "client_secret", other}, 401, "invalid_client", anyOf},
		{"a token's secret", nil, []string{"client_id", "gate", "client_secret", secret}, 401, "invalid_client", anyOf},
		{"Basic, a wrong secret", basic("gate", "x"), nil, 401, "invalid_client", basicOnly},
		{"Basic, another's", basic("gate", other), nil, 401, "invalid_client", basicOnly},
		{"Basic, in other letters", basic("GATE", gate), nil, 401, "invalid_client", basicOnly},
		{"Basic, no name", basic("", gate), nil, 401, "invalid_client", basicOnly},
		{"Basic, no secret", basic("gate", ""), nil, 401, "invalid_client", basicOnly},
		{"Basic, no colon", []string{"Authorization", "Basic Z2F0ZQ=="}, nil, 401, "invalid_client", basicOnly},
		{"Basic, no base64", []string{"Authorization", "Basic ###"}, nil, 401, "invalid_client", basicOnly},
		{"Basic, bad encoding", basic("gate", "%zz"), nil, 401, "invalid_client", basicOnly},
		{"Basic, nothing", []string{"Authorization", "Basic"}, nil, 401, "invalid_client", basicOnly},
		{"Bearer, a wrong secret", bearer("x"), nil, 401, "invalid_client", invalid},
		{"Bearer, nothing", []string{"Authorization", "Bearer "}, nil, 401, "invalid_client", invalid},
		{"Bearer, a token's", bearer(secret), nil, 401, "invalid_client", invalid},
		{"Bearer, a signed-in user's", bearer(r.idp.jwt(t, "alice")), nil, 401, "invalid_client", invalid},
		{"another scheme", []string{"Authorization", "Digest " + gate}, nil, 401, "invalid_client", anyOf},
		{"no permission", basic("other", other), nil, 403, "insufficient_scope", ""},
		{"no permission, by the form", nil, []string{"client_id", "other", "client_secret", other}, 403, "insufficient_scope", ""},
		{"no permission, by Bearer", bearer(other), nil, 403, "insufficient_scope", `Bearer realm="patd", error="insufficient_scope", scope="introspect"`},
		{"two headers", append(basic("gate", gate), basic("gate", gate)...), nil, 400, "invalid_request", ""},
		{"Basic and the form", basic("gate", gate), []string{"client_id", "gate", "client_secret", gate}, 400, "invalid_request", ""},
		{"Bearer and the form", bearer(gate), []string{"client_secret", gate}, 400, "invalid_request", ""},
		{"Basic and another name", basic("gate", gate), []string{"client_id", "other"}, 400, "invalid_request", ""},
		{"Bearer and another name", bearer(gate), []string{"client_id", "other"}, 400, "invalid_request", ""},
		{"a secret without a name", nil, []string{"client_secret", gate}, 400, "invalid_request", ""},
		{"a secret for a name", nil, []string{"client_id", gate}, 400, "invalid_request", ""},
		{"a long name", nil, []string{"client_id", strings.Repeat("x", 256)}, 400, "invalid_request", ""},
		{"a name that is no text", nil, []string{"client_id", "a\x00b"}, 400, "invalid_request", ""},
		{"a name twice", nil, []string{"client_id", "gate", "client_id", "gate", "client_secret", gate}, 400, "invalid_request", ""},
	} {
		for _, path := range []string{"/oauth2/introspect", "/oauth2/revoke", "/oauth2/token"} {
			form := formOf(
				append(
					c.form,
					"token",
					"garbage",
					"grant_type",
					grantExchange,
					"subject_token",
					"x",
					"subject_token_type",
					typeAccess,
				)...)
			got := r.oauth(path, form, c.headers...)
			if challenge := undescribed(
				strings.Join(got.header.Values("WWW-Authenticate"), "|"),
			); path == "/oauth2/introspect" &&
				challenge != c.challenge {
				t.Errorf("%s: the challenge is %q, want %q", c.what, challenge, c.challenge)
			}
			switch {
			case path == "/oauth2/introspect",
				c.code == 400,
				strings.Contains(c.challenge, "error") && c.code == 401,
				c.challenge == basicOnly:
				got.want(t, c.what+" at "+path, c.code, c.error)
			case c.code == 403,
				strings.HasPrefix(c.what, "n"),
				strings.HasPrefix(c.what, "a name"): // who need not show anything
				if got.code == 401 || got.code == 403 {
					t.Errorf("%s at %s: %d %s", c.what, path, got.code, got.body)
				}
			default:
				got.want(t, c.what+" at "+path, c.code, c.error)
			}
		}
	}
}

// TestPresentedTokensAreNoFailuresOfTheGateway floods introspection with garbage behind a good credential, and then
// runs into the limit with bad credentials of its own.
func TestPresentedTokensAreNoFailuresOfTheGateway(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.FailureRate, c.FailureBurst = 1, 3 })
	_, secret := r.mint("u1", "a")
	for range 10 {
		wantInactive(t, "garbage", r.lookAt("garbage"))
		r.oauth("/oauth2/introspect", formOf("token", "x")).want(t, "nobody", 401, "invalid_client")
	}
	for range 3 {
		r.oauth("/oauth2/introspect", formOf("token", "x"), basic("admin", "x")...).
			want(t, "a bad caller", 401, "invalid_client")
	}
	got := r.oauth("/oauth2/introspect", formOf("token", secret), basic("admin", "x")...)
	if got.want(t, "past the limit", 429, "temporarily_unavailable"); got.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After is %q", got.header.Get("Retry-After"))
	}
	if got := r.lookAt(secret); got.json["active"] != true {
		t.Errorf("a good client at the same address: %d %s", got.code, got.body)
	}
	wantMetric(t, r, `patd_rate_limited_total{limit="authentication"} 1`)
	wantMetric(t, r, `patd_calls_total{code="RESOURCE_EXHAUSTED",method="oauth2.introspect"} 1`)
	wantMetric(t, r, `patd_calls_total{code="OK",method="oauth2.introspect"} 11`)
}

// TestBadSubjectsAreFailuresOfTheirBearer runs into the limit at the token endpoint and where a bearer revokes: there
// what is presented is the caller's own.
func TestBadSubjectsAreFailuresOfTheirBearer(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.FailureRate, c.FailureBurst = 1, 4 })
	_, secret := r.mint("u1", "a")
	for range 2 {
		r.exchange("garbage").want(t, "a bad subject", 400, "invalid_request")
		r.refresh("garbage").want(t, "a bad refresh token", 400, "invalid_grant")
	}
	r.exchange("garbage").want(t, "past the limit", 429, "temporarily_unavailable")
	r.refresh("garbage").want(t, "past the limit", 429, "temporarily_unavailable")
	if got := r.exchange(secret); got.code != 200 {
		t.Errorf("a good subject at the same address: %d %s", got.code, got.body)
	}
	r.oauth("/oauth2/revoke", formOf("token", "garbage")).want(t, "past the limit", 429, "temporarily_unavailable")
	if got := r.oauth("/oauth2/revoke", formOf("token", secret)); got.code != 200 {
		t.Errorf("the bearer of a live secret revokes it: %d %s", got.code, got.body)
	}
}

// TestExchangesAreLimitedPerToken makes more exchanges than a token has, and no more of them for knowing its id.
func TestExchangesAreLimitedPerToken(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, secret := r.pat(tokens.MintRequest{User: "u1", Name: "a"}, "x")
	_, other := r.pat(tokens.MintRequest{User: "u1", Name: "b"}, "x")
	for range 200 {
		r.exchange(secret[:len(secret)-1]+"!").want(t, "a wrong one", 400, "invalid_request")
	}
	for i := range 100 {
		if got := r.exchange(secret); got.code != 200 {
			t.Fatalf("exchange %d: %d %s", i, got.code, got.body)
		}
	}
	got := r.exchange(secret)
	if got.want(
		t,
		"past the limit",
		http.StatusTooManyRequests,
		"temporarily_unavailable",
	); got.header.Get(
		"Retry-After",
	) != "1" {
		t.Errorf("Retry-After is %q", got.header.Get("Retry-After"))
	}
	if got := r.exchange(other); got.code != 200 {
		t.Errorf("another token is limited with the first: %d %s", got.code, got.body)
	}
	wantMetric(t, r, `patd_rate_limited_total{limit="exchange"} 1`)
}

// TestForwardedClientsAreThemselves has one proxy in front of clients: a token bound to networks is exchanged from
// there alone, and who shows bad tokens is limited by itself.
func TestForwardedClientsAreThemselves(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		c.FailureRate, c.FailureBurst = 1, 2
	})
	_, secret := r.pat(tokens.MintRequest{User: "u1", Name: "a", CIDRs: []string{"192.0.2.0/24"}}, "x")
	exchange := func(subject string, headers ...string) oauthAnswer {
		return r.oauth(
			atToken,
			formOf("grant_type", grantExchange, "subject_token", subject, "subject_token_type", typeAccess),
			headers...)
	}
	for range 5 { // the proxy's own address stands for callers whom it does not name
		exchange("garbage").want(t, "from nowhere", 400, "invalid_request")
	}
	for range 5 { // the secret is right: that is no guess
		exchange(secret, "X-Forwarded-For", "198.51.100.1").want(t, "from elsewhere", 400, "invalid_request")
	}
	for range 2 {
		exchange("garbage", "X-Forwarded-For", "198.51.100.1").want(t, "a bad one", 400, "invalid_request")
	}
	exchange("garbage", "X-Forwarded-For", "198.51.100.1").want(t, "past the limit", 429, "temporarily_unavailable")
	exchange(
		"garbage",
		"X-Forwarded-For",
		"192.0.2.7, 198.51.100.1",
	).want(t, "with an address that somebody else wrote", 429, "temporarily_unavailable")
	got := exchange(secret, "X-Forwarded-For", "192.0.2.7")
	if got.code != 200 {
		t.Fatalf("from where it may: %d %s", got.code, got.body)
	}
	wantInactive(t, "from elsewhere", r.lookAt(got.text("access_token"), "client_ip", "198.51.100.1"))
	if seen := r.lookAt(got.text("access_token"), "client_ip", "192.0.2.8"); seen.json["active"] != true {
		t.Errorf("from where it may: %s", seen.body)
	}
}
