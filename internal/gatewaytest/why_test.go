package gatewaytest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	patdclient "patd/client"
	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/internal/waittest"
	"patd/tokens/secret"
)

// said is what the bearer of a token is told at one place.
type said struct {
	refused           bool
	reason, text      string
	missing, suspends string // of a 403, joined by spaces
	expires, renew    string // the headers
}

// standing is a place where a bearer can stand.
type standing struct {
	name string
	ask  func(t *testing.T, secret string) said
	// noRoute: nothing names an audience or scopes there, so that a token that has the wrong ones passes.
	noRoute bool
}

// renewURL is what the patd of these tests is told.
const renewURL = "https://example.com/settings/tokens"

// description is what a challenge says to people.
var description = regexp.MustCompile(`error_description="([^"]*)"`)

// overHTTP asks by HTTP, and reads what any of the bodies says that patd and its client library write.
func overHTTP(t *testing.T, r *http.Request) said {
	t.Helper()
	resp, err := http.DefaultClient.Do(r)
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	out := said{
		refused: resp.StatusCode >= 400,
		expires: resp.Header.Get("Patd-Token-Expires-At"),
		renew:   resp.Header.Get("Patd-Token-Renew"),
	}
	for _, name := range []string{"Patd-Token-Expires-At", "Patd-Token-Renew"} {
		if n := len(resp.Header.Values(name)); n > 1 {
			t.Errorf("%s comes %d times", name, n)
		}
	}
	if !out.refused {
		return out
	}
	if resp.StatusCode >= 500 {
		t.Fatalf("%s: %s", resp.Status, text)
	}
	var body struct {
		Error       json.RawMessage
		Description string `json:"error_description"`
		Reason      string
		Missing     []string `json:"missing_scopes"`
		Suspended   []string `json:"suspended_scopes"`
	}
	if err := json.Unmarshal(text, &body); err != nil {
		t.Fatalf("%s: the body is no JSON: %s", resp.Status, text)
	}
	out.reason, out.text = body.Reason, body.Description
	out.missing, out.suspends = strings.Join(body.Missing, " "), strings.Join(body.Suspended, " ")
	var google struct {
		Message string
		Details []struct {
			Reason   string
			Metadata map[string]string
		}
	}
	if json.Unmarshal(body.Error, &google) == nil && google.Message != "" {
		d := google.Details[0]
		out.reason, out.text, out.missing, out.suspends = d.Reason, google.Message, d.Metadata["missing_scopes"], d.Metadata["suspended_scopes"]
	}
	challenges := resp.Header.Values("WWW-Authenticate")
	switch {
	case resp.StatusCode == http.StatusBadRequest: // RFC 8693 section 2.2.2
	case len(challenges) != 1:
		t.Errorf("%s has the challenges %q", resp.Status, challenges)
	case !slices.Equal(description.FindStringSubmatch(challenges[0])[1:], []string{out.text}):
		t.Errorf("the challenge is %q, the body says %q", challenges[0], out.text)
	}
	return out
}

// bearing is a request with a token.
func bearing(t *testing.T, url, secret string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url, nil)
	must(t, err)
	r.Header.Set("Authorization", "Bearer "+secret)
	return r
}

// overGRPC reads the outcome of a call.
func overGRPC(err error, header metadata.MD) said {
	first := func(name string) string { return strings.Join(header.Get(name), "|") }
	out := said{refused: err != nil, expires: first("patd-token-expires-at"), renew: first("patd-token-renew")}
	if st := status.Convert(err); err != nil {
		out.text = st.Message()
		for _, d := range st.Details() {
			if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == "patd" {
				m := info.GetMetadata()
				out.reason, out.missing, out.suspends = info.GetReason(), m["missing_scopes"], m["suspended_scopes"]
				out.expires, out.renew = m["expire_time"], m["renew_url"]
			}
		}
	}
	return out
}

func dial(t *testing.T, addr string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// withToken is a context of a call with a token.
func withToken(secret string) context.Context {
	return metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+secret)
}

// guarded are the guards of the client library, over HTTP and gRPC.
func guarded(t *testing.T, i *issuer) []standing {
	t.Helper()
	conn, err := patdclient.Dial(
		i.grpc,
		patdclient.ServiceToken(func(context.Context) (string, error) { return i.asker, nil }),
	)
	must(t, err)
	verifier, err := patdclient.New(conn, patdclient.Config{Audience: "reports"})
	must(t, err)
	t.Cleanup(func() { verifier.Close(); conn.Close() })
	guard := patdclient.NewGuard(verifier, patdclient.HTTPConfig{RenewURL: renewURL})
	web := httptest.NewServer(
		guard.Require("reports.read")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})),
	)
	t.Cleanup(web.Close)
	config := patdclient.GRPCConfig{Default: []string{"reports.read"}, RenewURL: renewURL}
	server := grpc.NewServer(
		grpc.UnaryInterceptor(patdclient.UnaryServerInterceptor(verifier, config)),
		grpc.StreamInterceptor(patdclient.StreamServerInterceptor(verifier, config)),
	)
	healthv1.RegisterHealthServer(server, health.NewServer())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	api := healthv1.NewHealthClient(dial(t, l.Addr().String()))
	return []standing{
		{
			name: "the guard over HTTP",
			ask:  func(t *testing.T, secret string) said { return overHTTP(t, bearing(t, web.URL, secret)) },
		},
		{name: "the guard over gRPC", ask: func(_ *testing.T, secret string) said {
			var header metadata.MD
			_, err := api.Check(withToken(secret), &healthv1.HealthCheckRequest{}, grpc.Header(&header))
			return overGRPC(err, header)
		}},
		{name: "the guard of a stream", ask: func(_ *testing.T, secret string) said {
			ctx, cancel := context.WithCancel(withToken(secret))
			defer cancel()
			stream, err := api.Watch(ctx, &healthv1.HealthCheckRequest{})
			if err != nil {
				return overGRPC(err, nil)
			}
			_, err = stream.Recv()
			header, _ := stream.Header()
			return overGRPC(err, header)
		}},
	}
}

// places are all places where a bearer of a patd's tokens can stand.
func places(t *testing.T, i *issuer) []standing {
	t.Helper()
	through := func(name, addr string) standing {
		return standing{name: name, ask: func(t *testing.T, secret string) said {
			return overHTTP(t, bearing(t, "http://"+addr+"/reports/1", secret))
		}}
	}
	s := site{patd: i, upstream: newUpstream(t).addr}
	self := patdv1.NewSelfServiceClient(dial(t, i.grpc))
	all := []standing{
		{
			name:    "/v1/self",
			noRoute: true,
			ask:     func(t *testing.T, secret string) said { return overHTTP(t, bearing(t, i.url+"/v1/self", secret)) },
		},
		{name: "GetSelf", noRoute: true, ask: func(_ *testing.T, secret string) said {
			var header metadata.MD
			_, err := self.GetSelf(withToken(secret), &patdv1.GetSelfRequest{}, grpc.Header(&header))
			return overGRPC(err, header)
		}},
		{name: "forward-auth", ask: func(t *testing.T, secret string) said {
			return overHTTP(t, bearing(t, i.url+"/v1/forward-auth?scope=reports.read&audience=reports", secret))
		}},
		{name: "the token endpoint", noRoute: true, ask: func(t *testing.T, secret string) said {
			r, err := http.NewRequest(http.MethodPost, i.url+"/oauth2/token", strings.NewReader(url.Values{
				"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {secret},
				"subject_token_type": {"urn:ietf:params:oauth:token-type:access_token"},
			}.Encode()))
			must(t, err)
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			return overHTTP(t, r)
		}},
		through("nginx", nginxWith(t, s, func(config string) string {
			return strings.ReplaceAll(config, "?scope=$patd_scope", "?scope=$patd_scope&audience=reports")
		})),
		through("Caddy", caddyWith(t, s, func(config string) string {
			return strings.ReplaceAll(config, "?scope={args.0}", "?scope={args.0}&audience=reports")
		})),
		through("Envoy", startEnvoyWith(t, s, func(config string) string {
			return strings.ReplaceAll(config, "{ scope: reports.read }", "{ scope: reports.read, audience: reports }")
		})),
	}
	return append(all, guarded(t, i)...)
}

// state is a token that is refused, and what its bearer is to be told.
type state struct {
	token
	reason, text string
	route        bool // only where an audience or scopes are asked for
}

// ended are tokens that are not active, each in its own way, and what their bearers are to be told.
func ended(t *testing.T, i *issuer) map[string]state {
	t.Helper()
	const instant = `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`
	i.call(t, http.MethodPost, "/v1/audiences", map[string]any{"id": "reports"}, nil)
	i.call(t, http.MethodPost, "/v1/audiences", map[string]any{"id": "strict"}, nil)
	path := func(tok token) string { return "/v1/users/" + tok.user + "/tokens/" + tok.id }
	all := map[string]state{}

	expired := i.mintWith(
		t,
		"ends",
		map[string]any{"expire_time": time.Now().Add(1200 * time.Millisecond).UTC().Format(time.RFC3339Nano)},
		"reports.read",
	)
	all["expired"] = state{expired, "TOKEN_EXPIRED", "the token expired at " + instant, false}

	revoked := i.mint(t, "revoked", "reports.read")
	i.call(t, http.MethodPost, path(revoked)+":revoke", map[string]any{"reason": "not for the bearer"}, nil)
	all["revoked"] = state{revoked, "TOKEN_REVOKED", "the token was revoked at " + instant, false}

	for name, grace := range map[string]string{"rotated away": "0s", "rotated away, and its grace is over": "1s"} {
		old := i.mint(t, "rotates", "reports.read")
		i.call(t, http.MethodPost, path(old)+":rotate", map[string]any{"grace": grace}, nil)
		all[name] = state{
			old,
			"TOKEN_SUPERSEDED",
			"the token was rotated, and this secret stopped working at " + instant,
			false,
		}
	}
	suspended := i.mint(t, "suspended", "reports.read")
	i.call(t, http.MethodPost, "/v1/users/suspended:suspend", map[string]any{"reason": "not for the bearer"}, nil)
	all["of a suspended user"] = state{suspended, "USER_SUSPENDED", "the user of the token is suspended", false}

	blocked := i.mintWith(
		t,
		"blocked",
		map[string]any{"audiences": []string{"reports", "strict"}, "ttl": "8640000s"},
		"reports.read",
	)
	i.call(t, http.MethodPut, "/v1/audiences/strict", map[string]any{"max_ttl": "3600s", "default_ttl": "3600s"}, nil)
	i.call(t, http.MethodPost, "/v1/audiences/strict:block", map[string]any{}, nil)
	all["blocked"] = state{
		blocked,
		"POLICY_BLOCKED",
		"the operator has blocked the token, since it exceeds the policy of an audience",
		false,
	}

	all["for another audience"] = state{
		i.mintWith(t, "other", map[string]any{"audiences": []string{"strict"}}, "reports.read"),
		"AUDIENCE_MISMATCH",
		"the token is not for this audience",
		true,
	}
	all["of another network"] = state{
		i.mintBound(t, "bound", []string{"203.0.113.0/24"}, "reports.read"),
		"IP_NOT_ALLOWED",
		"the token is not allowed from this address",
		false,
	}

	all["without the scope"] = state{
		i.mint(t, "poor", "billing.write"),
		"SCOPE_INSUFFICIENT",
		"the token was not granted reports.read",
		true,
	}
	lost := i.mint(t, "lost", "reports.read", "billing.write")
	i.hold(t, "lost", "billing.write")
	all["with a suspended scope"] = state{lost, "SCOPE_INSUFFICIENT", "its user does not hold reports.read now", true}
	paused := i.mint(t, "paused", "reports.read", "billing.write")
	i.call(t, http.MethodPost, path(paused)+":narrow", map[string]any{"scopes": []string{"reports.read"}}, nil)
	all["with a paused scope"] = state{
		paused,
		"SCOPE_INSUFFICIENT",
		"its owner can resume reports.read, which was paused",
		true,
	}
	i.untilRefused(t, all["expired"].secret)
	i.untilRefused(t, all["rotated away, and its grace is over"].secret)
	return all
}

// untilRefused waits until patd itself refuses a token.
func (i *issuer) untilRefused(t *testing.T, secret string) {
	t.Helper()
	waittest.Within(t, patience, "the token has ended", func() bool {
		resp, err := i.client.Do(bearing(t, i.url+"/v1/self", secret))
		must(t, err)
		resp.Body.Close()
		return resp.StatusCode == http.StatusUnauthorized
	})
}

// untilPaused waits until a token is paused that nobody uses.
func (i *issuer) untilPaused(t *testing.T, tok token) {
	t.Helper()
	waittest.Within(t, patience, "the token is paused", func() bool {
		var got struct {
			Token struct {
				IdleTime *time.Time `json:"idle_time"`
			}
		}
		i.call(t, http.MethodGet, "/v1/users/"+tok.user+"/tokens/"+tok.id, nil, &got)
		return got.Token.IdleTime != nil
	})
}

// forged has a token's id and prefix, and another secret.
func forged(t *testing.T, tok token) string {
	t.Helper()
	id, err := secret.ParseID(tok.id)
	must(t, err)
	wrong, err := secret.Mint("pat", id, rand.Reader)
	must(t, err)
	return wrong.Reveal()
}

// TestEveryEndedStateSaysWhyEverywhere asks with a token of every state at every place: all say the same. With another
// secret for the same tokens, all say nothing.
func TestEveryEndedStateSaysWhyEverywhere(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	d := serveWith(t, certificate{}, "--renew-url", renewURL, "--idle-ttl", "1s")
	idle := d.mint(t, "idle", "reports.read")
	d.untilPaused(t, idle)
	d.stop(t)
	d.args = d.args[:len(d.args)-2] // the others are not paused
	d.process = d.start()
	everywhere := places(t, &d.issuer)
	good, soon := d.mint(
		t,
		"fine",
		"reports.read",
	), d.mintWith(
		t,
		"soon",
		map[string]any{"ttl": "864000s"},
		"reports.read",
	)
	states := ended(t, &d.issuer)
	states["paused, since it was not used"] = state{
		idle,
		"TOKEN_IDLE",
		"the token is paused, since it was not used for long; its owner can resume it",
		false,
	}
	for _, p := range everywhere {
		t.Run(p.name, func(t *testing.T) {
			if got := p.ask(t, good.secret); got.refused || got.expires == "" || got.renew != "" {
				t.Errorf("a good token: %+v", got)
			}
			if got := p.ask(t, soon.secret); got.refused || got.expires == "" || got.renew != renewURL {
				t.Errorf("a token that ends in ten days: %+v", got)
			}
			for name, s := range states {
				got := p.ask(t, s.secret)
				if s.route && p.noRoute {
					if got.refused {
						t.Errorf("%s: %+v, want it to pass", name, got)
					}
					continue
				}
				if got.reason != s.reason || !regexp.MustCompile("^"+s.text+"$").MatchString(got.text) {
					t.Errorf("%s: %s, %q, want %s, %q", name, got.reason, got.text, s.reason, s.text)
				}
				missing, suspends := map[string]string{"without the scope": "reports.read"}[name], map[string]string{"with a suspended scope": "reports.read"}[name]
				if got.missing != missing || got.suspends != suspends {
					t.Errorf("%s: missing %q, suspended %q", name, got.missing, got.suspends)
				}
				if got.expires == "" {
					t.Errorf("%s: nothing says when it expires", name)
				}
				if name == "expired" && got.renew != renewURL {
					t.Errorf("%s: the page for renewing is %q", name, got.renew)
				}
				wrong := p.ask(t, forged(t, s.token))
				if want := (said{refused: true, reason: "CREDENTIAL_INVALID", text: "the token is not valid"}); wrong != want {
					t.Errorf("%s, with a wrong secret: %+v, want %+v", name, wrong, want)
				}
			}
		})
	}
}
