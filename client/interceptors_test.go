package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"patd/client"
	"patd/client/clienttest"
)

// guarded is a gRPC server whose health service stands for any.
type guarded struct {
	grpc_health_v1.UnimplementedHealthServer
	*testing.T
}

func (g guarded) Check(
	ctx context.Context,
	_ *grpc_health_v1.HealthCheckRequest,
) (*grpc_health_v1.HealthCheckResponse, error) {
	if got, ok := client.FromContext(ctx); !ok || got.Token.User != "u" {
		g.Errorf("the handler learns %+v, %v", got, ok)
	}
	return &grpc_health_v1.HealthCheckResponse{}, nil
}

func (g guarded) List(
	ctx context.Context,
	_ *grpc_health_v1.HealthListRequest,
) (*grpc_health_v1.HealthListResponse, error) {
	if _, ok := client.FromContext(ctx); ok {
		g.Error("an open method learns of a token")
	}
	return &grpc_health_v1.HealthListResponse{}, nil
}

// Watch sends until it may not.
func (g guarded) Watch(_ *grpc_health_v1.HealthCheckRequest, s grpc_health_v1.Health_WatchServer) error {
	if got, ok := client.FromContext(s.Context()); !ok || got.Token.User != "u" {
		g.Errorf("the handler learns %+v, %v", got, ok)
	}
	for {
		if err := s.Send(&grpc_health_v1.HealthCheckResponse{}); err != nil {
			return err
		}
	}
}

func guardedBy(t *testing.T, c client.Checker, config client.GRPCConfig) grpc_health_v1.HealthClient {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(
		grpc.UnaryInterceptor(client.UnaryServerInterceptor(c, config)),
		grpc.StreamInterceptor(client.StreamServerInterceptor(c, config)),
	)
	grpc_health_v1.RegisterHealthServer(s, guarded{T: t})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		s.Stop()
		<-done
	})
	return grpc_health_v1.NewHealthClient(conn)
}

func bearing(t *testing.T, authorization ...string) context.Context {
	ctx := t.Context()
	for _, a := range authorization {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", a, "x-forwarded-for", "198.51.100.1")
	}
	return ctx
}

const (
	check = "/grpc.health.v1.Health/Check"
	list  = "/grpc.health.v1.Health/List"
	watch = "/grpc.health.v1.Health/Watch"
)

func TestInterceptorRefusesByDefault(t *testing.T) {
	fake := clienttest.NewFake()
	fake.Allow("good", client.Token{User: "u", Scopes: []string{"read"}})
	call := func(config client.GRPCConfig, authorization ...string) codes.Code {
		_, err := guardedBy(t, fake, config).Check(bearing(t, authorization...), &grpc_health_v1.HealthCheckRequest{})
		return status.Code(err)
	}
	read := client.GRPCConfig{Scopes: map[string][]string{check: {"read"}}}
	for name, c := range map[string]struct{ got, want codes.Code }{
		"named nowhere":        {call(client.GRPCConfig{}, "Bearer good"), codes.PermissionDenied},
		"good":                 {call(read, "bearer good"), codes.OK},
		"by default":           {call(client.GRPCConfig{Default: []string{}}, "Bearer good"), codes.OK},
		"by default, scopes":   {call(client.GRPCConfig{Default: []string{"write"}}, "Bearer good"), codes.PermissionDenied},
		"named wins":           {call(client.GRPCConfig{Scopes: read.Scopes, Default: []string{"write"}}, "Bearer good"), codes.OK},
		"scoped is not opened": {call(client.GRPCConfig{Scopes: map[string][]string{check: {"write"}}, Open: []string{check}}, "Bearer good"), codes.PermissionDenied},
		"no token":             {call(read), codes.Unauthenticated},
		"another scheme":       {call(read, "Basic good"), codes.Unauthenticated},
		"two":                  {call(read, "Bearer good", "Bearer good"), codes.Unauthenticated},
		"unknown":              {call(read, "Bearer bad"), codes.Unauthenticated},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", name, c.got, c.want)
		}
	}
	for _, c := range fake.Calls() {
		if c.ClientIP != netip.MustParseAddr("127.0.0.1") {
			t.Fatalf("asked for a client at %s", c.ClientIP)
		}
	}
	if _, err := guardedBy(
		t,
		fake,
		client.GRPCConfig{Open: []string{list}},
	).List(t.Context(), &grpc_health_v1.HealthListRequest{}); err != nil {
		t.Errorf("an open method: %v", err)
	}
	fake.Fail(errors.New("out"))
	if got := call(read, "Bearer good"); got != codes.Unavailable {
		t.Errorf("in an outage: %s", got)
	}
}

func TestStreamEndsWithItsToken(t *testing.T) {
	fake := clienttest.NewFake()
	fake.Allow("good", client.Token{User: "u", Scopes: []string{"read"}})
	health := guardedBy(t, fake, client.GRPCConfig{Scopes: map[string][]string{watch: {"read"}}})
	ctx, cancel := context.WithTimeout(bearing(t, "Bearer good"), time.Minute)
	defer cancel()
	stream, err := health.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	fake.Refuse("good", client.Revoked)
	for err == nil {
		_, err = stream.Recv()
	}
	if errors.Is(err, io.EOF) || status.Code(err) != codes.Unauthenticated {
		t.Errorf("the stream of a revoked token ends with %v", err)
	}
	if stream, err = health.Watch(bearing(t, "Bearer good"), &grpc_health_v1.HealthCheckRequest{}); err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("a new stream of a revoked token: %v", err)
	}
}
