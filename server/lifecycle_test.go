package server_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/internal/waittest"
	"patd/server"
)

// restDecision introspects over REST.
func restDecision(r *rig, secret string) string {
	got := r.rest("POST", "/v1/introspect", r.admin, `{"token":"`+secret+`"}`)
	var body struct{ Decision string }
	if err := json.Unmarshal([]byte(got.body), &body); err != nil || got.code != http.StatusOK {
		r.t.Errorf("introspect: %d %s", got.code, got.body)
	}
	return body.Decision
}

func TestCallsUnderWayFinishWhenTheServerStops(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, secret := r.mint("u1", "a")
	entered, release := make(chan struct{}, 2), make(chan struct{})
	r.store.set(func(op string) error {
		if op == "Lookup" {
			entered <- struct{}{}
			<-release
		}
		return nil
	})
	watch, err := healthv1.NewHealthClient(r.conn).Watch(context.Background(), &healthv1.HealthCheckRequest{})
	must(t, err)
	_, err = watch.Recv()
	must(t, err)
	decisions := make(chan patdv1.IntrospectResponse_Decision, 2)
	for _, overGRPC := range []bool{true, false} {
		go func() { decisions <- decisionBy(r, overGRPC, secret) }()
	}
	<-entered
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	for err == nil { // the health stream ends when the server starts to drain
		_, err = watch.Recv()
	}
	select {
	case err := <-stopped:
		t.Fatalf("the server stopped with calls under way: %v", err)
	default:
	}
	close(release)
	for range 2 {
		if d := <-decisions; d != patdv1.IntrospectResponse_ALLOW {
			t.Errorf("a call under way was answered %s", d)
		}
	}
	if err := <-stopped; err != nil {
		t.Errorf("a clean drain answered %v", err)
	}
	if _, err := net.Dial("tcp", r.srv.HTTPAddr()); err == nil {
		t.Error("the HTTP listener is still open")
	}
}

func TestCallsThatDoNotFinishAreCutOff(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.DrainTimeout = 50 * time.Millisecond; c.RequestTimeout = time.Minute })
	_, secret := r.mint("u1", "a")
	entered := make(chan struct{})
	hung := make(chan error, 1)
	go func() {
		<-entered
		hung <- r.stop()
	}()
	r.faulty.Hang("Lookup")
	r.store.set(func(op string) error {
		if op == "Lookup" {
			close(entered)
		}
		return nil
	})
	_, err := patdv1.NewIntrospectionServiceClient(r.conn).
		Introspect(as(r.admin), &patdv1.IntrospectRequest{Token: secret})
	if err == nil {
		t.Error("a hanging call was answered")
	}
	if err := <-hung; err != nil || !strings.Contains(r.logs.String(), "cut off") {
		t.Errorf("stopping answered %v; the log should tell of the call", err)
	}
}

func TestPlainTextBeyondLoopbackIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, c := range []server.Config{
		{HTTPAddr: "0.0.0.0:0", GRPCAddr: "127.0.0.1:0"}, {HTTPAddr: "127.0.0.1:0", GRPCAddr: ":0"},
		{HTTPAddr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0", MetricsAddr: "[::]:0"},
	} {
		c.Service = r.svc
		if _, err := server.New(c); err == nil || !strings.Contains(err.Error(), "insecure") {
			t.Errorf("%+v: %v", []string{c.HTTPAddr, c.GRPCAddr, c.MetricsAddr}, err)
		}
	}
	if _, err := server.New(
		server.Config{Service: r.svc, HTTPAddr: "127.0.0.1:0", GRPCAddr: r.srv.GRPCAddr()},
	); err == nil {
		t.Error("an address in use was taken")
	}
	if _, err := server.New(server.Config{}); err == nil {
		t.Error("a server without a service was made")
	}
}

func TestInsecureAndMetricsAddr(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.HTTPAddr, c.Insecure, c.MetricsAddr = "0.0.0.0:0", true, "127.0.0.1:0" })
	if got := r.rest("GET", "/metrics", "", ""); got.code != http.StatusNotFound {
		t.Errorf("metrics on the HTTP listener: %d", got.code)
	}
	resp, err := r.client.Get("http://" + r.srv.MetricsAddr() + "/metrics")
	must(t, err)
	must(t, resp.Body.Close())
	if resp.StatusCode != http.StatusOK {
		t.Errorf("metrics: %d", resp.StatusCode)
	}
}

func TestHealthAndReflectionAreOpen(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	resp, err := healthv1.NewHealthClient(r.conn).Check(as("no good credential"), &healthv1.HealthCheckRequest{})
	if err != nil || resp.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v %v", resp, err)
	}
	list := func(r *rig) error {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		s, err := reflectionv1.NewServerReflectionClient(r.conn).ServerReflectionInfo(ctx)
		must(t, err)
		_ = s.Send(
			&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}},
		)
		_, err = s.Recv()
		return err
	}
	if err := list(r); err != nil {
		t.Errorf("reflection: %v", err)
	}
	if err := list(newRig(t, func(c *server.Config) { c.Reflection = false })); err == nil {
		t.Error("reflection is served though it is off")
	}
}

func TestOneLogLinePerRequest(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, secret := r.mint("u1", "a")
	r.rest("GET", "/v1/self", secret, "", "X-Request-Id", "log-1")
	lines := r.logs.find(map[string]any{"request_id": "log-1"})
	if len(lines) != 1 {
		t.Fatalf("%d lines: %v", len(lines), lines)
	}
	for k, v := range map[string]any{"method": "patd.v1.SelfService/GetSelf", "code": "OK", "actor": "token:" + id, "token_id": id, "actor_token_id": id,
		"http_method": "GET", "http_route": "/v1/self", "http_status": 200.0, "peer": "127.0.0.1"} {
		if lines[0][k] != v {
			t.Errorf("%s is %v, want %v", k, lines[0][k], v)
		}
	}
	if _, ok := lines[0]["duration_ms"].(float64); !ok {
		t.Error("no duration in milliseconds")
	}
	r.rest("GET", "/v1/nothing-here", r.admin, "", "X-Request-Id", "log-2")
	lines = r.logs.find(map[string]any{"request_id": "log-2"})
	if len(lines) != 1 || lines[0]["http_status"] != 404.0 || strings.Contains(r.logs.String(), "nothing-here") {
		t.Errorf("an unrouted request: %v", lines)
	}
	metrics := r.rest("GET", "/metrics", "", "").body
	for _, want := range []string{
		`patd_calls_total{code="OK",method="patd.v1.SelfService/GetSelf"} 1`, `patd_calls_total{code="NOT_FOUND",method="http"} 1`,
		`patd_build_info{goversion=`, "go_goroutines", "process_cpu_seconds_total",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

// writePair writes a certificate for 127.0.0.1 with a serial number, and its key.
func writePair(t *testing.T, certFile, keyFile string, serial int64) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(
			serial,
		),
		Subject:   pkix.Name{CommonName: "patd"},
		NotBefore: time.Now().Add(-time.Hour),
		NotAfter:  time.Now().Add(time.Hour),
		IPAddresses: []net.IP{
			net.IPv4(127, 0, 0, 1),
		},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	must(t, err)
	must(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600))
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return cert
}

// serials reads the serial number of the certificate that a server shows.
func serialOf(t *testing.T, addr string) int64 {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}) // only to read what it shows
	must(t, err)
	serial := conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	must(t, conn.Close())
	return serial
}

func TestTLSServesBothAndFollowsItsFiles(t *testing.T) {
	t.Parallel()
	longtest.Slow(t)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	cert := writePair(t, certFile, keyFile, 1)
	var logs logBuffer
	conf, err := server.LoadTLS(certFile, keyFile, slog.New(slog.NewJSONHandler(&logs, nil)))
	must(t, err)
	r := newRig(t, func(c *server.Config) { c.TLS = conf; c.HTTPAddr = "0.0.0.0:0" })
	addr := "127.0.0.1" + r.srv.HTTPAddr()[strings.LastIndex(r.srv.HTTPAddr(), ":"):]
	roots := x509.NewCertPool()
	roots.AddCert(cert)

	conn, err := grpc.NewClient(
		r.srv.GRPCAddr(),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots})),
	)
	must(t, err)
	_, err = patdv1.NewUserServiceClient(conn).ListUsers(as(r.admin), &patdv1.ListUsersRequest{})
	must(t, errors.Join(err, conn.Close()))
	for _, h2 := range []bool{true, false} {
		client := &http.Client{
			Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: h2},
		}
		req, err := http.NewRequest("GET", "https://"+addr+"/v1/users", nil)
		must(t, err)
		req.Header.Set("Authorization", "Bearer "+r.admin)
		resp, err := client.Do(req)
		must(t, err)
		must(t, resp.Body.Close())
		if resp.StatusCode != http.StatusOK || resp.ProtoMajor == 2 != h2 {
			t.Errorf("REST over TLS: %s %s", resp.Proto, resp.Status)
		}
		client.CloseIdleConnections()
	}
	if _, err := tls.Dial(
		"tcp",
		addr,
		&tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11},
	); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
	if !strings.HasPrefix(r.srv.Issuer(), "https://") {
		t.Errorf("issuer %s", r.srv.Issuer())
	}

	must(t, os.WriteFile(certFile, []byte("broken"), 0o600))
	waittest.Until(
		t,
		"the old certificate stays",
		func() bool { return serialOf(t, addr) == 1 && strings.Contains(logs.String(), "stays") },
	)
	writePair(t, certFile, keyFile, 2)
	waittest.Until(t, "the new certificate is served", func() bool { return serialOf(t, addr) == 2 })
	must(t, os.Remove(keyFile))
	if serial := serialOf(t, r.srv.GRPCAddr()); serial != 2 {
		t.Errorf("gRPC shows certificate %d", serial)
	}
	if _, err := server.LoadTLS(certFile, keyFile, nil); err == nil {
		t.Error("a missing key was no error at start")
	}
}
