package main

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"patd/client"
	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/internal/proctest"
	"patd/internal/waittest"
)

// TestNoCallFailsWhileConnectionsAreRenewed has clients call through a balancer while each of their connections ends by
// its age: the Go client, from memory and by asking, and a client of gRPC that tries nothing twice.
func TestNoCallFailsWhileConnectionsAreRenewed(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	data, admin := administer(t)
	d := serve(t, data, "--grpc-connection-age", "1s", "--grpc-connection-age-grace", "8s")
	balancer := proxied(t, d.GRPC)
	a := connect(t, d, admin)
	if _, err := a.users.SetUserFeatures(
		t.Context(),
		&patdv1.SetUserFeaturesRequest{User: "u", Features: []string{"a"}},
	); err != nil {
		t.Fatal(err)
	}
	secret := a.mint(t, "u", "n", "a")

	var dials atomic.Int64
	counted := grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		dials.Add(1)
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	})
	conn, err := client.Dial(
		balancer.addr(),
		client.ServiceToken(client.TokenFile(written(t, "token", admin+"\n"))),
		counted,
		grpc.WithDisableRetry(),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	said := proctest.NewOutput()
	debug := slog.New(slog.NewTextHandler(said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	remembering, err := client.New(conn, client.Config{Logger: debug, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer remembering.Close()
	asking, err := client.New(conn, client.Config{Logger: debug, Timeout: patience, MaxAge: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	defer asking.Close()

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var calls [3]atomic.Int64
	var g sync.WaitGroup
	call := func(i int, once func() (bool, error)) {
		g.Go(func() {
			for ctx.Err() == nil {
				allowed, err := once()
				if ctx.Err() == nil && (err != nil || !allowed) {
					t.Errorf("client %d, call %d: allowed %t, %v", i, calls[i].Load(), allowed, err)
					return
				}
				calls[i].Add(1)
				<-time.After(time.Millisecond)
			}
		})
	}
	for i, v := range []*client.Verifier{remembering, asking} {
		call(i, func() (bool, error) {
			got, err := v.Verify(ctx, secret, client.Call{Scopes: []string{"a"}})
			return got.Allowed(), err
		})
	}
	rpc := patdv1.NewIntrospectionServiceClient(conn)
	call(2, func() (bool, error) {
		got, err := rpc.Introspect(ctx, &patdv1.IntrospectRequest{Token: secret})
		return got.GetActive(), err
	})
	// Three renewals of the connection, and of the streams on it.
	waittest.Within(t, 2*patience, "connections are renewed", func() bool {
		return t.Failed() ||
			dials.Load() > 3 && bytes.Count([]byte(said.String()), []byte("patd renews the connection")) > 3
	})
	stop()
	g.Wait()
	for i := range calls {
		if calls[i].Load() < 10 {
			t.Errorf("client %d made %d calls", i, calls[i].Load())
		}
	}
	for line := range strings.Lines(said.String()) {
		if !strings.Contains(line, "level=DEBUG") {
			t.Errorf("a renewal is no fault, but the client says: %s", line)
		}
	}
	t.Logf("%d dials; %d, %d, %d calls", dials.Load(), calls[0].Load(), calls[1].Load(), calls[2].Load())
}
