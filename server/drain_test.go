package server_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	patdv1 "patd/gen/patd/v1"
	"patd/server"
)

func TestEverythingIsServedWhileProbesSayThatTheServerStops(t *testing.T) {
	t.Parallel()
	hurry := make(chan struct{})
	r := newRig(t, func(c *server.Config) { c.DrainDelay, c.Hurry = time.Hour, hurry })
	_, secret := r.mint("u1", "a")
	stream, err := patdv1.NewIntrospectionServiceClient(r.conn).IntrospectStream(as(r.admin))
	must(t, err)
	watch, err := healthv1.NewHealthClient(r.conn).Watch(context.Background(), &healthv1.HealthCheckRequest{})
	must(t, err)
	_, err = watch.Recv()
	must(t, err)

	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	if got, err := watch.Recv(); err != nil || got.GetStatus() != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("a watcher of health: %v %v", got, err)
	}
	if got := r.rest("GET", "/readyz", "", ""); got.code != http.StatusServiceUnavailable {
		t.Errorf("/readyz: %d", got.code)
	}
	fresh, err := grpc.NewClient(r.srv.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer fresh.Close()
	for _, name := range []string{"", "patd.v1.IntrospectionService"} {
		got, err := healthv1.NewHealthClient(fresh).
			Check(context.Background(), &healthv1.HealthCheckRequest{Service: name})
		if err != nil || got.GetStatus() != healthv1.HealthCheckResponse_NOT_SERVING {
			t.Errorf("health of %q: %v %v", name, got, err)
		}
	}
	for _, conn := range []*grpc.ClientConn{r.conn, fresh} {
		got, err := patdv1.NewIntrospectionServiceClient(conn).
			Introspect(as(r.admin), &patdv1.IntrospectRequest{Token: secret})
		if err != nil || !got.GetActive() {
			t.Errorf("introspection over gRPC: %v %v", got, err)
		}
	}
	if d := restDecision(r, secret); d != "ALLOW" {
		t.Errorf("introspection over REST: %s", d)
	}
	must(t, stream.Send(&patdv1.IntrospectStreamRequest{Id: 1, Request: &patdv1.IntrospectRequest{Token: secret}}))
	if got, err := stream.Recv(); err != nil || !got.GetResponse().GetActive() {
		t.Errorf("introspection on a stream: %v %v", got, err)
	}
	select {
	case err := <-stopped:
		t.Fatalf("it stopped before the delay was over: %v", err)
	default:
	}
	close(hurry)
	must(t, <-stopped)
	if _, err := stream.Recv(); err == nil {
		t.Error("a stream outlived the server")
	}
}

func TestAServerWithoutADelayStopsAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	must(t, r.stop())
}

func TestHealthKnowsEachServiceByName(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	health := healthv1.NewHealthClient(r.conn)
	for _, name := range []string{
		"", "patd.v1.IntrospectionService", "patd.v1.TokenService", "patd.v1.SelfService", "patd.v1.UserService", "patd.v1.CatalogService",
		"patd.v1.AuditService", "patd.v1.LeakService", "patd.v1.ServiceAccountService", "envoy.service.auth.v3.Authorization", "grpc.health.v1.Health",
	} {
		got, err := health.Check(context.Background(), &healthv1.HealthCheckRequest{Service: name})
		if err != nil || got.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: %v %v", name, got, err)
		}
	}
	if _, err := health.Check(
		context.Background(),
		&healthv1.HealthCheckRequest{Service: "nosuch"},
	); status.Code(
		err,
	) != codes.NotFound {
		t.Errorf("health of an unknown service: %v", err)
	}
}
