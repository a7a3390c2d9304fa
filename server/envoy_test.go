package server_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"patd/internal/longtest"
	"patd/server"
	"patd/store/storetest"
	"patd/tokens"
	"patd/tokens/secret"
)

// envoy is a gateway with the filter ext_authz, as far as its documentation says what that does with a request.
type envoy struct {
	r      *rig
	secret string // of the gateway's service
	// raw: it sends headers one by one (encode_raw_headers).
	raw bool
	// lenient: it lets requests pass when it cannot ask (failure_mode_allow).
	lenient bool
}

// routed is a request at the gateway.
type routed struct {
	extensions map[string]string // of the route
	client     string            // address
	headers    http.Header
}

// outcome is what becomes of a request.
type outcome struct {
	upstream http.Header // what the upstream sees; nil: nothing
	code     int         // otherwise what the client gets
	headers  http.Header
}

// request is what Envoy sends. It merges headers of one name with commas, and has names in lower case.
func (e envoy) request(q routed) *authv3.CheckRequest {
	h := &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/", Headers: map[string]string{}}
	for name, values := range q.headers {
		if name = strings.ToLower(name); !e.raw {
			h.Headers[name] = strings.Join(values, ",")
			continue
		}
		if h.HeaderMap == nil {
			h.HeaderMap = &corev3.HeaderMap{}
		}
		for _, v := range values {
			h.HeaderMap.Headers = append(h.HeaderMap.Headers, &corev3.HeaderValue{Key: name, RawValue: []byte(v)})
		}
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{
			Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Address: q.client, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 40000},
			}}},
		},
		Request:           &authv3.AttributeContext_Request{Http: h},
		ContextExtensions: q.extensions,
	}}
}

// route asks patd about a request and does what it is told.
func (e envoy) route(q routed) outcome {
	e.r.t.Helper()
	resp, err := authv3.NewAuthorizationClient(e.r.conn).Check(as(e.secret), e.request(q))
	switch {
	case err != nil && e.lenient:
		return outcome{upstream: q.headers}
	case err != nil:
		return outcome{code: http.StatusForbidden}
	case resp.GetStatus().GetCode() != int32(codes.OK):
		code := int(resp.GetDeniedResponse().GetStatus().GetCode())
		if code == 0 {
			code = http.StatusForbidden
		}
		return outcome{code: code, headers: e.apply(http.Header{}, resp.GetDeniedResponse().GetHeaders())}
	}
	up := e.apply(q.headers.Clone(), resp.GetOkResponse().GetHeaders())
	for _, name := range resp.GetOkResponse().GetHeadersToRemove() { // after the others were set
		if name != "host" && !strings.HasPrefix(name, ":") {
			remove(up, name)
		}
	}
	return outcome{upstream: up}
}

// apply changes headers as each option says. Envoy takes a value that is empty too.
func (e envoy) apply(h http.Header, options []*corev3.HeaderValueOption) http.Header {
	e.r.t.Helper()
	for _, o := range options {
		name, value := o.GetHeader().GetKey(), o.GetHeader().GetValue()
		present := len(h.Values(name)) > 0
		switch o.GetAppendAction() {
		case corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD:
			h.Add(name, value)
		case corev3.HeaderValueOption_ADD_IF_ABSENT:
			if !present {
				h.Set(name, value)
			}
		case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
			h.Set(name, value)
		case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
			if present {
				h.Set(name, value)
			}
		}
	}
	return h
}

func remove(h http.Header, name string) {
	for had := range h {
		if strings.EqualFold(had, name) {
			delete(h, had)
		}
	}
}

// headers is a request's, by name, value, ….
func headers(secret string, pairs ...string) http.Header {
	h := http.Header{}
	if secret != "" {
		h.Set("Authorization", "Bearer "+secret)
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		h[pairs[i]] = append(h[pairs[i]], pairs[i+1]) // as it is spelled
	}
	return h
}

// spoofed is what a client writes to pass for somebody else.
func spoofed(secret string) http.Header {
	var pairs []string
	for _, name := range append([]string{"X-Auth-Groups"}, told...) {
		pairs = append(
			pairs,
			name,
			"root",
			name,
			"root",
			strings.ReplaceAll(name, "-", "_"),
			"root",
			strings.ToUpper(strings.Replace(name, "-", "_", 1)),
			"root",
		)
		for i, c := range name { // one underscore, and hyphens; then the other way round
			if c == '-' {
				pairs = append(
					pairs,
					name[:i]+"_"+name[i+1:],
					"root",
					strings.ReplaceAll(name[:i], "-", "_")+"-"+strings.ReplaceAll(name[i+1:], "-", "_"),
					"root",
				)
			}
		}
	}
	return headers(secret, append(pairs, "X-Other", "kept")...)
}

func newEnvoy(t *testing.T, change ...func(*server.Config)) envoy {
	t.Helper()
	r := newRig(t, change...)
	return envoy{r: r, secret: r.service("envoy", "introspect")}
}

func TestEnvoyTellsTheUpstreamWhoCalls(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		raw, forward bool
	}{{false, false}, {true, false}, {false, true}, {true, true}} {
		e := newEnvoy(t, func(conf *server.Config) { conf.ForwardAuthorization = c.forward })
		e.raw = c.raw
		tok, secret := e.r.pat(tokens.MintRequest{User: "ü|1", Name: "n"}, "a", "b", "c")
		for scope, ext := range map[string]map[string]string{
			"": nil, "b": {"scope": "b"}, "c a": {"scope": "c a"}, "a": {"scope": " a  a ", "audience": "any"},
		} {
			out := e.route(routed{extensions: ext, headers: spoofed(secret)})
			if out.upstream == nil {
				t.Fatalf("%v: %d", ext, out.code)
			}
			want := []string{"%C3%BC|1", scope, tok.ID.String(), tok.ExpireTime.UTC().Format(time.RFC3339)}
			for i, name := range told {
				if got := out.upstream.Values(name); !slices.Equal(got, want[i:i+1]) {
					t.Errorf("%v: the upstream sees %s: %q, want %q", ext, name, got, want[i])
				}
			}
			for name, values := range out.upstream {
				if slices.Contains(values, "root") {
					t.Errorf("%v: the client's %s survives", ext, name)
				}
			}
			if got := out.upstream.Get("Authorization") != ""; got != c.forward {
				t.Errorf("the upstream has the token: %t", got)
			}
			if out.upstream.Get("X-Other") != "kept" {
				t.Error("another header is lost")
			}
		}
	}
}

// TestEnvoyOverwritesWhatItDoesNotShow has a gateway that sends the token and no other header (allowed_headers), and a
// token about which one thing is not there to be told.
func TestEnvoyOverwritesWhatItDoesNotShow(t *testing.T) {
	t.Parallel()
	e := newEnvoy(t)
	e.r.audience(tokens.AudienceEntry{ID: "forever", AllowNever: true})
	_, secret := e.r.pat(
		tokens.MintRequest{
			User:      "u1",
			Name:      "n",
			Audiences: []string{"forever"},
			Lifetime:  tokens.Lifetime{Never: true},
		},
		"a",
	)
	resp, err := authv3.NewAuthorizationClient(e.r.conn).
		Check(as(e.secret), e.request(routed{headers: headers(secret)}))
	must(t, err)
	ok := resp.GetOkResponse()
	up := e.apply(spoofed(""), ok.GetHeaders())
	for _, name := range ok.GetHeadersToRemove() {
		remove(up, name)
	}
	for _, o := range ok.GetHeaders() {
		if o.GetAppendAction() != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD || !o.GetKeepEmptyValue() {
			t.Errorf("%v could leave the client's", o)
		}
		if slices.ContainsFunc(
			ok.GetHeadersToRemove(),
			func(n string) bool { return strings.EqualFold(n, o.GetHeader().GetKey()) },
		) {
			t.Errorf("%s is set and removed", o.GetHeader().GetKey())
		}
	}
	for _, name := range told {
		if got := up.Values(name); len(got) != 1 || got[0] == "root" {
			t.Errorf("%s: %q", name, got)
		}
	}
	for name, values := range up {
		if strings.Contains(name, "_") &&
			!strings.HasSuffix(strings.ToLower(name), "groups") { // of which nothing could be known
			t.Errorf("the client's %s survives: %q", name, values)
		}
	}
	if !slices.Contains(ok.GetHeadersToRemove(), "authorization") {
		t.Error("the token is passed on")
	}
}

func TestEnvoyDeniesWithAChallenge(t *testing.T) {
	t.Parallel()
	for _, raw := range []bool{false, true} {
		e := newEnvoy(t)
		e.raw = raw
		r := e.r
		_, good := r.mint("u1", "good")
		id, dead := r.mint("u1", "dead")
		must(t, r.revoke("u1", id))
		_, bound := r.pat(tokens.MintRequest{User: "u2", Name: "n", Audiences: []string{"api"}}, "reports.read")
		const invalid, malformed = challenged + `, error="invalid_token"`, challenged + `, error="invalid_request"`
		for _, c := range []struct {
			what      string
			q         routed
			code      int
			challenge string
		}{
			{"no token", routed{}, 401, challenged}, {"another scheme", routed{headers: headers("", "Authorization", "Basic x")}, 401, challenged},
			{"garbage", routed{headers: headers("garbage")}, 401, invalid}, {"revoked", routed{headers: headers(dead)}, 401, invalid},
			{"the gateway's own", routed{headers: headers(e.secret)}, 401, invalid},
			{"two headers", routed{headers: headers(good, "Authorization", "Bearer "+good)}, 401, malformed},
			{"two in one", routed{headers: headers("", "Authorization", "Bearer "+good+",Bearer "+good)}, 401, malformed},
			{"another audience", routed{extensions: map[string]string{"audience": "other"}, headers: headers(bound)}, 401, invalid},
			{"a scope too few", routed{extensions: map[string]string{"scope": "reports.read x"}, headers: headers(good)}, 403,
				challenged + `, error="insufficient_scope", scope="reports.read x"`},
			{"an empty scope", routed{extensions: map[string]string{"scope": ""}, headers: headers(good)}, 500, ""},
			{"no scope", routed{extensions: map[string]string{"scope": `"`}, headers: headers(good)}, 500, ""},
			{"an empty audience", routed{extensions: map[string]string{"audience": ""}, headers: headers(good)}, 500, ""},
			{"a mistyped extension", routed{extensions: map[string]string{"scopes": "x"}, headers: headers(good)}, 500, ""},
		} {
			out := e.route(c.q)
			if out.upstream != nil || out.code != c.code ||
				undescribed(out.headers.Get("WWW-Authenticate")) != c.challenge {
				t.Errorf("%s, raw %t: %d %v, want %d %s", c.what, raw, out.code, out.headers, c.code, c.challenge)
			}
			e.lenient = true
			if out := e.route(c.q); out.upstream != nil {
				t.Errorf("%s: a lenient gateway lets it pass", c.what)
			}
			e.lenient = false
		}
		if out := e.route(
			routed{extensions: map[string]string{"audience": "api", "scope": "reports.read"}, headers: headers(bound)},
		); out.upstream == nil {
			t.Errorf("a good one: %d", out.code)
		}
	}
}

// TestEnvoyIsBoundToItsAudience has a gateway whose service sees the tokens of one audience.
func TestEnvoyIsBoundToItsAudience(t *testing.T) {
	t.Parallel()
	e := newEnvoy(t)
	m, err := e.r.svc.CreateService(
		context.Background(),
		tokens.Operator(),
		tokens.ServiceRequest{Name: "bound", Permissions: []string{"introspect"}, Audience: "api"},
	)
	must(t, err)
	e.secret = m.Secret.Reveal()
	_, mine := e.r.pat(tokens.MintRequest{User: "u1", Name: "a", Audiences: []string{"api"}}, "a")
	_, other := e.r.pat(tokens.MintRequest{User: "u1", Name: "b", Audiences: []string{"other"}}, "a")
	if out := e.route(routed{headers: headers(mine)}); out.upstream == nil {
		t.Errorf("its own: %d", out.code)
	}
	if out := e.route(routed{headers: headers(other)}); out.code != 401 {
		t.Errorf("another's: %d", out.code)
	}
}

func TestEnvoySaysWhereTheClientIs(t *testing.T) {
	t.Parallel()
	e := newEnvoy(t)
	_, secret := e.r.pat(
		tokens.MintRequest{User: "u1", Name: "n", CIDRs: []string{"203.0.113.0/24", "2001:db8::/32"}},
		"a",
	)
	for client, want := range map[string]bool{
		"203.0.113.9": true, "::ffff:203.0.113.9": true, "2001:db8::1": true, "203.0.114.9": false, "2001:db9::1": false, "": false, "/run/pipe": false,
	} {
		q := routed{client: client, headers: headers(secret, "X-Forwarded-For", "203.0.113.9")}
		if out := e.route(q); (out.upstream != nil) != want {
			t.Errorf("from %q: passes %t", client, !want)
		}
	}
	if got := status.Code(check(as(e.secret), e.r, &authv3.CheckRequest{})); got != codes.OK {
		t.Errorf("an empty request: %s", got)
	}
}

func check(ctx context.Context, r *rig, q *authv3.CheckRequest) error {
	_, err := authv3.NewAuthorizationClient(r.conn).Check(ctx, q)
	return err
}

// TestOnlyServicesThatIntrospectMayCheck goes through every kind of caller. One that may not gets a denial and no gRPC
// error, which failure_mode_allow would let pass; what is wrong with the gateway stands in the metrics.
func TestOnlyServicesThatIntrospectMayCheck(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, c := range callers(r) {
		ctx := context.Background()
		for _, h := range c.header() {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", h)
		}
		resp, err := authv3.NewAuthorizationClient(r.conn).Check(ctx, &authv3.CheckRequest{})
		must(t, err)
		want, got := expected(c.kind, "introspect"), codes.Code(resp.GetStatus().GetCode())
		switch {
		case want == codes.OK: // the request shows no token
			want = codes.Unauthenticated
			if resp.GetDeniedResponse().GetStatus().GetCode() != http.StatusUnauthorized {
				t.Errorf("Check by %s: %v, want 401", c.name, resp)
			}
		case resp.GetDeniedResponse().GetStatus().GetCode() != http.StatusInternalServerError:
			t.Errorf("Check by %s: %v, want 500", c.name, resp)
		}
		if got != want {
			t.Errorf("Check by %s: %v, want %v", c.name, got, want)
		}
	}
	for _, code := range []string{"UNAUTHENTICATED", "PERMISSION_DENIED"} {
		if !strings.Contains(
			r.rest("GET", "/metrics", "", "").body,
			`patd_calls_total{code="`+code+`",method="envoy.service.auth.v3.Authorization/Check"}`,
		) {
			t.Errorf("no metric counts %s", code)
		}
	}
}

// TestEnvoyNeverPassesAnybodyInAnOutage has a gateway that lets requests pass when it gets a gRPC error, and a good
// token.
func TestEnvoyNeverPassesAnybodyInAnOutage(t *testing.T) {
	t.Parallel()
	longtest.Slow(t)
	e := newEnvoy(t, func(c *server.Config) { c.RequestTimeout = 2 * time.Second })
	e.lenient = true
	r := e.r
	_, s := r.mint("u1", "n")
	q := routed{extensions: map[string]string{"scope": "reports.read"}, headers: headers(s)}
	refusesWhile := func(what string) {
		t.Helper()
		if out := e.route(
			q,
		); out.upstream != nil || out.code != http.StatusServiceUnavailable ||
			out.headers.Get("Retry-After") != "1" {
			t.Errorf("%s: %v", what, out)
		}
	}
	r.faulty.Fail(storetest.Outage())
	refusesWhile("the store is out")
	r.faulty.Fail(nil)
	for _, op := range []storetest.Op{storetest.OpLookup, storetest.OpLookupService} {
		r.faulty.FailOp(op, storetest.Outage())
		refusesWhile(string(op) + " fails")
		r.faulty.Fail(nil)
		r.faulty.Hang(op)
		refusesWhile(string(op) + " hangs")
		r.faulty.Fail(nil)
		r.store.set(func(called string) error {
			if called == string(op) {
				panic("injected " + s)
			}
			return nil
		})
		refusesWhile(string(op) + " panics")
		r.store.set(nil)
	}
	large := q
	large.headers = headers(s, "X-Large", strings.Repeat("x", 1<<20+1000))
	if out := e.route(large); out.upstream != nil || out.code != http.StatusServiceUnavailable {
		t.Errorf("over the limit of size: %d", out.code)
	}
	if out := e.route(q); out.upstream == nil {
		t.Errorf("afterwards: %d", out.code)
	}
	const method = "envoy.service.auth.v3.Authorization/Check"
	if n := len(r.logs.find(map[string]any{"method": method, "level": "WARN", "code": "UNAVAILABLE"})); n != 3 {
		t.Errorf("%d outages are in the log", n)
	}
	if strings.Contains(r.logs.String(), s) || secret.ContainsSecret(r.logs.String()) {
		t.Error("a token stands in the log")
	}
	wantMetric(t, r, `patd_calls_total{code="UNAVAILABLE",method="`+method+`"} 3`)
}

// TestBadTokensAtEnvoyLockNobodyOut floods patd through a gateway, whose address has three bad credentials to spare.
func TestBadTokensAtEnvoyLockNobodyOut(t *testing.T) {
	t.Parallel()
	e := newEnvoy(t, func(c *server.Config) { c.FailureRate, c.FailureBurst = 0.001, 3 })
	_, secret := e.r.mint("u1", "n")
	for i := range 50 {
		if out := e.route(
			routed{headers: headers([]string{"garbage", e.secret, secret + "x"}[i%3])},
		); out.code != http.StatusUnauthorized {
			t.Fatalf("%v", out)
		}
	}
	if out := e.route(routed{headers: headers(secret)}); out.upstream == nil {
		t.Errorf("a good token after bad ones: %d", out.code)
	}
	if got := e.r.rest("GET", "/v1/users", e.r.admin, ""); got.code != 200 {
		t.Errorf("the gateway's address is locked out: %d", got.code)
	}
	for range 4 { // bad credentials of the address's own
		e.r.rest("GET", "/v1/users", "garbage", "")
	}
	if out := e.route(routed{headers: headers(secret)}); out.upstream == nil {
		t.Errorf("a good gateway at an address past the limit: %v", out)
	}
	e.lenient, e.secret = true, "garbage"
	if out := e.route(
		routed{headers: headers(secret)},
	); out.upstream != nil ||
		out.code != http.StatusServiceUnavailable {
		t.Errorf("a bad gateway at an address past the limit: %v", out)
	}
}

func TestEnvoyRepeatsNoSecret(t *testing.T) {
	t.Parallel()
	e := newEnvoy(t)
	_, secret := e.r.mint("u1", "n")
	m := marked{t: t, r: e.r, secret: secret, marks: append(markers(t, secret), markers(t, e.secret)...)}
	for _, q := range []routed{
		{headers: headers(secret)}, {headers: headers(secret + "x")}, {headers: headers(secret, secret, secret)}, {client: secret, headers: headers(secret)},
		{extensions: map[string]string{"scope": secret}, headers: headers(secret)}, {extensions: map[string]string{secret: secret}, headers: headers(secret)},
		{extensions: map[string]string{"audience": secret}, headers: headers(secret)}, {headers: headers(secret, "X-Auth-User", secret)},
	} {
		ask := func() {
			resp, err := authv3.NewAuthorizationClient(e.r.conn).Check(as(e.secret), e.request(q))
			m.check(fmt.Sprint(q.extensions), protojson.Format(resp)+protojson.Format(status.Convert(err).Proto()))
		}
		ask()
		m.panicking(ask)
	}
	m.aftermath()
}
