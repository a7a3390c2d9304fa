package server_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"

	patdv1 "patd/gen/patd/v1"
	"patd/server"
	"patd/tokens"
)

// TestUserIDsInPathsAreDecodedOnce goes through the life of users whose ids are hard to write in a path.
func TestUserIDsInPathsAreDecodedOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, id := range []string{
		"a/b", "a:b", "a?b", "a#b", "100%", "a%2Fb", "a%252Fb", "a b", "ü", "a:suspend", "tokens", "features", "a//b", "/", "%",
		"...", ".a", "a..b", "a+b", "a;b", "a&b=c", "x:revoke", "me2", "日本", "'\"<>\\", "auth0|0123", strings.Repeat("z", 255),
	} {
		p := "/v1/users/" + url.PathEscape(id)
		if got := r.rest("PUT", p+"/features", r.admin, `{"features":["reports.read"]}`); got.code != 200 {
			t.Errorf("%q: set features: %d %s", id, got.code, got.body)
			continue
		}
		wantUser(t, id, r.rest("GET", p, r.admin, ""), "ACTIVE")
		wantUser(t, id, r.rest("POST", p+":suspend", r.admin, ""), "SUSPENDED")
		wantUser(t, id, r.rest("POST", p+":resume", r.admin, "{}"), "ACTIVE")
		if got := r.rest("GET", p+"/features", r.admin, ""); !strings.Contains(got.body, "reports.read") {
			t.Errorf("%q: features: %d %s", id, got.code, got.body)
		}
		var made struct {
			Token struct {
				User    string
				TokenID string `json:"token_id"`
			}
			Secret string
		}
		got := r.rest("POST", p+"/tokens", r.admin, `{"name":"n","scopes":["reports.read"]}`)
		if must(t, json.Unmarshal([]byte(got.body), &made)); got.code != 200 || made.Token.User != id {
			t.Errorf("%q: mint: %d %s", id, got.code, got.body)
			continue
		}
		tp := p + "/tokens/" + made.Token.TokenID
		for _, c := range []struct{ verb, path, body string }{
			{"GET", tp, ""}, {"PATCH", tp, `{"token":{"name":"m"},"update_mask":"name"}`}, {"POST", tp + ":rotate", ""},
			{"POST", tp + ":revoke", `{"reason":"r"}`}, {"DELETE", tp, ""}, {"GET", p + "/tokens", ""}, {"POST", p + "/tokens:revoke", ""}, {"DELETE", p, ""},
		} {
			if got := r.rest(c.verb, c.path, r.admin, c.body); got.code != 200 {
				t.Errorf("%q: %s %s: %d %s", id, c.verb, c.path, got.code, got.body)
			}
		}
		if got := r.rest("GET", p, r.admin, ""); got.code != http.StatusNotFound {
			t.Errorf("%q: after delete: %d %s", id, got.code, got.body)
		}
	}
}

func wantUser(t *testing.T, id string, got answerOf, state string) {
	t.Helper()
	var u struct{ User, State string }
	if err := json.Unmarshal([]byte(got.body), &u); err != nil || u.User != id || u.State != state {
		t.Errorf("%q: got %d %s, want it %s", id, got.code, got.body, state)
	}
}

func TestErrorsHaveTheGoogleForm(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.features("u1", "a")
	got := r.rest(
		"POST",
		"/v1/users/u1/tokens",
		r.admin,
		`{"name":"n","scopes":["a","b","c"]}`,
		"X-Request-Id",
		"req-1",
	)
	var body map[string]any
	must(t, json.Unmarshal([]byte(got.body), &body))
	e := body["error"].(map[string]any)
	details := e["details"].([]any)
	want := map[string]any{
		"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SCOPE_NOT_HELD", "domain": "patd",
	}
	info := details[0].(map[string]any)
	delete(info, "metadata")
	if diff := cmp.Diff(want, info); diff != "" {
		t.Error(diff)
	}
	if e["code"] != 400.0 || e["status"] != "INVALID_ARGUMENT" || e["message"] == "" || len(body) != 1 {
		t.Errorf("got %s", got.body)
	}
	violations := details[1].(map[string]any)["field_violations"].([]any)
	if len(violations) != 2 {
		t.Errorf("want a violation per scope, got %v", violations)
	}
	if id := details[2].(map[string]any)["request_id"]; id != "req-1" {
		t.Errorf("request id %v", id)
	}
}

// TestEveryAnswerHasTheSecurityHeaders looks at good, refused, unrouted and unreadable requests alike.
func TestEveryAnswerHasTheSecurityHeaders(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, c := range []struct {
		verb, path, secret, body string
		code                     int
		reason                   string
	}{
		{"GET", "/v1/users", r.admin, "", 200, ""},
		{"GET", "/v1/users", "", "", 401, "CREDENTIAL_REQUIRED"},
		{"GET", "/v1/users", "x", "", 401, "CREDENTIAL_INVALID"},
		{"GET", "/v1/self", r.admin, "", 403, "PERMISSION_DENIED"},
		{"GET", "/v1/users/nope", r.admin, "", 404, "NOT_FOUND"},
		{"GET", "/nope", r.admin, "", 404, "PATH_NOT_FOUND"},
		{"GET", "/", "", "", 401, ""},
		{"GET", "/nothing", "", "", 404, "PATH_NOT_FOUND"},
		{"GET", "/v1/users/a/tokens/", r.admin, "", 404, "NOT_FOUND"},
		{"PUT", "/v1/users", r.admin, "", 405, "METHOD_NOT_ALLOWED"},
		{"POST", "/healthz", "", "", 405, "METHOD_NOT_ALLOWED"},
		{"GET", "/v1/users/%01", r.admin, "", 400, "PATH_INVALID"},
		{"GET", "/v1/users/%00", r.admin, "", 400, "PATH_INVALID"},
		{"GET", "/v1/users/%ff", r.admin, "", 400, "PATH_INVALID"},
		{"GET", "/v1/users?page_token=%ff", r.admin, "", 400, "QUERY_INVALID"},
		{"GET", "/v1/users?a;b", r.admin, "", 400, "QUERY_INVALID"},
		{"GET", "/v1/users?page_size=many", r.admin, "", 400, "QUERY_INVALID"},
		{"GET", "/v1/users?state=NOPE", r.admin, "", 400, "QUERY_INVALID"},
		{"GET", "/v1/users?state=SUSPENDED", r.admin, "", 200, ""},
		{"GET", "/v1/users?page_token=nope", r.admin, "", 400, "PAGE_TOKEN_INVALID"},
		{"POST", "/v1/introspect", r.admin, `{"nope":1}`, 400, "FIELD_UNKNOWN"},
		{"POST", "/v1/introspect", r.admin, `{"token":5}`, 400, "JSON_INVALID"},
		{"POST", "/v1/introspect", r.admin, `{"token":"a","token":"b"}`, 400, "JSON_INVALID"},
		{"POST", "/v1/introspect", r.admin, `{"token":"a"} {}`, 400, "JSON_INVALID"},
		{"POST", "/v1/introspect", r.admin, `{`, 400, "JSON_INVALID"},
		{"POST", "/v1/introspect", r.admin, `null`, 400, "JSON_INVALID"},
		{"POST", "/v1/introspect", r.admin, ``, 200, ""},
		{"POST", "/v1/introspect", r.admin, `{"client_ip":"x"}`, 400, "CLIENT_IP_INVALID"},
		{"GET", "/healthz", "", "", 200, ""},
		{"GET", "/readyz", "", "", 200, ""},
		{"GET", "/metrics", "", "", 200, ""},
		{"GET", "/openapi.json", "", "", 200, ""},
		{"HEAD", "/healthz", "", "", 200, ""},
	} {
		got := r.rest(c.verb, c.path, c.secret, c.body)
		if reason, _ := got.reason(); got.code != c.code || reason != c.reason {
			t.Errorf(
				"%s %s %s: got %d %q, want %d %q: %s",
				c.verb,
				c.path,
				c.body,
				got.code,
				reason,
				c.code,
				c.reason,
				got.body,
			)
		}
		for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
			if v := got.header.Get(name); v != want {
				t.Errorf("%s %s: %s is %q", c.verb, c.path, name, v)
			}
		}
		if got.header.Get("X-Request-Id") == "" {
			t.Errorf("%s %s: no X-Request-Id", c.verb, c.path)
		}
	}
	if got := r.rest("PUT", "/v1/users/a", r.admin, ""); got.header.Get("Allow") != "GET, HEAD, DELETE" {
		t.Errorf("Allow: %q", got.header.Get("Allow"))
	}
	if got := r.rest("GET", "/v1/users", "", ""); got.header.Get("WWW-Authenticate") != `Bearer realm="patd"` {
		t.Errorf("without a credential: %q", got.header.Get("WWW-Authenticate"))
	}
	if got := r.rest(
		"GET",
		"/v1/users",
		"x",
		"",
	); !strings.Contains(
		got.header.Get("WWW-Authenticate"),
		`error="invalid_token"`,
	) {
		t.Errorf("with a bad credential: %q", got.header.Get("WWW-Authenticate"))
	}
}

func TestBodyOverTheLimitIs413(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	fits := `{"token":"` + strings.Repeat("x", 1<<20-12) + `"}`
	if got := r.rest("POST", "/v1/introspect", r.admin, fits); got.code != 200 || len(fits) != 1<<20 {
		t.Errorf("%d bytes: %d %s", len(fits), got.code, got.body)
	}
	for what, body := range map[string]io.Reader{
		"with a length": strings.NewReader(fits + " "),
		"chunked":       io.MultiReader(strings.NewReader(fits), strings.NewReader(" ")),
	} {
		req, err := http.NewRequest("POST", "http://"+r.srv.HTTPAddr()+"/v1/introspect", body)
		must(t, err)
		req.Header.Set("Authorization", "Bearer "+r.admin)
		resp, err := r.client.Do(req)
		must(t, err)
		text, err := io.ReadAll(resp.Body)
		must(t, err)
		must(t, resp.Body.Close())
		if reason, _ := (answerOf{body: string(text)}).reason(); resp.StatusCode != http.StatusRequestEntityTooLarge ||
			reason != "BODY_TOO_LARGE" {
			t.Errorf("%s: got %d %s", what, resp.StatusCode, text)
		}
	}
	_, err := patdv1.NewIntrospectionServiceClient(r.conn).
		Introspect(as(r.admin), &patdv1.IntrospectRequest{Token: strings.Repeat("x", 1<<20)})
	if reason, _ := grpcReason(err); reason != "BODY_TOO_LARGE" {
		t.Errorf("over gRPC: %v", err)
	}
}

// TestNextPageHasALink follows the Link headers through a list.
func TestNextPageHasALink(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.Issuer = "https://patd.example/base" })
	for _, n := range []string{"a 1", "a 2", "a 3"} {
		r.mint("u/1", n)
	}
	path, seen := "/v1/users/u%2F1/tokens?page_size=1&q=A%20&state=ACTIVE", 0
	for path != "" {
		got := r.rest("GET", path, r.admin, "")
		if got.code != 200 || seen > 3 {
			t.Fatalf("GET %s: %d %s", path, got.code, got.body)
		}
		seen += strings.Count(got.body, `"token_id"`)
		link := got.header.Get("Link")
		if path = ""; link != "" {
			target, _ := strings.CutSuffix(link, `>; rel="next"`)
			var ok bool
			if path, ok = strings.CutPrefix(target, "<https://patd.example/base"); !ok {
				t.Fatalf("Link: %s", link)
			}
		}
	}
	if seen != 3 {
		t.Errorf("saw %d tokens of 3", seen)
	}
}

func TestIdempotencyKeyByHeaderAndByField(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.features("u1", "a")
	const key, path, body = "0123456789abcdef-key", "/v1/users/u1/tokens", `{"name":"n","scopes":["a"]}`
	first := r.rest("POST", path, r.admin, body, "Idempotency-Key", key)
	again := r.rest("POST", path, r.admin, body, "Idempotency-Key", key)
	field := r.rest("POST", path, r.admin, `{"name":"n","scopes":["a"],"request_id":"`+key+`"}`)
	if first.code != 200 || first.header.Get("Idempotency-Replayed") != "" {
		t.Errorf("first: %d %v %s", first.code, first.header, first.body)
	}
	for _, got := range []answerOf{again, field} {
		if got.code != 200 || got.header.Get("Idempotency-Replayed") != "true" ||
			secretIn(t, got) != secretIn(t, first) {
			t.Errorf("replay: %d %v %s", got.code, got.header, got.body)
		}
	}
	other := r.rest("POST", path, r.admin, `{"name":"m","scopes":["a"]}`, "Idempotency-Key", key)
	if reason, _ := other.reason(); other.code != http.StatusConflict || reason != "IDEMPOTENCY_KEY_REUSED" {
		t.Errorf("another body: %d %s", other.code, other.body)
	}
	for _, headers := range [][]string{
		{"Idempotency-Key", "another-key-0123456789"}, {"Idempotency-Key", ""}, {"Idempotency-Key", key, "Idempotency-Key", key}, {"Idempotency-Key", "ü0123456789abcdef"},
	} {
		got := r.rest("POST", path, r.admin, `{"name":"k","scopes":["a"],"request_id":"`+key+`"}`, headers...)
		if reason, f := got.reason(); got.code != 400 || reason != "IDEMPOTENCY_KEY_INVALID" || f != "request_id" {
			t.Errorf("%q: %d %s", headers, got.code, got.body)
		}
	}
	var header metadata.MD
	req := &patdv1.CreateTokenRequest{User: "u1", Name: "n", Scopes: []string{"a"}, RequestId: key}
	resp, err := patdv1.NewTokenServiceClient(r.conn).CreateToken(as(r.admin), req, grpcHeader(&header))
	must(t, err)
	if resp.GetSecret() != secretIn(t, first) || cmp.Diff(header.Get("idempotency-replayed"), []string{"true"}) != "" {
		t.Errorf("over gRPC: %v", header)
	}
}

// TestMakingAServiceCanBeRepeatedByItsKey repeats it over REST and over gRPC.
func TestMakingAServiceCanBeRepeatedByItsKey(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const key, path, body = "0123456789abcdef-key", "/v1/services", `{"name":"gate","permissions":["introspect"],"ttl":"86400s"}`
	first := r.rest("POST", path, r.admin, body, "Idempotency-Key", key)
	if first.code != 200 || first.header.Get("Idempotency-Replayed") != "" {
		t.Fatalf("first: %d %v", first.code, first.header)
	}
	if again := r.rest("POST", path, r.admin, body, "Idempotency-Key", key); again.code != 200 ||
		again.header.Get("Idempotency-Replayed") != "true" || secretIn(t, again) != secretIn(t, first) {
		t.Errorf("replay: %d %v", again.code, again.header)
	}
	other := r.rest("POST", path, r.admin, `{"name":"gate","permissions":["admin"]}`, "Idempotency-Key", key)
	if reason, _ := other.reason(); other.code != http.StatusConflict || reason != "IDEMPOTENCY_KEY_REUSED" {
		t.Errorf("another body: %d %s", other.code, other.body)
	}
	got := r.rest("POST", path, r.admin, body, "Idempotency-Key", "short")
	if reason, f := got.reason(); got.code != 400 || reason != "IDEMPOTENCY_KEY_INVALID" || f != "request_id" {
		t.Errorf("a short key: %d %s", got.code, got.body)
	}
	var header metadata.MD
	req := &patdv1.CreateServiceRequest{
		Name:        "gate",
		Permissions: []string{"introspect"},
		Ttl:         durationpb.New(tokens.Day),
		RequestId:   key,
	}
	resp, err := patdv1.NewServiceAccountServiceClient(r.conn).CreateService(as(r.admin), req, grpcHeader(&header))
	must(t, err)
	if resp.GetSecret() != secretIn(t, first) || cmp.Diff(header.Get("idempotency-replayed"), []string{"true"}) != "" {
		t.Errorf("over gRPC: %v", header)
	}
}

func secretIn(t *testing.T, a answerOf) string {
	t.Helper()
	var body struct{ Secret string }
	must(t, json.Unmarshal([]byte(a.body), &body))
	return body.Secret
}

// TestForwardedAddressesCountOnlyFromTrustedProxies asks the audit log where a call came from.
func TestForwardedAddressesCountOnlyFromTrustedProxies(t *testing.T) {
	t.Parallel()
	prefix, rigs := netip.MustParsePrefix, map[string]*rig{} // by what they trust
	for i, c := range []struct {
		trusted   []netip.Prefix
		forwarded []string
		want      string
	}{
		{nil, []string{"203.0.113.9"}, "127.0.0.1"},
		{[]netip.Prefix{prefix("10.0.0.0/8")}, []string{"203.0.113.9"}, "127.0.0.1"},
		{[]netip.Prefix{prefix("127.0.0.0/8")}, nil, "127.0.0.1"},
		{[]netip.Prefix{prefix("127.0.0.0/8")}, []string{"203.0.113.9"}, "203.0.113.9"},
		{[]netip.Prefix{prefix("127.0.0.0/8")}, []string{"198.51.100.1, 203.0.113.9"}, "203.0.113.9"},
		{[]netip.Prefix{prefix("127.0.0.0/8"), prefix("10.0.0.0/8")}, []string{"198.51.100.1", "203.0.113.9, 10.1.1.1"}, "203.0.113.9"},
		{[]netip.Prefix{prefix("127.0.0.0/8"), prefix("10.0.0.0/8")}, []string{"10.2.2.2"}, "10.2.2.2"},
		{[]netip.Prefix{prefix("127.0.0.0/8")}, []string{"203.0.113.9, nonsense"}, "127.0.0.1"},
		{[]netip.Prefix{prefix("127.0.0.0/8")}, []string{"[2001:db8::9]:443"}, "2001:db8::9"},
		{[]netip.Prefix{prefix("127.0.0.0/8")}, []string{"::ffff:203.0.113.9"}, "203.0.113.9"},
	} {
		r := rigs[fmt.Sprint(c.trusted)]
		if r == nil {
			r = newRig(t, func(cfg *server.Config) { cfg.TrustedProxies = c.trusted })
			rigs[fmt.Sprint(c.trusted)] = r
		}
		one, two := fmt.Sprintf("one%d", i), fmt.Sprintf("two%d", i)
		var headers []string
		ctx := as(r.admin)
		for _, f := range c.forwarded {
			headers = append(headers, "X-Forwarded-For", f)
			ctx = metadata.AppendToOutgoingContext(ctx, "x-forwarded-for", f)
		}
		spoofs := []string{
			"203.0.113.66",
			"X-Real-Ip",
			"Forwarded",
			"Patd-Client",
			"Grpc-Metadata-Patd-Client",
			"Grpc-Metadata-X-Forwarded-For",
			"Grpcgateway-X-Forwarded-For",
			"True-Client-Ip",
		}
		for _, name := range spoofs[1:] {
			headers = append(headers, name, spoofs[0])
			ctx = metadata.AppendToOutgoingContext(ctx, strings.ToLower(name), spoofs[0])
		}
		if got := r.rest("POST", "/v1/users/"+one+":suspend", r.admin, "", headers...); got.code != 200 {
			t.Fatal(got.body)
		}
		_, err := patdv1.NewUserServiceClient(r.conn).SuspendUser(ctx, &patdv1.SuspendUserRequest{User: two})
		must(t, err)
		for _, user := range []string{one, two} {
			resp, err := patdv1.NewAuditServiceClient(r.conn).
				ListEvents(as(r.admin), &patdv1.ListEventsRequest{Action: "user.suspend", User: user})
			must(t, err)
			if e := resp.GetEvents(); len(e) != 1 || e[0].GetPeerIp() != c.want {
				t.Errorf("trusting %v, forwarded %q: %s came as %v, want %s", c.trusted, c.forwarded, user, e, c.want)
			}
		}
	}
}

// TestOnlyTheAuthorizationHeaderIsACredential tries the other ways that metadata could get through the gateway.
func TestOnlyTheAuthorizationHeaderIsACredential(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, name := range []string{"Grpc-Metadata-Authorization", "Grpcgateway-Authorization", "Grpc-Metadata-Grpcgateway-Authorization", "Proxy-Authorization", "Cookie", "X-Authorization"} {
		if got := r.rest("GET", "/v1/users", "", "", name, "Bearer "+r.admin); got.code != http.StatusUnauthorized {
			t.Errorf("%s was taken for a credential: %d", name, got.code)
		}
	}
	if got := r.rest("GET", "/v1/users?authorization=Bearer+"+r.admin, "", ""); got.code != http.StatusUnauthorized {
		t.Errorf("a query was taken for a credential: %d", got.code)
	}
	if got := r.rest(
		"GET",
		"/v1/users",
		r.admin,
		"",
		"Authorization",
		"Bearer ü",
	); got.code != http.StatusUnauthorized {
		t.Errorf("a good header beside one that cannot be passed on: %d", got.code)
	}
	if got := r.rest(
		"POST",
		"/v1/users/u1/tokens",
		r.admin,
		"",
		"X-Http-Method-Override",
		"GET",
		"Content-Type",
		"application/x-www-form-urlencoded",
	); got.code == 200 {
		t.Errorf("the method was overridden: %d %s", got.code, got.body)
	}
}

func TestIdempotencyKeyIsHonouredOrRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const key = "0b8f4f5e-5c5f-4f0e-9a9b-3f0d3c8a7e21"
	for _, c := range [][2]string{{"PUT", "/v1/users/u1/features"}, {"DELETE", "/v1/services/s"}, {"POST", "/v1/users/u1/tokens:revoke"}, {"POST", "/v1/leaks"}, {"POST", "/v1/features"}} {
		got := r.rest(c[0], c[1], r.admin, `{}`, "Idempotency-Key", key)
		if c[0] == "DELETE" {
			got = r.rest(c[0], c[1], r.admin, "", "Idempotency-Key", key)
		}
		if reason, _ := got.reason(); got.code != 400 || reason != "IDEMPOTENCY_KEY_UNSUPPORTED" {
			t.Errorf("%s: %d %s", c, got.code, reason)
		}
	}
	if got := r.rest("GET", "/v1/services", r.admin, "", "Idempotency-Key", key); got.code != 200 {
		t.Errorf("a read: %d", got.code)
	}
}
