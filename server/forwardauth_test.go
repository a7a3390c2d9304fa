package server_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/server"
	"patd/store/storetest"
	"patd/tokens"
	"patd/tokens/secret"
)

const (
	ForwardAuth = "/v1/forward-auth"
	challenged  = `Bearer realm="patd"`
)

// told are the headers that every pass has.
var told = []string{"X-Auth-User", "X-Auth-Scopes", "X-Auth-Token-Id", "X-Token-Expires-At"}

// ask is what a gateway does for its client, who shows a secret.
func (r *rig) ask(query, secret string, headers ...string) answerOf {
	r.t.Helper()
	return r.rest("GET", ForwardAuth+query, secret, "", headers...)
}

// wantPass checks a pass: no body, all four headers, each once.
func wantPass(t *testing.T, what string, got answerOf, user, scopes, id, expires string) {
	t.Helper()
	if got.code != http.StatusOK || got.body != "" || got.header.Get("Cache-Control") != "no-store" ||
		got.header.Get("WWW-Authenticate") != "" {
		t.Errorf("%s: %d %v %s, want an empty 200", what, got.code, got.header, got.body)
		return
	}
	for i, want := range []string{user, scopes, id, expires} {
		if vs := got.header.Values(told[i]); len(vs) != 1 || vs[0] != want {
			t.Errorf("%s: %s is %q, want %q", what, told[i], vs, want)
		}
	}
}

// wantNoPass checks a refusal, which tells the upstream nothing.
// undescribed returns a challenge without its description, which TestEveryEndedStateSaysWhyEverywhere compares.
func undescribed(challenge string) string {
	return regexp.MustCompile(`, error_description="[^"]*"`).ReplaceAllString(challenge, "")
}

func wantNoPass(t *testing.T, what string, got answerOf, code int, challenge string) {
	t.Helper()
	if got.code != code || undescribed(got.header.Get("WWW-Authenticate")) != challenge ||
		len(got.header.Values("WWW-Authenticate")) > 1 ||
		got.header.Get("Cache-Control") != "no-store" {
		t.Errorf(
			"%s: %d %q %s, want %d %q",
			what,
			got.code,
			got.header.Values("WWW-Authenticate"),
			got.body,
			code,
			challenge,
		)
	}
	for _, name := range told {
		if got.header.Get(name) != "" {
			t.Errorf("%s: says %s", what, name)
		}
	}
}

func TestForwardAuthTellsWhoMayPass(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	tok, secret := r.pat(tokens.MintRequest{User: "auth0|ü 1,%", Name: "n"}, "a", "b", "c")
	id, expires := tok.ID.String(), tok.ExpireTime.UTC().Format(time.RFC3339)
	const user = "auth0|%C3%BC%201%2C%25"
	for query, scopes := range map[string]string{
		"": "", "?scope=a": "a", "?scope=c+a": "c a", "?scope=c%20a&scope=b&scope=a": "c a b", "?audience=any&scope=b": "b", "?audience=any": "",
	} {
		wantPass(t, query, r.ask(query, secret), user, scopes, id, expires)
		head := r.rest("HEAD", ForwardAuth+query, secret, "")
		wantPass(t, "HEAD "+query, head, user, scopes, id, expires)
	}
	got := r.exchange(secret, "scope", "a b")
	wantPass(
		t,
		"an access token",
		r.ask("?scope=b", got.text("access_token")),
		user,
		"b",
		id,
		r.now().Add(24*time.Hour).UTC().Format(time.RFC3339),
	)
	wantNoPass(
		t,
		"a scope that the access token has not",
		r.ask("?scope=c", got.text("access_token")),
		403,
		challenged+`, error="insufficient_scope", scope="c"`,
	)

	r.audience(tokens.AudienceEntry{ID: "forever", AllowNever: true})
	never, secret := r.pat(
		tokens.MintRequest{
			User:      "bob",
			Name:      "n",
			Audiences: []string{"forever"},
			Lifetime:  tokens.Lifetime{Never: true},
		},
		"a",
	)
	wantPass(t, "a token without an end", r.ask("?audience=forever", secret), "bob", "", never.ID.String(), "")
	r.wait(10 * 365 * 24 * time.Hour)
	wantPass(t, "the same much later", r.ask("?audience=forever&scope=a", secret), "bob", "a", never.ID.String(), "")
}

// TestForwardAuthIgnoresEveryOtherHeader sends what a gateway passes on of its client's.
func TestForwardAuthIgnoresEveryOtherHeader(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	tok, secret := r.pat(tokens.MintRequest{User: "u1", Name: "n"}, "a")
	expires := tok.ExpireTime.UTC().Format(time.RFC3339)
	for _, header := range []struct{ name, value string }{
		{"If-None-Match", "*"}, {"If-Modified-Since", time.Now().UTC().Format(http.TimeFormat)}, {"If-Match", `"x"`}, {"If-Unmodified-Since", "Mon, 02 Jan 2006 15:04:05 GMT"},
		{"Range", "bytes=0-0"}, {"If-Range", `"x"`}, {"Accept", "application/xml"}, {"Accept-Encoding", "gzip"}, {"Cookie", "a=b"}, {"Origin", "https://x.example"},
		{"X-Auth-User", "root"}, {"X-Auth-Scopes", "admin"}, {"X-Auth-Token-Id", "x"}, {"X-Token-Expires-At", "never"}, {"Grpc-Timeout", "1n"}, {"Idempotency-Key", "\x80"},
		{"Grpc-Metadata-Authorization", "Bearer x"}, {"X-Forwarded-Uri", "/?scope=b"}, {"X-Original-Url", "/"}, {"X-Http-Method-Override", "POST"}, {"Content-Type", "x"},
		{"Proxy-Authorization", "Bearer x"}, {"Expect", "100-continue"}, {"X-Forwarded-For", "garbage"}, {"Upgrade", "websocket"},
	} {
		wantPass(
			t,
			header.name,
			r.ask("?scope=a", secret, header.name, header.value),
			"u1",
			"a",
			tok.ID.String(),
			expires,
		)
	}
}

func TestForwardAuthRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.audience(tokens.AudienceEntry{ID: "api", AllowOffline: true})
	r.audience(tokens.AudienceEntry{ID: "other"})
	_, good := r.mint("u1", "good")
	revoked, dead := r.mint("u1", "revoked")
	must(t, r.revoke("u1", revoked))
	_, suspended := r.mint("gone", "t")
	_, err := r.svc.SuspendUser(context.Background(), tokens.Operator(), "gone", "")
	must(t, err)
	_, bound := r.pat(tokens.MintRequest{User: "u2", Name: "n", Audiences: []string{"api"}}, "reports.read")
	_, fixed := r.pat(tokens.MintRequest{User: "u2", Name: "m", CIDRs: []string{"203.0.113.0/24"}}, "reports.read")
	family := r.exchange(bound, "scope", "offline_access", "audience", "api")
	const invalid, malformed = challenged + `, error="invalid_token"`, challenged + `, error="invalid_request"`
	for _, c := range []struct {
		what, query string
		header      []string
		code        int
		challenge   string
	}{
		{"no token", "", nil, 401, challenged}, {"no token, with a scope", "?scope=a", nil, 401, challenged}, {"an empty header", "", []string{""}, 401, challenged},
		{"another scheme", "", []string{"Basic " + good}, 401, challenged}, {"garbage", "", []string{"Bearer garbage"}, 401, invalid},
		{"too long", "", []string{"Bearer " + strings.Repeat("x", 8000)}, 401, invalid}, {"not ASCII", "", []string{"Bearer \xff\xfe"}, 401, invalid},
		{"a service's token", "", []string{"Bearer " + r.admin}, 401, invalid}, {"a refresh token", "", []string{"Bearer " + family.text("refresh_token")}, 401, invalid},
		{"a JWT", "", []string{"Bearer " + r.idp.jwt(t, "u1")}, 401, invalid}, {"revoked", "", []string{"Bearer " + dead}, 401, invalid},
		{"of a suspended user", "", []string{"Bearer " + suspended}, 401, invalid}, {"for another audience", "?audience=other", []string{"Bearer " + bound}, 401, invalid},
		{"of another network", "", []string{"Bearer " + fixed}, 401, invalid}, {"with more behind", "", []string{"Bearer " + good + "x"}, 401, invalid},
		{"two good headers", "", []string{"Bearer " + good, "Bearer " + good}, 401, malformed}, {"a good and a bad one", "", []string{"Bearer " + good, "Basic x"}, 401, malformed},
		{"two joined by a comma", "", []string{"Bearer " + good + ", Bearer " + good}, 401, malformed}, {"two in one", "", []string{"Bearer " + good + " " + good}, 401, malformed},
		{"a scope too few", "?scope=reports.read+b", []string{"Bearer " + good}, 403, challenged + `, error="insufficient_scope", scope="reports.read b"`},
		{"bad comes before scopes", "?scope=b", []string{"Bearer " + dead}, 401, invalid},
		{"no scope in it", "?scope=", []string{"Bearer " + good}, 400, ""}, {"one of two is empty", "?scope=reports.read&scope=", []string{"Bearer " + good}, 400, ""},
		{"no scope", "?scope=%22", []string{"Bearer " + good}, 400, ""}, {"an empty audience", "?audience=", []string{"Bearer " + good}, 400, ""},
		{"two audiences", "?audience=a&audience=b", []string{"Bearer " + good}, 400, ""}, {"a mistyped parameter", "?scopes=reports.read", []string{"Bearer " + good}, 400, ""},
		{"in capitals", "?Scope=reports.read", []string{"Bearer " + good}, 400, ""}, {"the token in the query", "?access_token=" + good, nil, 400, ""},
		{"no query", "?scope=%zz", []string{"Bearer " + good}, 400, ""}, {"a semicolon", "?scope=a;scope=b", []string{"Bearer " + good}, 400, ""},
		{"a secret as its scope", "?scope=" + good, []string{"Bearer " + good}, 400, ""},
	} {
		var headers []string
		for _, h := range c.header {
			headers = append(headers, "Authorization", h)
		}
		got := r.ask(c.query, "", headers...)
		wantNoPass(t, c.what, got, c.code, c.challenge)
		if strings.Contains(got.body, good) {
			t.Errorf("%s: the answer holds the token", c.what)
		}
	}
	wantPass(
		t,
		"afterwards",
		r.ask("?scope=reports.read&audience=api", bound),
		"u2",
		"reports.read",
		idOf(bound),
		expiry(r, bound),
	)
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"} {
		got := r.rest(method, ForwardAuth, good, "")
		if reason, _ := got.reason(); got.code != http.StatusMethodNotAllowed || reason != "METHOD_NOT_ALLOWED" ||
			got.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d %v", method, got.code, got.header)
		}
	}
	if lines := r.logs.find(
		map[string]any{"method": "v1.forward-auth", "code": "PERMISSION_DENIED", "level": "INFO"},
	); len(lines) != 1 ||
		lines[0]["peer"] != "127.0.0.1" {
		t.Errorf("the log has %v of the refusal", lines)
	}
	if logged := r.logs.String(); strings.Contains(logged, good) || strings.Contains(logged, dead) ||
		secret.ContainsSecret(logged) {
		t.Error("a token stands in the log")
	}
	wantMetric(t, r, `patd_calls_total{code="PERMISSION_DENIED",method="v1.forward-auth"} 1`)
}

// idOf is the id in a secret.
func idOf(secret string) string { return strings.Split(secret, "_")[1] }

// expiry is the end of a token as a gateway is told it.
func expiry(r *rig, s string) string {
	r.t.Helper()
	in, err := r.svc.Introspect(
		context.Background(),
		tokens.Operator(),
		tokens.IntrospectRequest{Secret: secret.NewSecret(s)},
	)
	must(r.t, err)
	return in.ExpireTime.UTC().Format(time.RFC3339)
}

// TestForwardAuthSeesTheAddressByTheTrustedProxyRule has gateways at 127.0.0.1 and ::1, and a token for networks.
func TestForwardAuthSeesTheAddressByTheTrustedProxyRule(t *testing.T) {
	t.Parallel()
	for _, trusted := range []bool{true, false} {
		r := newRig(t, func(c *server.Config) {
			c.HTTPAddr = "[::1]:0"
			if l, err := net.Listen("tcp", c.HTTPAddr); err != nil {
				t.Logf("without IPv6: %v", err)
				c.HTTPAddr = "127.0.0.1:0"
			} else {
				l.Close()
			}
			if trusted {
				c.TrustedProxies = []netip.Prefix{
					netip.MustParsePrefix("127.0.0.0/8"),
					netip.MustParsePrefix("::1/128"),
					netip.MustParsePrefix("10.0.0.0/8"),
				}
			}
		})
		_, secret := r.pat(
			tokens.MintRequest{User: "u1", Name: "n", CIDRs: []string{"203.0.113.0/24", "2001:db8::/32"}},
			"a",
		)
		for forwarded, want := range map[string]int{
			"203.0.113.9": 200, "2001:db8::1": 200, "[2001:db8::1]:443": 200, "::ffff:203.0.113.9": 200, "203.0.113.9:80": 200, "6.6.6.6, 203.0.113.9": 200,
			"203.0.113.9, 10.1.2.3": 200, "203.0.113.9, 6.6.6.6": 401, "2001:db9::1": 401, "": 401, "garbage": 401, "203.0.113.9, garbage": 401,
		} {
			if !trusted {
				want = 401
			}
			if got := r.ask(
				"?scope=a",
				secret,
				"X-Forwarded-For",
				forwarded,
				"X-Real-Ip",
				"203.0.113.9",
				"Forwarded",
				"for=203.0.113.9",
			); got.code != want {
				t.Errorf("X-Forwarded-For: %q, trusted %t: %d, want %d", forwarded, trusted, got.code, want)
			}
		}
	}
}

// TestForwardAuthNeverPassesAnybodyInAnOutage has a good token, for which nothing but the store is missing.
func TestForwardAuthNeverPassesAnybodyInAnOutage(t *testing.T) {
	t.Parallel()
	longtest.Slow(t)
	r := newRig(t, func(c *server.Config) { c.RequestTimeout = 2 * time.Second })
	_, secret := r.mint("u1", "n")
	_, bad := r.mint("u1", "bad")
	bad = bad[:len(bad)-1]
	access := r.exchange(secret).text("access_token") // which takes both lookups
	refusesWhile := func(what string, code int) {
		t.Helper()
		got := r.ask("?scope=reports.read", access)
		wantNoPass(t, what, got, code, "")
		if strings.Contains(got.body, "injected") ||
			got.header.Get("Retry-After") != map[bool]string{true: "1"}[code == 503] {
			t.Errorf("%s: %v %s", what, got.header, got.body)
		}
	}
	r.faulty.Fail(storetest.Outage())
	refusesWhile("the store is out", 503)
	wantNoPass(t, "garbage needs no store", r.ask("", bad), 401, challenged+`, error="invalid_token"`)
	r.faulty.Fail(nil)
	for _, op := range []storetest.Op{storetest.OpLookup, storetest.OpLookupAccess} {
		r.faulty.FailOp(op, storetest.Outage())
		refusesWhile(string(op)+" fails", 503)
		r.faulty.Fail(nil)
		r.faulty.Hang(op)
		refusesWhile(string(op)+" hangs", 503)
		r.faulty.Fail(nil)
	}
	r.faulty.FailOp(storetest.OpLookup, errors.New("injected fault of no kind"))
	refusesWhile("something unknown goes wrong", 500)
	r.faulty.Fail(nil)
	r.store.set(func(string) error { panic("injected " + access) })
	refusesWhile("the store panics", 500)
	r.store.set(nil)
	if got := r.ask("?scope=reports.read", access); got.code != 200 {
		t.Errorf("afterwards: %d %s", got.code, got.body)
	}
	if n := len(
		r.logs.find(map[string]any{"method": "v1.forward-auth", "level": "WARN", "code": "UNAVAILABLE"}),
	); n < 3 {
		t.Errorf("%d outages are in the log", n)
	}
	if strings.Contains(r.logs.String(), access) || strings.Contains(r.logs.String(), secret) {
		t.Error("the token stands in the log")
	}
}

// TestBadTokensAtForwardAuthLockNobodyOut floods patd through a gateway, whose address has three bad credentials to
// spare.
func TestBadTokensAtForwardAuthLockNobodyOut(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.FailureRate, c.FailureBurst = 0.001, 3 })
	_, secret := r.mint("u1", "n")
	for i := range 50 {
		bad := []string{"garbage", r.admin[:len(r.admin)-1], strings.Repeat("x", 300), r.admin, r.idp.jwt(t, "x", claim{"exp", 1})}[i%5]
		if got := r.ask("?scope=a", bad); got.code != http.StatusUnauthorized {
			t.Fatalf("%d %s", got.code, got.body)
		}
	}
	if got := r.rest("GET", "/v1/users", r.admin, ""); got.code != 200 {
		t.Errorf("the gateway's address is locked out: %d %s", got.code, got.body)
	}
	for range 4 { // bad credentials of the address's own
		r.rest("GET", "/v1/users", "garbage", "")
	}
	if got := r.rest("GET", "/v1/users", "garbage", ""); got.code != http.StatusTooManyRequests {
		t.Fatalf("the limit does not hold: %d", got.code)
	}
	if got := r.ask("?scope=reports.read", secret); got.code != 200 {
		t.Errorf("others' bad credentials close the gateway: %d %s", got.code, got.body)
	}
}

// TestForwardAuthRepeatsNoSecret puts a live secret wherever a gateway or its client could put one.
func TestForwardAuthRepeatsNoSecret(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, secret := r.mint("u1", "n")
	m := marked{t: t, r: r, secret: secret, marks: append(markers(t, secret), markers(t, r.admin)...)}
	for _, query := range []string{
		"", "?scope=" + secret, "?scope=a+" + secret, "?audience=" + secret, "?" + secret, "?" + secret + "=1", "?scope=x&" + secret + "=", "?token=" + secret,
		"?scope=a;" + secret, "?%zz" + secret, "?scope=" + url.QueryEscape(`"`+secret),
	} {
		for _, credential := range []string{secret, secret + "x", secret + "," + secret, r.admin, ""} {
			for _, method := range []string{"GET", "HEAD", "POST"} {
				m.check(method+" "+query, fmt.Sprint(r.rest(method, ForwardAuth+query, credential, "")))
			}
		}
		m.panicking(func() { m.check("panic "+query, fmt.Sprint(r.ask(query, secret))) })
	}
	for _, name := range []string{"X-Request-Id", "X-Forwarded-For", "Cookie", "X-Auth-User", "Authorization"} {
		m.check(name, fmt.Sprint(r.ask("?scope=reports.read", secret, name, secret)))
	}
	m.aftermath()
}
