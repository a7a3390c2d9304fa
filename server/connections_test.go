package server_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/internal/waittest"
	"patd/server"
	"patd/server/internal/connection"
)

// preface opens an HTTP/2 connection.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// stranger opens a connection that does nothing more. The channel is closed when the server has closed it.
func stranger(t *testing.T, addr, first string) <-chan struct{} {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	_, _ = io.WriteString(c, first) // it may be closed already
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = io.Copy(io.Discard, c)
	}()
	return over
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestIdleStrangersTakeNobodysRoom(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.Connections = connection.Limits{Max: 16} })
	_, secret := r.mint("u1", "a")
	introspect := func(conn *grpc.ClientConn) {
		t.Helper()
		got, err := patdv1.NewIntrospectionServiceClient(conn).
			Introspect(as(r.admin), &patdv1.IntrospectRequest{Token: secret})
		if err != nil || !got.GetActive() {
			t.Errorf("introspection over gRPC: %v %v", got, err)
		}
	}
	introspect(r.conn)
	stream, err := patdv1.NewIntrospectionServiceClient(r.conn).IntrospectStream(as(r.admin))
	must(t, err)
	// Three connections of HTTP that are known in three ways: by the short way, by the gateway, and by an OAuth
	// endpoint.
	var known []*http.Client
	ask := []func(*http.Client) *http.Request{
		func(*http.Client) *http.Request {
			return restRequest(t, r, "POST", "/v1/introspect", `{"token":"`+secret+`"}`, "application/json")
		},
		func(*http.Client) *http.Request { return restRequest(t, r, "GET", "/v1/users", "", "") },
		func(*http.Client) *http.Request {
			return restRequest(t, r, "POST", "/oauth2/introspect", "token="+secret, "application/x-www-form-urlencoded")
		},
	}
	send := func(c *http.Client, req *http.Request) {
		t.Helper()
		resp, err := c.Do(req)
		if err != nil {
			t.Errorf("a request on a known connection: %v", err)
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %d", req.URL.Path, resp.StatusCode)
		}
	}
	dials := 0
	for i := range ask {
		dialer := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials++
			return new(net.Dialer).DialContext(ctx, network, addr)
		}}
		t.Cleanup(dialer.CloseIdleConnections)
		known = append(known, &http.Client{Transport: dialer})
		send(known[i], ask[i](known[i]))
	}

	var first []<-chan struct{}
	for i := range 40 {
		g, h := stranger(t, r.srv.GRPCAddr(), preface), stranger(t, r.srv.HTTPAddr(), "GET /")
		if i < 10 {
			first = append(first, g, h)
		}
	}
	waittest.Until(t, "strangers that came first are closed", func() bool {
		for _, c := range first {
			if !isClosed(c) {
				return false
			}
		}
		return true
	})
	introspect(r.conn)
	must(t, stream.Send(&patdv1.IntrospectStreamRequest{Id: 1, Request: &patdv1.IntrospectRequest{Token: secret}}))
	if _, err := stream.Recv(); err != nil {
		t.Errorf("a stream on a known connection: %v", err)
	}
	for i := range ask {
		send(known[i], ask[i](known[i]))
	}
	if dials != len(ask) {
		t.Errorf("known connections were closed: %d dials for %d clients", dials, len(ask))
	}
	fresh, err := grpc.NewClient(r.srv.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer fresh.Close()
	introspect(fresh)
	if got := r.rest("GET", "/readyz", "", ""); got.code != http.StatusOK {
		t.Errorf("/readyz: %d", got.code)
	}
	metrics := r.rest("GET", "/metrics", "", "").body
	for _, want := range []string{
		`patd_connections_closed_total\{listener="grpc",reason="limit"\} [1-9]`, `patd_connections_closed_total\{listener="http",reason="limit"\} [1-9]`,
		`patd_connections\{listener="grpc",state="known"\} 2`, `patd_connections\{listener="http",state="anonymous"\} [1-8]\n`,
	} {
		if !regexp.MustCompile(want).MatchString(metrics) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

func TestACallWithoutAGoodCredentialLeavesItsConnectionUnknown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for name, ctx := range map[string]context.Context{"none": context.Background(), "bad": as("pat_nothing")} {
		if _, err := patdv1.NewUserServiceClient(r.conn).
			ListUsers(ctx, &patdv1.ListUsersRequest{}); status.Code(
			err,
		) != codes.Unauthenticated {
			t.Errorf("%s: a list of users: %v", name, err)
		}
		_, err := patdv1.NewIntrospectionServiceClient(r.conn).Introspect(ctx, &patdv1.IntrospectRequest{Token: "x"})
		if status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: an introspection: %v", name, err)
		}
	}
	for _, credential := range []string{"", "pat_nothing"} {
		r.rest("GET", "/v1/users", credential, "")
		r.rest("POST", "/v1/introspect", credential, `{"token":"x"}`)
	}
	metrics := r.rest("GET", "/metrics", "", "").body
	for _, want := range []string{
		`patd_connections{listener="grpc",state="known"} 0`, `patd_connections{listener="http",state="known"} 0`,
		`patd_connections{listener="grpc",state="anonymous"} 1`,
	} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

func restRequest(t *testing.T, r *rig, method, path, body, kind string) *http.Request {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+r.srv.HTTPAddr()+path, strings.NewReader(body))
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+r.admin)
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	return req
}

func TestAGRPCConnectionWithoutACredentialEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.Connections.AnonymousTimeout = 100 * time.Millisecond })
	_, secret := r.mint("u1", "a")
	stream, err := patdv1.NewIntrospectionServiceClient(r.conn).IntrospectStream(as(r.admin))
	must(t, err)
	must(t, stream.Send(&patdv1.IntrospectStreamRequest{Id: 1, Request: &patdv1.IntrospectRequest{Token: secret}}))
	_, err = stream.Recv()
	must(t, err)
	<-stranger(t, r.srv.GRPCAddr(), preface)
	must(t, stream.Send(&patdv1.IntrospectStreamRequest{Id: 2, Request: &patdv1.IntrospectRequest{Token: secret}}))
	if _, err = stream.Recv(); err != nil {
		t.Errorf("a connection with a credential ended too: %v", err)
	}
}

func TestIdleConnectionsEnd(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r := newRig(t, func(c *server.Config) {
		c.Connections = connection.Limits{
			HTTPIdle:         50 * time.Millisecond,
			GRPCIdle:         50 * time.Millisecond,
			AnonymousTimeout: -1,
		}
	})
	<-stranger(t, r.srv.HTTPAddr(), "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	<-stranger(t, r.srv.GRPCAddr(), preface)
}

func TestStreamsOnAnAgedConnectionEndWithAReasonBeforeTheyAreCutOff(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r := newRig(t, func(c *server.Config) {
		c.Connections = connection.Limits{Age: time.Second, Grace: 20 * time.Second}
	})
	r.mint("u1", "a")
	_, err := patdv1.NewUserServiceClient(r.conn).ListUsers(as(r.admin), &patdv1.ListUsersRequest{})
	must(t, err)
	watch, err := patdv1.NewIntrospectionServiceClient(r.conn).
		WatchInvalidations(as(r.admin), &patdv1.WatchInvalidationsRequest{})
	must(t, err)
	stream, err := patdv1.NewIntrospectionServiceClient(r.conn).IntrospectStream(as(r.admin))
	must(t, err)
	for err == nil {
		_, err = watch.Recv()
	}
	_, other := stream.Recv()
	for _, err := range []error{err, other} {
		if s := status.Convert(err); s.Code() != codes.Unavailable || reasonIn(err) != "CONNECTION_AGED" {
			t.Errorf("a stream on an aged connection ended with %v", err)
		}
	}
	if _, err := patdv1.NewUserServiceClient(r.conn).ListUsers(as(r.admin), &patdv1.ListUsersRequest{}); err != nil {
		t.Errorf("a call after it: %v", err)
	}
}

func TestWatchesOfHealthAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	refused := 0
	for range 10 {
		watch, err := healthv1.NewHealthClient(r.conn).Watch(ctx, &healthv1.HealthCheckRequest{})
		must(t, err)
		if _, err = watch.Recv(); status.Code(err) == codes.ResourceExhausted {
			refused++
		}
	}
	if refused != 6 {
		t.Errorf("%d of 10 watches on a connection without a credential were refused", refused)
	}
	_, err := patdv1.NewUserServiceClient(r.conn).ListUsers(as(r.admin), &patdv1.ListUsersRequest{})
	must(t, err)
	watch, err := healthv1.NewHealthClient(r.conn).Watch(ctx, &healthv1.HealthCheckRequest{})
	must(t, err)
	if _, err = watch.Recv(); err != nil {
		t.Errorf("a watch on a connection with a credential: %v", err)
	}
}

func TestPingsThatArriveEarlyAreNoOffence(t *testing.T) {
	t.Parallel()
	longtest.Slow(t)
	r := newRig(t)
	c, err := net.Dial("tcp", r.srv.GRPCAddr())
	must(t, err)
	defer c.Close()
	_, err = io.WriteString(c, preface)
	must(t, err)
	var sending sync.WaitGroup
	defer sending.Wait()
	over := make(chan struct{})
	defer close(over)
	sending.Go(func() {
		interval := time.NewTicker(6 * time.Second) // a client's own, which is what is tested
		defer interval.Stop()
		for i := 0; ; i++ {
			_, _ = fmt.Fprintf(c, "\x00\x00\x08\x06\x00\x00\x00\x00\x00%08d", i)
			select {
			case <-over:
				return
			case <-interval.C:
			}
		}
	})
	must(t, c.SetReadDeadline(time.Now().Add(60*time.Second)))
	frames, acks := bufio.NewReader(c), 0
	for acks < 4 {
		var head [9]byte
		_, err := io.ReadFull(frames, head[:])
		must(t, err)
		_, err = frames.Discard(int(head[0])<<16 | int(head[1])<<8 | int(head[2]))
		must(t, err)
		switch {
		case head[3] == 6 && head[4]&1 == 1:
			acks++
		case head[3] == 7:
			t.Fatal("the client was sent away")
		}
	}
}
