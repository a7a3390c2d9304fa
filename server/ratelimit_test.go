package server_test

import (
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	patdv1 "patd/gen/patd/v1"
	"patd/server"
)

// wantLimited checks a refusal over REST.
func wantLimited(t *testing.T, what string, got answerOf, after string) {
	t.Helper()
	reason, _ := got.reason()
	if got.code != http.StatusTooManyRequests || reason != "RATE_LIMITED" || got.header.Get("Retry-After") != after {
		t.Errorf(
			"%s: %d, Retry-After %q, want 429 after %s s: %s",
			what,
			got.code,
			got.header.Get("Retry-After"),
			after,
			got.body,
		)
	}
}

// wantLimitedGRPC checks a refusal over gRPC.
func wantLimitedGRPC(t *testing.T, what string, err error, trailer metadata.MD, after time.Duration, seconds string) {
	t.Helper()
	reason, _ := grpcReason(err)
	if status.Code(err) != codes.ResourceExhausted || reason != "RATE_LIMITED" ||
		fmt.Sprint(trailer.Get("retry-after")) != "["+seconds+"]" {
		t.Errorf("%s: %v, trailer %v", what, err, trailer)
	}
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			if info.GetRetryDelay().AsDuration() != after {
				t.Errorf("%s: RetryInfo %s, want %s", what, info.GetRetryDelay().AsDuration(), after)
			}
			return
		}
	}
	t.Errorf("%s: no RetryInfo", what)
}

// TestMintingIsLimitedPerCaller gives a user three mints and one each two seconds, and a service four.
func TestMintingIsLimitedPerCaller(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) {
		c.MintRate, c.MintBurst, c.ServiceMintRate, c.ServiceMintBurst = 0.5, 3, 1, 4
	})
	r.features("alice", "a")
	r.features("bob", "a")
	alice, bob, minted := r.idp.jwt(t, "alice"), r.idp.jwt(t, "bob"), 0
	mint := func(credential, user string) answerOf {
		minted++
		return r.rest(
			"POST",
			"/v1/users/"+user+"/tokens",
			credential,
			fmt.Sprintf(`{"name":"n%d","scopes":["a"]}`, minted),
		)
	}
	got := mint(alice, "me")
	var id string
	if _, rest, ok := strings.Cut(got.body, `"token_id":"`); ok {
		id = rest[:11]
	}
	if got := r.rest("POST", "/v1/users/me/tokens/"+id+":rotate", alice, ""); got.code != 200 {
		t.Errorf("the second: %d %s", got.code, got.body)
	}
	if got := r.rest(
		"POST",
		"/v1/users/bob/tokens",
		alice,
		`{"name":"x","scopes":["a"]}`,
	); got.code != http.StatusForbidden {
		t.Errorf("another user's: %d %s", got.code, got.body)
	}
	if got := mint(alice, "me"); got.code != 200 { // what the caller has no right to does not count
		t.Errorf("the third: %d %s", got.code, got.body)
	}
	wantLimited(t, "the fourth", mint(alice, "me"), "2")
	var trailer metadata.MD
	_, err := patdv1.NewTokenServiceClient(r.conn).
		RotateToken(as(alice), &patdv1.RotateTokenRequest{User: "me", TokenId: id}, grpc.Trailer(&trailer))
	wantLimitedGRPC(t, "the fifth, over gRPC", err, trailer, 2*time.Second, "2")
	for _, path := range []string{"/v1/users/me/tokens", "/v1/users/me/features"} {
		if got := r.rest("GET", path, alice, ""); got.code != 200 {
			t.Errorf("GET %s is limited too: %d", path, got.code)
		}
	}
	if got := r.rest("DELETE", "/v1/users/me/tokens/"+id, alice, ""); got.code != 200 {
		t.Errorf("revoking is limited too: %d", got.code)
	}
	if got := mint(bob, "me"); got.code != 200 {
		t.Errorf("another user is limited with the first: %d %s", got.code, got.body)
	}
	for i := range 5 {
		if got := mint(r.admin, "bob"); i < 4 && got.code != 200 {
			t.Errorf("mint %d of a service: %d %s", i, got.code, got.body)
		} else if i == 4 {
			wantLimited(t, "the fifth of a service", got, "1")
		}
	}
	r.wait(1500 * time.Millisecond)
	wantLimited(t, "half a second too early", mint(alice, "me"), "1")
	r.wait(500 * time.Millisecond)
	if got := mint(alice, "me"); got.code != 200 {
		t.Errorf("when there is room again: %d %s", got.code, got.body)
	}
	wantLimited(t, "the next", mint(alice, "me"), "2")
	_, pat := r.mint("carol", "t")
	for range 10 {
		if got := mint(pat, "carol"); got.code != http.StatusForbidden {
			t.Errorf("a PAT: %d %s", got.code, got.body)
		}
	}
	wantMetric(t, r, `patd_rate_limited_total{limit="mint"} 5`)
}

func wantMetric(t *testing.T, r *rig, line string) {
	t.Helper()
	text := r.rest("GET", "/metrics", "", "").body
	if !strings.Contains(text, line+"\n") {
		t.Errorf("the metrics lack %s", line)
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "patd_rate") &&
			(strings.Contains(line, "127.0") || strings.Contains(line, "alice")) {
			t.Errorf("a metric names somebody: %s", line)
		}
	}
}

func TestEveryLimitIsInTheMetricsFromTheStart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, name := range []string{"mint", "authentication", "catalog", "leaks", "exchange"} {
		wantMetric(t, r, `patd_rate_limited_total{limit="`+name+`"} 0`)
	}
}

// TestFailedAuthenticationIsLimitedPerAddress gives an address three bad credentials and one a second.
func TestFailedAuthenticationIsLimitedPerAddress(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.FailureRate, c.FailureBurst = 1, 3 })
	users := patdv1.NewUserServiceClient(r.conn)
	bad := []string{"garbage", r.admin[:len(r.admin)-1] + "!", r.idp.jwt(t, "alice", claim{"exp", 1})}
	for range 10 { // a good credential, no credential, and a bad token that is no credential cost nothing
		if got := r.rest("POST", "/v1/introspect", r.admin, `{"token":"garbage"}`); got.code != 200 {
			t.Fatalf("introspect: %d %s", got.code, got.body)
		}
		if got := r.rest("GET", "/v1/users", "", ""); got.code != http.StatusUnauthorized {
			t.Fatalf("no credential: %d %s", got.code, got.body)
		}
	}
	for i, b := range bad {
		if got := r.rest("GET", "/v1/users", b, ""); got.code != http.StatusUnauthorized {
			t.Errorf("bad credential %d: %d %s", i, got.code, got.body)
		}
	}
	for _, b := range []string{"garbage", bad[1], bad[2]} {
		wantLimited(t, "past the limit", r.rest("GET", "/v1/users", b, ""), "1")
		var trailer metadata.MD
		_, err := users.ListUsers(as(b), &patdv1.ListUsersRequest{}, grpc.Trailer(&trailer))
		wantLimitedGRPC(t, "past the limit, over gRPC", err, trailer, time.Second, "1")
	}
	for range 5 {
		for _, good := range []string{r.admin, r.idp.jwt(t, "alice")} {
			got := r.rest("GET", "/v1/users/alice/tokens", good, "")
			_, err := patdv1.NewTokenServiceClient(r.conn).
				ListTokens(as(good), &patdv1.ListTokensRequest{User: "alice"})
			if got.code != 200 || err != nil {
				t.Errorf("a good credential at the same address: %d %s, %v", got.code, got.body, err)
			}
		}
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/openapi.json", "/.well-known/oauth-authorization-server"} {
		if got := r.rest("GET", path, "garbage", ""); got.code != 200 {
			t.Errorf("%s: %d", path, got.code)
		}
	}
	if _, err := healthv1.NewHealthClient(r.conn).Check(as("garbage"), &healthv1.HealthCheckRequest{}); err != nil {
		t.Errorf("gRPC health: %v", err)
	}
	if got := r.rest("GET", "/v1/users", "", ""); got.code != http.StatusUnauthorized {
		t.Errorf("no credential: %d", got.code)
	}
	wantMetric(t, r, `patd_rate_limited_total{limit="authentication"} 6`)
	r.wait(time.Second)
	for i, want := range []int{http.StatusUnauthorized, http.StatusTooManyRequests} {
		if got := r.rest("GET", "/v1/users", "garbage", ""); got.code != want {
			t.Errorf("bad credential %d when there is room for one again: %d %s", i, got.code, got.body)
		}
	}
	r.store.set(outage{}.hook())
	for range 3 {
		if got := r.rest("GET", "/v1/users", r.admin, ""); got.code != http.StatusServiceUnavailable {
			t.Errorf("an outage: %d %s", got.code, got.body)
		}
	}
	r.store.set(nil)
	if got := r.rest("GET", "/v1/users", r.admin, ""); got.code != 200 {
		t.Errorf("after an outage, which is no bad credential: %d %s", got.code, got.body)
	}
}

// TestClientsBehindAProxyAreLimitedOneByOne has a trusted proxy on this machine.
func TestClientsBehindAProxyAreLimitedOneByOne(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) {
		c.TrustedProxies, c.FailureRate, c.FailureBurst = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, 1, 2
	})
	call := func(credential string, forwarded ...string) int {
		var headers []string
		ctx := as(credential)
		for _, f := range forwarded {
			headers = append(headers, "X-Forwarded-For", f)
			ctx = metadata.AppendToOutgoingContext(ctx, "x-forwarded-for", f)
		}
		code := r.rest("GET", "/v1/users", credential, "", headers...).code
		_, err := patdv1.NewUserServiceClient(r.conn).ListUsers(ctx, &patdv1.ListUsersRequest{})
		if (status.Code(err) == codes.ResourceExhausted) != (code == http.StatusTooManyRequests) &&
			code != http.StatusUnauthorized {
			t.Errorf("%q: REST says %d, gRPC %v", forwarded, code, err)
		}
		return code
	}
	for _, c := range []struct {
		name       string
		credential string
		forwarded  []string
		want       int
	}{
		{"two bad ones", "bad", []string{"203.0.113.9"}, 401},
		{"past the limit", "bad", []string{"203.0.113.9"}, 429},
		{"past the limit, whatever stands to the left", "bad", []string{"198.51.100.1, 203.0.113.9"}, 429},
		{"a good one past the limit", r.admin, []string{"203.0.113.9"}, 200},
		{"a neighbour", "bad", []string{"203.0.113.10"}, 401},
		{"two bad ones by IPv6", "bad", []string{"2001:db8::1"}, 401},
		{"the same /64", "bad", []string{"2001:db8::2"}, 429},
		{"another /64", "bad", []string{"2001:db8:0:1::2"}, 401},
		{"nobody named", "bad", nil, 401},
		{"nobody named again", "bad", nil, 401},
		{"a good one from the proxy itself", r.admin, nil, 200},
	} {
		if got := call(c.credential, c.forwarded...); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// TestRefusedAttemptsDoNotFloodTheAuditLog lets a PAT try 150 times within one instant.
func TestRefusedAttemptsDoNotFloodTheAuditLog(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, pat := r.mint("u1", "mine")
	_, other := r.mint("u1", "other")
	tokenService := patdv1.NewTokenServiceClient(r.conn)
	for range 150 {
		if _, err := tokenService.RotateToken(
			as(pat),
			&patdv1.RotateTokenRequest{User: "u1", TokenId: id},
		); status.Code(
			err,
		) != codes.PermissionDenied {
			t.Fatalf("got %v", err)
		}
	}
	if n := refusals(r, id); n != 100 {
		t.Errorf("%d refusals are recorded, want 100", n)
	}
	wantMetric(t, r, "patd_refusals_unrecorded_total 50")
	_, _ = tokenService.RotateToken(as(other), &patdv1.RotateTokenRequest{User: "u1", TokenId: id})
	r.wait(time.Second)
	_, _ = tokenService.RotateToken(as(pat), &patdv1.RotateTokenRequest{User: "u1", TokenId: id})
	if n := refusals(r, id); n != 102 {
		t.Errorf("%d refusals are recorded, want another caller's and one more", n)
	}
}

func refusals(r *rig, id string) int {
	r.t.Helper()
	n, token := 0, ""
	for {
		resp, err := patdv1.NewAuditServiceClient(r.conn).
			ListEvents(as(r.admin), &patdv1.ListEventsRequest{TokenId: id, Action: "token.rotate", PageSize: 200, PageToken: token})
		must(r.t, err)
		n += len(resp.GetEvents())
		if token = resp.GetNextPageToken(); token == "" {
			return n
		}
	}
}

func TestLimitsThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, c := range []server.Config{{MintRate: math.NaN()}, {FailureRate: math.Inf(1)}, {ServiceMintRate: 1e-12}} {
		c.Service, c.HTTPAddr, c.GRPCAddr = r.svc, "127.0.0.1:0", "127.0.0.1:0"
		if _, err := server.New(c); err == nil || !strings.Contains(err.Error(), "limit") {
			t.Errorf("%v %v %v: %v", c.MintRate, c.FailureRate, c.ServiceMintRate, err)
		}
	}
}

func TestTheCatalogueIsLimited(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 1000 {
		if got := r.rest("GET", "/v1/features/x", r.admin, ""); got.code != http.StatusNotFound {
			t.Fatalf("call %d: %d %s", i, got.code, got.body)
		}
	}
	got := r.rest("GET", "/v1/features/x", r.admin, "")
	if reason, _ := got.reason(); got.code != http.StatusTooManyRequests || reason != "RATE_LIMITED" ||
		got.header.Get("Retry-After") != "1" {
		t.Errorf("%d %v %s", got.code, got.header, got.body)
	}
	if got := r.rest("GET", "/v1/users/u1/features", r.admin, ""); got.code != 200 {
		t.Errorf("another service: %d", got.code)
	}
	r.wait(time.Second)
	if got := r.rest("GET", "/v1/features/x", r.admin, ""); got.code != http.StatusNotFound {
		t.Errorf("a second later: %d", got.code)
	}
}
