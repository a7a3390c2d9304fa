package server_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"google.golang.org/grpc"

	"patd/server"
)

// TestCallWithoutAMessageEnds opens a call and never sends its message.
func TestCallWithoutAMessageEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.RequestTimeout = 200 * time.Millisecond })
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+r.admin)
	stream, err := r.conn.NewStream(
		ctx,
		&grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
		"/patd.v1.IntrospectionService/Introspect",
	)
	must(t, err)
	if err := stream.RecvMsg(&healthv1.HealthCheckResponse{}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
}

func TestHealthOfAnUnknownServiceIsNotFound(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, err := healthv1.NewHealthClient(r.conn).Check(context.Background(), &healthv1.HealthCheckRequest{Service: "x"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("got %v", err)
	}
}

// TestSlowClientsDoNotMakeStoppingAFailure leaves a request half sent.
func TestSlowClientsDoNotMakeStoppingAFailure(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.DrainTimeout = 100 * time.Millisecond })
	conn, err := net.Dial("tcp", r.srv.HTTPAddr())
	must(t, err)
	defer conn.Close()
	_, err = conn.Write(
		[]byte("POST /v1/introspect HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nContent-Length: 100\r\n\r\n{"),
	)
	must(t, err)
	if got := r.rest("GET", "/healthz", "", ""); got.code != 200 {
		t.Errorf("%d", got.code)
	}
	must(t, r.stop())
}

// TestWaitingStreamsEndWithTheServer opens a reflection stream and says nothing on it.
func TestWaitingStreamsEndWithTheServer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stream, err := reflectionv1.NewServerReflectionClient(r.conn).ServerReflectionInfo(context.Background())
	must(t, err)
	if _, err := healthv1.NewHealthClient(r.conn).
		Check(context.Background(), &healthv1.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	must(t, r.stop())
	if _, err := stream.Recv(); err == nil {
		t.Error("the stream outlives the server")
	}
	if strings.Contains(r.logs.String(), "cut off") {
		t.Error("it had to be cut off")
	}
}

func TestIssuerMustBeAURL(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, issuer := range []string{"not a url", "javascript:x", "https://", "https://a?b", "https://a#b", "https://u:p@a", "https://a\nb"} {
		if s, err := server.New(
			server.Config{Service: r.svc, HTTPAddr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0", Issuer: issuer},
		); err == nil {
			t.Errorf("%q is taken as %s", issuer, s.Issuer())
		}
	}
}

func TestAnEmptyBodyReplacesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.features("u1", "a")
	got := r.rest("PUT", "/v1/users/u1/features", r.admin, "")
	if reason, _ := got.reason(); got.code != 400 || reason != "BODY_REQUIRED" {
		t.Errorf("%d %s", got.code, got.body)
	}
	if got := r.rest("PUT", "/v1/users/u1/features", r.admin, `{"features":[]}`); got.code != 200 {
		t.Errorf("%d %s", got.code, got.body)
	}
}
