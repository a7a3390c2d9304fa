package server_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/waittest"
	"patd/server"
	"patd/tokens"
)

// TestUnknownCallersMessageIsNotRead calls every method that needs a credential without sending a message. Only a
// server that looks at the credential before it reads answers.
func TestUnknownCallersMessageIsNotRead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, m := range []string{"none", "Bearer x"} {
		ctx := context.Background()
		if m != "none" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", m)
		}
		for full, closed := range server.Methods() {
			if !closed {
				continue
			}
			stream, err := r.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, full)
			must(t, err)
			var answer authv3.CheckResponse // other returns are errors
			got := status.Code(stream.RecvMsg(&answer))
			if strings.HasPrefix(full, "/envoy.") && got == codes.OK {
				got = codes.Code(answer.GetStatus().GetCode())
			}
			if got != codes.Unauthenticated {
				t.Errorf("%s with %s: %v", full, m, got)
			}
		}
	}
}

// raw is a message that is sent as it is.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return v.([]byte), nil }
func (raw) Unmarshal(b []byte, v any) error {
	if into, ok := v.(*[]byte); ok && into != nil {
		*into = bytes.Clone(b)
	}
	return nil
}
func (raw) Name() string       { return "proto" }
func rawCall() grpc.CallOption { return grpc.ForceCodec(raw{}) }
func (r *rig) asAdmin() context.Context {
	return metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+r.admin)
}

// TestRepeatedFieldsAreCountedOnTheWire sends half a million empty items where a list is taken.
func TestRepeatedFieldsAreCountedOnTheWire(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for full, tag := range map[string]byte{
		patdv1.IntrospectionService_BatchIntrospect_FullMethodName: 1<<3 | 2,
		patdv1.IntrospectionService_Introspect_FullMethodName:      3<<3 | 2,
		patdv1.IntrospectionService_ReportUses_FullMethodName:      1<<3 | 2,
		patdv1.TokenService_CreateToken_FullMethodName:             3<<3 | 2,
		patdv1.UserService_SetUserFeatures_FullMethodName:          2<<3 | 2,
	} {
		err := r.conn.Invoke(r.asAdmin(), full, bytes.Repeat([]byte{tag, 0}, 500_000), nil, rawCall())
		if status.Code(err) != codes.ResourceExhausted || reasonIn(err) != "TOO_MANY_ITEMS" {
			t.Errorf("%s: %v", full, err)
		}
	}
	for path, body := range map[string]string{
		"/v1/introspect:batch": `{"requests":[` + strings.Repeat("{},", 300_000) + `{}]}`,
		"/v1/introspect":       `{"token":"x","required_scopes":[` + strings.Repeat(`"",`, 300_000) + `""]}`,
	} {
		if got := r.rest(
			"POST",
			path,
			r.admin,
			body,
		); got.code != http.StatusTooManyRequests ||
			!strings.Contains(got.body, "TOO_MANY_ITEMS") {
			t.Errorf("%s: %d %.200s", path, got.code, got.body)
		}
	}
}

// TestEveryListIsCountedOnTheWire sends too many items in each list of each method, as deep as one stands.
func TestEveryListIsCountedOnTheWire(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	lists := 0
	for name, info := range r.srv.ServiceInfo() {
		for _, m := range info.Methods {
			d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name + "." + m.Name))
			must(t, err)
			full := "/" + name + "/" + m.Name
			for path, message := range lengthyLists(d.(protoreflect.MethodDescriptor).Input(), nil) {
				lists++
				switch {
				case m.IsClientStream || m.IsServerStream:
					stream, err := r.conn.NewStream(
						r.asAdmin(),
						&grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
						full,
						rawCall(),
					)
					must(t, err)
					_ = stream.SendMsg(message)
					if err := stream.RecvMsg(nil); err == nil || errors.Is(err, io.EOF) {
						t.Errorf("%s takes 500 000 items in %s: %v", full, path, err)
					}
				case strings.HasPrefix(name, "envoy."):
					// Its answer is a denial; 400 in the metrics says why.
					must(t, r.conn.Invoke(r.asAdmin(), full, message, new([]byte), rawCall()))
				default:
					err := r.conn.Invoke(r.asAdmin(), full, message, nil, rawCall())
					if reason := reasonIn(err); reason != "TOO_MANY_ITEMS" && reason != "BODY_TOO_LARGE" {
						t.Errorf("%s takes 500 000 items in %s: %v", full, path, err)
					}
				}
			}
		}
	}
	if lists < 20 {
		t.Errorf("only %d lists were found", lists)
	}
	if body := r.rest(
		"GET",
		"/metrics",
		"",
		"",
	).body; strings.Contains(
		body,
		`patd_calls_total{code="OK",method="envoy`,
	) {
		t.Error("Check took a list of 500 000 items")
	}
}

// lengthyLists makes a message for each list or map that a message of a type can hold, with half a million empty items.
func lengthyLists(m protoreflect.MessageDescriptor, above []protoreflect.FullName) map[string][]byte {
	found := map[string][]byte{}
	if slices.Contains(above, m.FullName()) {
		return found
	}
	above = append(slices.Clone(above), m.FullName())
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		items := f.Kind() == protoreflect.StringKind || f.Kind() == protoreflect.BytesKind || f.Message() != nil
		if f.Cardinality() == protoreflect.Repeated && items {
			found[string(f.Name())] = bytes.Repeat(
				protowire.AppendBytes(protowire.AppendTag(nil, f.Number(), protowire.BytesType), nil),
				500_000,
			)
		}
		if f.Message() == nil || f.IsMap() {
			continue
		}
		for path, message := range lengthyLists(f.Message(), above) {
			found[string(f.Name())+"."+path] = protowire.AppendBytes(
				protowire.AppendTag(nil, f.Number(), protowire.BytesType),
				message,
			)
		}
	}
	return found
}

// TestABodyIsNotDecodedBeforeItsCallerIsKnown sends a malformed body to every route that takes one. Who calls is looked
// at first, or the error would be about the body.
func TestABodyIsNotDecodedBeforeItsCallerIsKnown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ended, secret := r.mint("u", "n")
	_, err := r.svc.Revoke(context.Background(), tokens.Operator(), "u", ended, "")
	must(t, err)
	body, routes := `{"requests":["`+strings.Repeat("x", 2000), 0
	for name, info := range r.srv.ServiceInfo() {
		for _, m := range info.Methods {
			d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name + "." + m.Name))
			must(t, err)
			rule, _ := proto.GetExtension(d.Options(), annotations.E_Http).(*annotations.HttpRule)
			if rule.GetBody() == "" {
				continue
			}
			routes++
			method, path := "PATCH", rule.GetPatch()
			if path == "" {
				method, path = "PUT", rule.GetPut()
			}
			if path == "" {
				method, path = "POST", rule.GetPost()
			}
			path = regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(path, "x")
			want := http.StatusUnauthorized
			if path == "/v1/leaks" { // it needs no credential
				want = http.StatusBadRequest
			}
			for _, credential := range []string{"patk_x", secret} {
				if got := r.rest(method, path, credential, body); got.code != want {
					t.Errorf("%s %s: %d %s", method, path, got.code, got.body)
				}
			}
		}
	}
	if routes < 15 {
		t.Errorf("only %d routes take a body", routes)
	}
	if log := r.logs.String(); !strings.Contains(log, ended) ||
		!strings.Contains(log, "patd.v1.TokenService/CreateToken") {
		t.Error("the log does not say who was refused, or what")
	}
	for _, path := range []string{"/v1/introspect", "/v1/introspect:batch", "/v1/users/u/tokens"} {
		if got := r.rest("POST", path, r.admin, body); got.code != http.StatusBadRequest {
			t.Errorf("%s of a known caller: %d %s", path, got.code, got.body)
		}
	}
}

// TestAFormIsNotReadBeforeItsSession sends a half of one: the session is found without the other.
func TestAFormIsNotReadBeforeItsSession(t *testing.T) {
	t.Parallel()
	r := pageRig(t)
	b := r.signedIn("u1", time.Hour, "")
	known := func() string {
		return regexp.MustCompile(`patd_connections\{listener="http",state="known"\} \d+`).
			FindString(r.rest("GET", "/metrics", "", "").body)
	}
	before := known()
	conn, err := net.Dial("tcp", r.srv.HTTPAddr())
	must(t, err)
	defer conn.Close()
	_, err = io.WriteString(
		conn,
		"POST /new HTTP/1.1\r\nHost: "+r.srv.HTTPAddr()+"\r\nSec-Fetch-Site: same-origin\r\nCookie: __Host-patd-session="+
			b.cookies["__Host-patd-session"]+"\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nname=x",
	)
	must(t, err)
	waittest.Until(t, "it is counted", func() bool { return known() != before })
}

// TestParametersAreCountedBeforeTheyAreParsed sends more than any call takes, in a form and in a query.
func TestParametersAreCountedBeforeTheyAreParsed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, path := range []string{"/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"} {
		got := r.oauth(path, "token=x"+strings.Repeat("&a=b", 10_000))
		if got.code != http.StatusBadRequest || !strings.Contains(got.body, "FORM_INVALID") {
			t.Errorf("%s: %d %s", path, got.code, got.body)
		}
	}
	got := r.rest("GET", "/v1/users?q=x"+strings.Repeat("&q=x", 5000), "patk_x", "")
	if got.code != http.StatusBadRequest || !strings.Contains(got.body, "QUERY_INVALID") {
		t.Errorf("a query: %d %s", got.code, got.body)
	}
}

// TestUnknownCallersSendAtMost64KiB sends more where no credential is looked at, or none is good.
func TestUnknownCallersSendAtMost64KiB(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	large := strings.Repeat("x", 70_000)
	_, err := patdv1.NewLeakServiceClient(r.conn).
		ReportLeaks(context.Background(), &patdv1.ReportLeaksRequest{Secrets: []string{large}})
	if reasonIn(err) != "BODY_TOO_LARGE" {
		t.Errorf("a report: %v", err)
	}
	_, err = patdv1.NewLeakServiceClient(r.conn).
		ReportLeaks(context.Background(), &patdv1.ReportLeaksRequest{Secrets: []string{large}}, grpc.UseCompressor(gzip.Name))
	if reasonIn(err) != "BODY_TOO_LARGE" {
		t.Errorf("a compressed report: %v", err)
	}
	if got := r.rest(
		"POST",
		"/v1/leaks",
		"",
		`{"secrets":["`+large+`"]}`,
	); got.code != http.StatusRequestEntityTooLarge {
		t.Errorf("a report over REST: %d %s", got.code, got.body)
	}
	body := `{"token":"` + large + `"}`
	if got := r.rest("POST", "/v1/introspect", "patk_x", body); got.code != http.StatusUnauthorized {
		t.Errorf("a bad credential: %d %s", got.code, got.body)
	}
	if got := r.rest("POST", "/v1/introspect", r.admin, body); got.code != http.StatusOK {
		t.Errorf("a good credential: %d %s", got.code, got.body)
	}
	wantMetric(t, r, "patd_unknown_caller_memory_bytes 0")
}

// TestUnknownCallersShareOneBudget refuses them past it, and known ones never.
func TestUnknownCallersShareOneBudget(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.UnknownCallerMemory = 1000 })
	large := strings.Repeat("x", 20_000) // more than the share of a connection
	_, err := patdv1.NewLeakServiceClient(r.conn).
		ReportLeaks(context.Background(), &patdv1.ReportLeaksRequest{Secrets: []string{large}})
	if status.Code(err) != codes.ResourceExhausted || reasonIn(err) != "UNKNOWN_CALLER_MEMORY" {
		t.Errorf("over gRPC: %v", err)
	}
	got := r.rest("POST", "/v1/leaks", "", `{"secrets":["`+large+`"]}`)
	if got.code != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" {
		t.Errorf("over REST: %d %s", got.code, got.body)
	}
	wantMetric(t, r, "patd_unknown_caller_refusals_total 2")
	wantMetric(t, r, "patd_unknown_caller_memory_bytes 0")
	if _, err := patdv1.NewIntrospectionServiceClient(r.conn).
		Introspect(r.asAdmin(), &patdv1.IntrospectRequest{Token: large}); err != nil {
		t.Errorf("a known caller: %v", err)
	}
}

// TestCallersWaitingToBeIdentifiedAreChargedAndNotRefused has lookups of credentials wait, of which one has room.
func TestCallersWaitingToBeIdentifiedAreChargedAndNotRefused(t *testing.T) {
	t.Parallel()
	const room = 64 << 10
	r := newRig(t, func(c *server.Config) { c.UnknownCallerMemory = 2 * room }) // half of it is for connections
	_, secret := r.mint("u", "n")
	release := r.store.parking()
	errs := make(chan error, 3)
	for range cap(errs) {
		go func() {
			_, err := patdv1.NewIntrospectionServiceClient(r.conn).
				Introspect(as(secret), &patdv1.IntrospectRequest{Token: "x"})
			errs <- err
		}()
	}
	waittest.Until(t, "the calls wait", func() bool {
		return strings.Contains(r.rest("GET", "/metrics", "", "").body, "patd_unknown_caller_memory_bytes 65536\n")
	})
	release()
	for range cap(errs) {
		if err := <-errs; status.Code(err) != codes.PermissionDenied { // it is known, and no service
			t.Errorf("a caller who waited: %v", err)
		}
	}
	wantMetric(t, r, "patd_unknown_caller_memory_bytes 0")
}

// TestUnknownCallersDoNotRefuseKnownOnesOverREST fills the budget with a body that never ends.
func TestUnknownCallersDoNotRefuseKnownOnesOverREST(t *testing.T) {
	t.Parallel()
	const room = 60_000
	r := newRig(t, func(c *server.Config) { c.UnknownCallerMemory = 2 * room }) // half of it is for connections
	conn, err := net.Dial("tcp", r.srv.HTTPAddr())
	must(t, err)
	defer conn.Close()
	_, err = io.WriteString(
		conn,
		"POST /v1/leaks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 65000\r\n\r\n"+strings.Repeat(
			"x",
			room,
		),
	)
	must(t, err)
	full := regexp.MustCompile(
		`patd_unknown_caller_memory_bytes (4[89]|5\d)\d{3}\n`,
	) // the rest is the connection's share
	waittest.Until(
		t,
		"the budget is full",
		func() bool { return full.MatchString(r.rest("GET", "/metrics", "", "").body) },
	)
	large := strings.Repeat("x", 30_000)
	if got := r.rest("POST", "/v1/leaks", "", `{"secrets":["`+large+`"]}`); got.code != http.StatusTooManyRequests {
		t.Errorf("a stranger: %d %s", got.code, got.body)
	}
	if got := r.rest("POST", "/v1/leaks", "", `{"secrets":["x"]}`); got.code != http.StatusOK {
		t.Errorf("a stranger within the share of its connection: %d %s", got.code, got.body)
	}
	for path, body := range map[string]string{
		"/v1/introspect":       `{"token":"` + large + `","audience":null}`,
		"/v1/introspect:batch": `{"requests":[{"token":"` + large + `","audience":null}]}`,
	} {
		if got := r.rest("POST", path, r.admin, body); got.code != http.StatusOK {
			t.Errorf("%s of a known caller: %d %s", path, got.code, got.body)
		}
		if got := r.rest("POST", path, "patk_x", body); got.code != http.StatusTooManyRequests {
			t.Errorf("%s of a bad credential: %d %s", path, got.code, got.body)
		}
	}
}

// TestUnreadableMessageEndsAnIntrospectStream holds that it leaves a log line and a metric.
func TestUnreadableMessageEndsAnIntrospectStream(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stream, err := r.conn.NewStream(r.asAdmin(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
		patdv1.IntrospectionService_IntrospectStream_FullMethodName, rawCall())
	must(t, err)
	must(t, stream.SendMsg([]byte{0xff, 0xff, 0xff}))
	if err := stream.RecvMsg(nil); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("an answer: %v", err)
	}
	name := patdv1.IntrospectionService_IntrospectStream_FullMethodName[1:]
	wantMetric(t, r, `patd_calls_total{code="INVALID_ARGUMENT",method="`+name+`"} 1`)
	if log := r.logs.String(); !strings.Contains(log, `"method":"`+name+`","code":"INVALID_ARGUMENT"`) {
		t.Errorf("no log line: %s", log)
	}
}

// TestUnreadableMessageIsLoggedAndCounted sends what is no message, and to Envoy's Check, which answers by a denial.
func TestUnreadableMessageIsLoggedAndCounted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	bad := []byte{0xff, 0xff, 0xff}
	for _, full := range []string{patdv1.IntrospectionService_Introspect_FullMethodName, patdv1.TokenService_CreateToken_FullMethodName} {
		if err := r.conn.Invoke(r.asAdmin(), full, bad, nil, rawCall()); reasonIn(err) != "MESSAGE_INVALID" {
			t.Errorf("%s: %v", full, err)
		}
		wantMetric(t, r, `patd_calls_total{code="INVALID_ARGUMENT",method="`+full[1:]+`"} 1`)
		if err := r.conn.Invoke(
			r.asAdmin(),
			full,
			make([]byte, 3<<20),
			nil,
			rawCall(),
		); reasonIn(
			err,
		) != "BODY_TOO_LARGE" {
			t.Errorf("%s, too large: %v", full, err)
		}
		wantMetric(t, r, `patd_calls_total{code="RESOURCE_EXHAUSTED",method="`+full[1:]+`"} 1`)
	}
	const check = "envoy.service.auth.v3.Authorization/Check"
	for _, message := range [][]byte{bad, make([]byte, 3<<20)} {
		if err := r.conn.Invoke(r.asAdmin(), "/"+check, message, nil, rawCall()); err != nil {
			t.Errorf("Check: %v, want a denial", err)
		}
	}
	wantMetric(t, r, `patd_calls_total{code="INVALID_ARGUMENT",method="`+check+`"} 1`)
}

// TestGzipIsTakenOverGRPCAndRefusedOverREST sends the same question both ways.
func TestGzipIsTakenOverGRPCAndRefusedOverREST(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	in := patdv1.NewIntrospectionServiceClient(r.conn)
	if _, err := in.Introspect(
		r.asAdmin(),
		&patdv1.IntrospectRequest{Token: "x"},
		grpc.UseCompressor(gzip.Name),
	); err != nil {
		t.Errorf("over gRPC: %v", err)
	}
	bomb := &patdv1.IntrospectRequest{Token: strings.Repeat("x", 16<<20)}
	if _, err := in.Introspect(
		r.asAdmin(),
		bomb,
		grpc.UseCompressor(gzip.Name),
	); status.Code(
		err,
	) != codes.ResourceExhausted {
		t.Errorf("16 MiB in 16 KiB: %v", err)
	}
	req, err := http.NewRequest(http.MethodPost, "http://"+r.srv.HTTPAddr()+"/v1/introspect", strings.NewReader("x"))
	must(t, err)
	req.Header.Set("Content-Encoding", "gzip")
	resp, err := r.client.Do(req)
	must(t, err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnsupportedMediaType || resp.Header.Get("Accept-Encoding") != "identity" {
		t.Errorf("over REST: %d, Accept-Encoding %q", resp.StatusCode, resp.Header.Get("Accept-Encoding"))
	}
}

func reasonIn(err error) string {
	reason, _ := grpcReason(err)
	return reason
}
