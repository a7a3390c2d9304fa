package server_test

import (
	"context"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patd/internal/longtest"
	"patd/server"
	"patd/tokens"
	"patd/tokens/secret"
)

// TestIntrospectionTellsWhatRFC7662Asks looks at every member of the answer about a personal access token.
func TestIntrospectionTellsWhatRFC7662Asks(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.Issuer = "https://patd.example/base/" })
	two, secret := r.pat(
		tokens.MintRequest{User: "jürgen <x>", Name: "a", Audiences: []string{"a1", "a2"}},
		"b.read",
		"a.read",
	)
	got := r.lookAt(secret, "token_type_hint", "access_token")
	want := map[string]any{
		"active":     true,
		"scope":      "a.read b.read",
		"client_id":  two.ID.String(),
		"username":   "jürgen <x>",
		"sub":        "jürgen <x>",
		"token_type": "Bearer",
		"iat":        float64(two.IssueTime.Unix()),
		"nbf":        float64(two.IssueTime.Unix()),
		"exp":        float64(two.ExpireTime.Unix()),
		"aud":        []any{"a1", "a2"},
		"iss":        "https://patd.example/base/",
		"jti":        two.ID.String(),
	}
	if diff := cmp.Diff(want, got.json); diff != "" || got.code != http.StatusOK {
		t.Errorf("%d: %s", got.code, diff)
	}
	_, secret = r.pat(tokens.MintRequest{User: "u2", Name: "b", Audiences: []string{"a1"}}, "x")
	r.features("u2") // suspends all scopes: active, and good for nothing
	got = r.lookAt(secret, "token_type_hint", "no such hint", "unknown", "parameter")
	if _, ok := got.json["scope"]; ok || got.json["active"] != true || got.json["aud"] != "a1" {
		t.Errorf("without scopes, for one audience: %s", got.body)
	}
	_, secret = r.pat(tokens.MintRequest{User: "u2", Name: "c"}, "x")
	if got = r.lookAt(secret); got.json["active"] != true || got.json["aud"] != nil {
		t.Errorf("for no audience: %s", got.body)
	}
}

func TestInactiveIsOneAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	revoked, secretOfRevoked := r.pat(tokens.MintRequest{User: "u1", Name: "revoked"}, "x")
	_, err := r.svc.Revoke(context.Background(), tokens.Operator(), "u1", revoked.ID.String(), "")
	must(t, err)
	hour := time.Hour
	_, short := r.pat(tokens.MintRequest{User: "u1", Name: "short", Lifetime: tokens.Lifetime{TTL: &hour}}, "x")
	_, away := r.pat(tokens.MintRequest{User: "suspended", Name: "s"}, "x")
	_, err = r.svc.SuspendUser(context.Background(), tokens.Operator(), "suspended", "")
	must(t, err)
	_, bound := r.pat(tokens.MintRequest{User: "u1", Name: "bound", CIDRs: []string{"192.0.2.0/24"}}, "x")
	_, other := r.pat(tokens.MintRequest{User: "u1", Name: "other", Audiences: []string{"other"}}, "x")
	m, err := r.svc.CreateService(
		context.Background(),
		tokens.Operator(),
		tokens.ServiceRequest{Name: "gate", Permissions: []string{"introspect"}, Audience: "mine"},
	)
	must(t, err)
	gate := m.Secret.Reveal()

	if got := r.lookAt(short); got.json["active"] != true {
		t.Errorf("before its end: %s", got.body)
	}
	r.wait(hour)
	jwt := r.idp.jwt(t, "alice")
	for what, secret := range map[string]string{
		"garbage": "garbage", "a revoked token": secretOfRevoked, "an expired one": short, "of a suspended user": away,
		"bound to networks": bound, "a service's": gate, "the caller's own": r.admin, "a wrong checksum": short[:len(short)-1] + "!",
		"a JWT": jwt, "bytes": "\x00\xff", "too long": strings.Repeat("x", 60_000), "white space": " " + bound, "a refresh token's form": "patr" + bound[3:],
	} {
		wantInactive(t, what, r.lookAt(secret))
	}
	wantInactive(
		t,
		"for another audience",
		r.oauth("/oauth2/introspect", formOf("token", other), basic("gate", gate)...),
	)
	if got := r.lookAt(bound, "client_ip", "192.0.2.7"); got.json["active"] != true {
		t.Errorf("from where it may: %s", got.body)
	}
	wantInactive(t, "from elsewhere", r.lookAt(bound, "client_ip", "198.51.100.1"))
	r.lookAt(bound, "client_ip", "fe80::1%eth0").want(t, "an address with a zone", 400, "invalid_request")
}

// TestOutageIsNeverInactive takes the store away before and after the caller was authenticated, and has it panic.
func TestOutageIsNeverInactive(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, secret := r.mint("u1", "a")
	for _, o := range []outage{{"the whole store is gone", ""}, {"the store goes after authentication", "LookupService"}} {
		r.store.set(o.hook())
		got := r.lookAt(secret)
		got.want(t, o.name, http.StatusServiceUnavailable, "temporarily_unavailable")
		if got.header.Get("Retry-After") == "" || strings.Contains(got.body, "injected") {
			t.Errorf("%s: %v %s", o.name, got.header, got.body)
		}
	}
	if len(r.logs.find(map[string]any{"level": "WARN", "method": "oauth2.introspect", "code": "UNAVAILABLE"})) != 2 ||
		!strings.Contains(r.logs.String(), "injected outage") {
		t.Errorf("the outages are not in the log: %s", r.logs.String())
	}
	r.store.set(func(op string) error {
		if op == "Lookup" {
			panic("holding " + secret)
		}
		return nil
	})
	r.lookAt(secret).want(t, "a panic", http.StatusInternalServerError, "server_error")
	if len(r.logs.find(map[string]any{"msg": "panic"})) != 1 ||
		len(r.logs.find(map[string]any{"method": "oauth2.introspect", "code": "INTERNAL"})) != 1 {
		t.Errorf("the panic is not in the log: %s", r.logs.String())
	}
	r.store.set(nil)
	if got := r.lookAt(secret); got.json["active"] != true {
		t.Errorf("afterwards: %s", got.body)
	}
}

func TestAStoreThatHangsIsAnOutage(t *testing.T) {
	t.Parallel()
	longtest.Slow(t)
	r := newRig(t, func(c *server.Config) { c.RequestTimeout = 200 * time.Millisecond })
	_, secret := r.mint("u1", "a")
	ended := make(chan struct{})
	time.AfterFunc(time.Second, func() { close(ended) })
	r.store.set(func(op string) error {
		if op == "Lookup" {
			<-ended
			return context.DeadlineExceeded
		}
		return nil
	})
	r.lookAt(secret).want(t, "a store that hangs", http.StatusServiceUnavailable, "temporarily_unavailable")
	r.store.set(nil)
}

// TestRevocationIsSeenByTheNextIntrospection also reads what revoking answers.
func TestRevocationIsSeenByTheNextIntrospection(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	service := r.service("cleaner", "audit") // no permission is needed: whoever has a token may end it
	for name, headers := range map[string][]string{"by possession": nil, "by a client": basic("cleaner", service)} {
		id, secret := r.mint("u1", name)
		if got := r.lookAt(secret); got.json["active"] != true {
			t.Fatalf("%s: before: %s", name, got.body)
		}
		for range 2 {
			if got := r.oauth(
				"/oauth2/revoke",
				formOf("token", secret, "token_type_hint", "refresh_token"),
				headers...); got.code != 200 ||
				got.body != "" {
				t.Errorf("%s: %d %s", name, got.code, got.body)
			}
			wantInactive(t, name, r.lookAt(secret))
		}
		by := map[bool]string{true: "token:" + id, false: "service:cleaner"}[headers == nil]
		if got := r.rest(
			"GET",
			"/v1/users/u1/tokens/"+id,
			r.admin,
			"",
		); !strings.Contains(
			got.body,
			`"revoked_by":"`+by+`"`,
		) {
			t.Errorf("%s: %s", name, got.body)
		}
	}
	for what, token := range map[string]string{"garbage": "garbage", "a form without a checksum": service[:len(service)-1] + "!", "bytes": "\xff\x00"} {
		if got := r.oauth("/oauth2/revoke", formOf("token", token)); got.code != 200 || got.body != "" {
			t.Errorf("%s: %d %s", what, got.code, got.body)
		}
	}
	_, secret := r.mint("u1", "last")
	r.store.set(outage{}.hook())
	got := r.oauth("/oauth2/revoke", formOf("token", secret))
	r.store.set(nil)
	if got.want(
		t,
		"an outage",
		http.StatusServiceUnavailable,
		"temporarily_unavailable",
	); got.header.Get(
		"Retry-After",
	) == "" {
		t.Error("an outage: no Retry-After")
	}
	r.oauth("/oauth2/revoke", formOf("token", secret), basic("cleaner", r.admin)...).
		want(t, "another's credential", 401, "invalid_client")
	if got := r.lookAt(secret); got.json["active"] != true {
		t.Errorf("a refused call had an effect: %s", got.body)
	}
}

// TestWhatStaysGoodIsNotCalledRevoked presents what lives on after its revocation: a client that was answered 200 would
// take it for ended (RFC 7009 section 2.2).
func TestWhatStaysGoodIsNotCalledRevoked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.audience(tokens.AudienceEntry{ID: "jwt", AccessFormat: tokens.AccessJWT, AccessTTL: 5 * time.Minute})
	_, s := r.pat(tokens.MintRequest{User: "u1", Name: "a", Audiences: []string{"jwt"}}, "a")
	jwt, service := r.exchange(s).text("access_token"), r.service("cleaner", "audit")
	revoke := func(token string) oauthAnswer { return r.oauth("/oauth2/revoke", formOf("token", token)) }
	for what, token := range map[string]string{"a JWT of patd's": jwt, "a service's token": service, "the caller's own": r.admin} {
		for _, headers := range [][]string{nil, basic("admin", r.admin)} {
			got := r.oauth("/oauth2/revoke", formOf("token", token, "token_type_hint", "access_token"), headers...)
			if got.want(t, what, 400, "unsupported_token_type"); strings.Contains(got.body, token) {
				t.Errorf("%s: the token is repeated", what)
			}
		}
	}
	if got := r.lookAt("x"); got.code != 200 {
		t.Errorf("the service whose token was presented was ended: %d", got.code)
	}
	parts := strings.Split(jwt, ".")
	for what, token := range map[string]string{
		"a JWT of somebody else's": r.idp.jwt(t, "u1"), "without a signature": parts[0] + "." + parts[1] + ".", "with another": parts[0] + "." + parts[1] + "." + parts[0],
		"under no algorithm": base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".", "dots": "..", "in two parts": parts[0] + "." + parts[1],
	} {
		if got := revoke(token); got.code != 200 || got.body != "" {
			t.Errorf("%s: %d %s", what, got.code, got.body)
		}
	}
	both, err := secret.ParseKeys("k2:" + strings.Repeat("ab", 32) + "\n" + keyLine)
	must(t, err)
	r.keys.Set(both)
	revoke(jwt).want(t, "under a key that was rotated away", 400, "unsupported_token_type")
	r.wait(5 * time.Minute)
	if got := revoke(jwt); got.code != 200 {
		t.Errorf("one that has ended: %d %s", got.code, got.body)
	}
}
