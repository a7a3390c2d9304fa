package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/metadata"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/internal/otlptest"
)

// TestEachCallHasOneSpanInTheTraceOfItsCaller makes a call over each surface. No span holds a secret, and none a user.
func TestEachCallHasOneSpanInTheTraceOfItsCaller(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	data, admin := administer(t)
	collector := otlptest.New(t)
	d := serveWith(t, data, collector.Env())
	a := connect(t, d, admin)
	const user = "marker-user-4711"
	d.call(t, http.MethodPut, "/v1/users/"+user+"/features", admin, `{"features": ["reports.read"]}`).
		want(t, "features", 200)
	token := a.mint(t, user, "traced", "reports.read")
	bearer := "Bearer " + admin
	post := func(path, contentType, body string, headers ...string) func(*testing.T, string) {
		return func(t *testing.T, parent string) {
			d.request(
				t,
				http.MethodPost,
				path,
				body,
				append([]string{"Content-Type", contentType, "Traceparent", parent}, headers...)...)
		}
	}
	get := func(path string, headers ...string) func(*testing.T, string) {
		return func(t *testing.T, parent string) {
			d.request(t, http.MethodGet, path, "", append([]string{"Traceparent", parent}, headers...)...)
		}
	}
	const asJSON, asForm = "application/json", "application/x-www-form-urlencoded"
	long := `{"requests": [` + strings.Repeat(`{"token": "`+token+`"},`, 300) + `{"token": "` + token + `"}]}`
	all := []surface{
		{"gRPC", "patd.v1.IntrospectionService/Introspect", "ALLOW", func(t *testing.T, parent string) {
			if _, err := a.introspect.Introspect(
				metadata.AppendToOutgoingContext(t.Context(), "traceparent", parent),
				&patdv1.IntrospectRequest{Token: token},
			); err != nil {
				t.Fatal(err)
			}
		}},
		{"gRPC, a batch", "patd.v1.IntrospectionService/BatchIntrospect", "", func(t *testing.T, parent string) {
			if _, err := a.introspect.BatchIntrospect(
				metadata.AppendToOutgoingContext(t.Context(), "traceparent", parent),
				&patdv1.BatchIntrospectRequest{Requests: []*patdv1.IntrospectRequest{{Token: token}}},
			); err != nil {
				t.Fatal(err)
			}
		}},
		{"gRPC, a stream", "patd.v1.IntrospectionService/IntrospectStream", "", func(t *testing.T, parent string) {
			stream, err := a.introspect.IntrospectStream(
				metadata.AppendToOutgoingContext(t.Context(), "traceparent", parent),
			)
			if err == nil {
				err = stream.Send(
					&patdv1.IntrospectStreamRequest{Id: 1, Request: &patdv1.IntrospectRequest{Token: token}},
				)
			}
			if err == nil {
				_, err = stream.Recv()
			}
			if err == nil {
				err = stream.CloseSend()
			}
			if err == nil {
				if _, err = stream.Recv(); errors.Is(err, io.EOF) {
					err = nil
				}
			}
			if err != nil {
				t.Fatal(err)
			}
		}},
		{"gRPC, any other", "patd.v1.TokenService/ListTokens", "", func(t *testing.T, parent string) {
			if _, err := a.tokens.ListTokens(
				metadata.AppendToOutgoingContext(t.Context(), "traceparent", parent),
				&patdv1.ListTokensRequest{User: user},
			); err != nil {
				t.Fatal(err)
			}
		}},
		{"Envoy", "envoy.service.auth.v3.Authorization/Check", "ALLOW", func(t *testing.T, parent string) {
			_, err := authv3.NewAuthorizationClient(a.conn).
				Check(metadata.AppendToOutgoingContext(t.Context(), "traceparent", parent), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
					Request: &authv3.AttributeContext_Request{
						Http: &authv3.AttributeContext_HttpRequest{
							Headers: map[string]string{"authorization": "Bearer " + token},
						},
					},
				}})
			if err != nil {
				t.Fatal(err)
			}
		}},
		{
			"REST, the short way",
			"patd.v1.IntrospectionService/Introspect",
			"ALLOW",
			post("/v1/introspect", asJSON, `{"token": "`+token+`"}`, "Authorization", bearer),
		},
		{
			"REST, a large batch",
			"patd.v1.IntrospectionService/BatchIntrospect",
			"",
			post("/v1/introspect:batch", asJSON, long, "Authorization", bearer),
		},
		{
			"REST, the gateway",
			"patd.v1.IntrospectionService/Introspect",
			"ALLOW",
			post("/v1/introspect", asJSON, `{"token": "`+token+`", "audience": null}`, "Authorization", bearer),
		},
		{
			"REST, a refused caller",
			"patd.v1.TokenService/ListTokens",
			"",
			get("/v1/users/"+user+"/tokens", "Authorization", "Bearer "+token),
		},
		{
			"REST, a stranger with a body",
			"patd.v1.TokenService/CreateToken",
			"",
			post("/v1/users/"+user+"/tokens", asJSON, `{"name": "x"}`, "Authorization", "Bearer "+token+"x"),
		},
		{
			"RFC 7662",
			"oauth2.introspect",
			"ALLOW",
			post("/oauth2/introspect", asForm, "token="+token, "Authorization", bearer),
		},
		{
			"RFC 8693",
			"oauth2.token",
			"",
			post(
				"/oauth2/token",
				asForm,
				"grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token="+token+"&subject_token_type=urn:ietf:params:oauth:token-type:access_token",
				"Authorization",
				bearer,
			),
		},
		{"forward-auth", "v1.forward-auth", "ALLOW", get("/v1/forward-auth", "Authorization", "Bearer "+token)},
		{"SCIM", "scim.read", "", get("/scim/v2/Users", "Authorization", bearer)},
		{"security events", "v1.security-events", "", post("/v1/security-events", "application/secevent+jwt", token)},
		{
			"server-sent events",
			"patd.v1.IntrospectionService/WatchInvalidations",
			"",
			func(t *testing.T, parent string) {
				d.request(t, http.MethodHead, "/v1/invalidations", "", "Authorization", bearer, "Traceparent", parent)
			},
		},
		{"a page", "page.handoff", "", get("/handoff?code=nothing")},
		{"RFC 7009", "oauth2.revoke", "", post("/oauth2/revoke", asForm, "token="+token, "Authorization", bearer)},
	}
	for _, one := range all {
		parent, id := traceparent()
		one.call(t, parent)
		s := collector.OfTrace(t, one.name, id)
		if got := s.GetName(); got != one.method || "00-"+s.TraceID()+"-"+s.Parent()+"-01" != parent ||
			s.Attribute("patd.decision") != one.decision {
			t.Errorf(
				"%s: the span %q of %s has the decision %q; want %q of %s and %q",
				one.name,
				got,
				s.Parent(),
				s.Attribute("patd.decision"),
				one.method,
				parent,
				one.decision,
			)
		}
		if one.decision != "" && one.name != "RFC 7662" &&
			s.Attribute("patd.token_id") != strings.Split(token, "_")[1] {
			t.Errorf("%s: the span is about the token %q", one.name, s.Attribute("patd.token_id"))
		}
		if s.Resource["service.name"] != "patd" || s.Attribute("patd.request_id") == "" {
			t.Errorf(
				"%s: the span has the resource %v and the request %q",
				one.name,
				s.Resource,
				s.Attribute("patd.request_id"),
			)
		}
	}
	// Each call has one. The requests of a stream have one of their own each.
	d.Stop()
	counts := map[string]int{}
	items := 0
	for _, s := range collector.Spans() {
		counts[s.TraceID()]++
		if s.Parent() == "" && len(s.GetLinks()) > 0 && s.Attribute("patd.decision") == "ALLOW" {
			items++
		}
		if user := s.Attribute("enduser.id"); user != "" {
			t.Errorf("%s names the user %s", s.GetName(), user)
		}
	}
	for id, n := range counts {
		if n != 1 {
			t.Errorf("%d spans are in the trace %s", n, id)
		}
	}
	if items != 1 {
		t.Errorf("%d requests of the stream have a span with a link to it, want 1", items)
	}
	for what, held := range map[string]string{"the token": token, "the service's token": admin, "the user": user} {
		if strings.Contains(collector.Bytes(), held) {
			t.Errorf("%s is in what was sent", what)
		}
	}
}

// TestAUserIsNamedInATraceOnlyWhenThatIsAskedFor also shows that the metrics are sent, and probes make no span.
func TestAUserIsNamedInATraceOnlyWhenThatIsAskedFor(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	data, admin := administer(t)
	collector := otlptest.New(t)
	d := serveWith(t, data, append(collector.Env(), "OTEL_SERVICE_NAME=tokens-of-acme"), "--trace-user-ids")
	a := connect(t, d, admin)
	d.call(t, http.MethodPut, "/v1/users/alice/features", admin, `{"features": ["reports.read"]}`).
		want(t, "features", 200)
	token := a.mint(t, "alice", "traced", "reports.read")
	d.call(t, http.MethodGet, "/readyz", admin, "").want(t, "a probe", 200)
	d.call(t, http.MethodPost, "/v1/introspect", admin, `{"token": "`+token+`"}`).want(t, "introspection", 200)
	for _, method := range []string{"patd.v1.TokenService/CreateToken", "patd.v1.IntrospectionService/Introspect"} {
		collector.Await(t, "a span of "+method, func(spans []otlptest.Span, _ map[string]bool) bool {
			return slices.ContainsFunc(spans, func(s otlptest.Span) bool {
				return s.GetName() == method && s.Attribute("enduser.id") == "alice" &&
					s.Resource["service.name"] == "tokens-of-acme"
			})
		})
	}
	served := d.call(t, http.MethodGet, "/metrics", admin, "")
	collector.Await(t, "the metrics that /metrics has", func(_ []otlptest.Span, sent map[string]bool) bool {
		for _, m := range servedMetric.FindAllStringSubmatch(served.body, -1) {
			if !sent[m[1]] {
				return false
			}
		}
		return len(sent) > 40
	})
	for _, s := range collector.Spans() {
		if strings.Contains(s.GetName(), "ealth") || strings.Contains(s.GetName(), "ready") {
			t.Errorf("a probe has the span %s", s.GetName())
		}
	}
}

// TestATraceReachesTheCallbackAndTheWebhook follows a call to what patd asks and tells.
func TestATraceReachesTheCallbackAndTheWebhook(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	got := make(chan string, 100)
	webhook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got <- "webhook " + r.Header.Get("Traceparent") + " " + r.Header.Get("Tracestate")
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(webhook.Close)
	callback := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct{ User string }
		_ = json.NewDecoder(r.Body).Decode(&in)
		got <- "callback " + r.Header.Get("Traceparent") + " " + r.Header.Get("Tracestate")
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"user": %q, "features": ["a"]}`, in.User)
	}))
	t.Cleanup(callback.Close)
	data, admin := administer(t)
	collector := otlptest.New(t)
	d := serveWith(t, data, collector.Env(), "--features-source", "callback", "--features-callback-url", callback.URL,
		"--features-callback-key-file", written(t, "key", "a key of at least thirty-two bytes, for tests\n"))
	d.call(t, http.MethodPost, "/v1/webhooks", admin, `{"webhook_id": "all", "url": "`+webhook.URL+`", "enabled": true}`).
		want(t, "a webhook", 201)
	mint := func(user, parent, state string) {
		t.Helper()
		d.request(
			t,
			http.MethodPost,
			"/v1/users/"+user+"/tokens",
			`{"name": "traced", "scopes": ["a"]}`,
			"Authorization",
			"Bearer "+admin,
			"Content-Type",
			"application/json",
			"Traceparent",
			parent,
			"Tracestate",
			state,
		).want(t, "a mint", 200)
	}
	next := func(kind string) string {
		t.Helper()
		for {
			select {
			case one := <-got:
				if rest, ok := strings.CutPrefix(one, kind+" "); ok {
					return rest
				}
			case <-time.After(patience):
				t.Fatalf("the %s was not reached", kind)
			}
		}
	}
	parent, id := traceparent()
	mint("alice", parent, "vendor=1")
	s := collector.OfTrace(t, "the mint", id)
	if asked := next("callback"); asked != s.Context()+" vendor=1" {
		t.Errorf("the callback gets the trace %q, want %q", asked, s.Context()+" vendor=1")
	}
	if told := next("webhook"); told != s.Context()+" " {
		t.Errorf("the webhook gets the trace %q, want %q", told, s.Context())
	}
	// A caller that is not sampled: its trace is passed on, and no span is made. What it may hold of a secret is not.
	parent, id = traceparent()
	parent = strings.TrimSuffix(parent, "1") + "0"
	mint("bob", parent, "")
	if asked := next("callback"); asked != parent+" " {
		t.Errorf("the callback gets the trace %q of a call that is not sampled, want %q", asked, parent)
	}
	if told := next("webhook"); told != " " {
		t.Errorf("the webhook gets the trace %q of a call that is not sampled", told)
	}
	parent, sampled := traceparent()
	mint("carol", parent, "vendor="+admin)
	collector.OfTrace(t, "the last mint", sampled)
	if asked := next("callback"); !strings.Contains(asked, sampled) || strings.Contains(asked, admin) {
		t.Errorf("the callback does not get the trace alone")
	}
	for _, s := range collector.Spans() {
		if s.TraceID() == id {
			t.Errorf("a call that is not sampled has the span %s", s.GetName())
		}
	}
	if strings.Contains(collector.Bytes(), admin) {
		t.Errorf("the secret in a tracestate is in what was sent")
	}
}

// TestASilentCollectorDelaysNoCall has a collector that accepts connections and answers nothing, as a hanging one does.
func TestASilentCollectorDelaysNoCall(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var held sync.Map
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := silent.Accept()
			if err != nil {
				return
			}
			held.Store(c, true)
		}
	})
	t.Cleanup(func() {
		silent.Close()
		accepting.Wait()
		held.Range(func(c, _ any) bool {
			_ = c.(net.Conn).Close()
			return true
		})
	})
	data, admin := administer(t)
	d := serveWith(
		t,
		data,
		[]string{
			"OTEL_EXPORTER_OTLP_ENDPOINT=http://user:marker-password@" + silent.Addr().String(),
			"OTEL_BSP_SCHEDULE_DELAY=20",
			"OTEL_BSP_MAX_QUEUE_SIZE=8",
			"OTEL_BSP_MAX_EXPORT_BATCH_SIZE=8",
			"OTEL_EXPORTER_OTLP_HEADERS=authorization=marker-header,broken=%zz",
		},
	)
	a := connect(t, d, admin)
	for range 200 { // far more than the queue holds
		if _, err := a.introspect.Introspect(t.Context(), &patdv1.IntrospectRequest{Token: "pat_x"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Stop(); err != nil {
		t.Errorf("the server ends with %v", err)
	}
	if text := d.Log.String(); strings.Contains(text, "marker-") || !strings.Contains(text, "could not be sent") {
		t.Errorf("the log does not say that traces could not be sent, or holds a secret:\n%s", text)
	}
}

// TestTheLastSpansAreSentAtTheEnd stops a server that would send hours later.
func TestTheLastSpansAreSentAtTheEnd(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	data, admin := administer(t)
	collector := otlptest.New(t)
	d := serveWith(
		t,
		data,
		[]string{
			"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=" + collector.URL + "/v1/traces",
			"OTEL_BSP_SCHEDULE_DELAY=3600000",
			"OTEL_METRICS_EXPORTER=none",
		},
	)
	parent, id := traceparent()
	d.request(t, http.MethodGet, "/v1/features", "", "Authorization", "Bearer "+admin, "Traceparent", parent).
		want(t, "a call", 200)
	if n := len(collector.Spans()); n > 0 {
		t.Fatalf("%d spans were sent at once", n)
	}
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	if s := collector.Spans(); len(s) != 1 || s[0].TraceID() != id {
		t.Errorf("after the end the collector has %v", s)
	}
}

// TestWrongTraceVariablesAreSaid names the variable, and never its value.
func TestWrongTraceVariablesAreSaid(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	data, _ := administer(t)
	for variable, want := range map[string]string{
		"OTEL_TRACES_SAMPLER=marker-1":                                      "OTEL_TRACES_SAMPLER must be",
		"OTEL_TRACES_SAMPLER=traceidratio OTEL_TRACES_SAMPLER_ARG=marker-2": "OTEL_TRACES_SAMPLER_ARG must be",
		"OTEL_TRACES_EXPORTER=marker-3":                                     "OTEL_TRACES_EXPORTER must be",
		"OTEL_METRICS_EXPORTER=prometheus":                                  "OTEL_METRICS_EXPORTER must be",
		"OTEL_EXPORTER_OTLP_PROTOCOL=grpc":                                  "OTEL_EXPORTER_OTLP_PROTOCOL must be",
		"OTEL_RESOURCE_ATTRIBUTES=marker-4":                                 "OTEL_RESOURCE_ATTRIBUTES must be",
	} {
		env := append(
			append(os.Environ(), "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1"),
			strings.Fields(variable)...)
		d, err := start(
			t.TempDir(),
			env,
			"serve",
			"--data-dir",
			data,
			"--http-addr",
			"127.0.0.1:0",
			"--grpc-addr",
			"127.0.0.1:0",
		)
		if err == nil {
			d.Kill()
		}
		if err == nil || !regexp.MustCompile(want).MatchString(err.Error()) ||
			strings.Contains(err.Error(), "marker-") {
			t.Errorf("with %s the server says %v", variable, err)
		}
	}
}
