package server_test

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	patdv1 "patd/gen/patd/v1"
	"patd/server"
)

// TestUnknownCallersMessageIsNotRead calls every method that needs a credential without sending a message. Only a server that looks
// at the credential before it reads answers.
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
			var answer authv3.CheckResponse // other answers are errors
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
func (raw) Unmarshal([]byte, any) error   { return nil }
func (raw) Name() string                  { return "proto" }
func rawCall() grpc.CallOption            { return grpc.ForceCodec(raw{}) }
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
		if got := r.rest("POST", path, r.admin, body); got.code != http.StatusTooManyRequests || !strings.Contains(got.body, "TOO_MANY_ITEMS") {
			t.Errorf("%s: %d %.200s", path, got.code, got.body)
		}
	}
}

// TestUnknownCallersSendAtMost64KiB sends more where no credential is looked at, or none is good.
func TestUnknownCallersSendAtMost64KiB(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	large := strings.Repeat("x", 70_000)
	_, err := patdv1.NewLeakServiceClient(r.conn).ReportLeaks(context.Background(), &patdv1.ReportLeaksRequest{Secrets: []string{large}})
	if reasonIn(err) != "BODY_TOO_LARGE" {
		t.Errorf("a report: %v", err)
	}
	_, err = patdv1.NewLeakServiceClient(r.conn).ReportLeaks(context.Background(), &patdv1.ReportLeaksRequest{Secrets: []string{large}}, grpc.UseCompressor(gzip.Name))
	if reasonIn(err) != "BODY_TOO_LARGE" {
		t.Errorf("a compressed report: %v", err)
	}
	if got := r.rest("POST", "/v1/leaks", "", `{"secrets":["`+large+`"]}`); got.code != http.StatusRequestEntityTooLarge {
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
	large := strings.Repeat("x", 2000)
	_, err := patdv1.NewLeakServiceClient(r.conn).ReportLeaks(context.Background(), &patdv1.ReportLeaksRequest{Secrets: []string{large}})
	if status.Code(err) != codes.ResourceExhausted || reasonIn(err) != "UNKNOWN_CALLER_MEMORY" {
		t.Errorf("over gRPC: %v", err)
	}
	got := r.rest("POST", "/v1/leaks", "", `{"secrets":["`+large+`"]}`)
	if got.code != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" {
		t.Errorf("over REST: %d %s", got.code, got.body)
	}
	wantMetric(t, r, "patd_unknown_caller_refusals_total 2")
	wantMetric(t, r, "patd_unknown_caller_memory_bytes 0")
	if _, err := patdv1.NewIntrospectionServiceClient(r.conn).Introspect(r.asAdmin(), &patdv1.IntrospectRequest{Token: large}); err != nil {
		t.Errorf("a known caller: %v", err)
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
		if err := r.conn.Invoke(r.asAdmin(), full, make([]byte, 3<<20), nil, rawCall()); reasonIn(err) != "BODY_TOO_LARGE" {
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
	if _, err := in.Introspect(r.asAdmin(), &patdv1.IntrospectRequest{Token: "x"}, grpc.UseCompressor(gzip.Name)); err != nil {
		t.Errorf("over gRPC: %v", err)
	}
	bomb := &patdv1.IntrospectRequest{Token: strings.Repeat("x", 16<<20)}
	if _, err := in.Introspect(r.asAdmin(), bomb, grpc.UseCompressor(gzip.Name)); status.Code(err) != codes.ResourceExhausted {
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
