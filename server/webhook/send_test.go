package webhook_test

import (
	"context"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"patd/internal/dnstest"
	"patd/server/webhook"
	"patd/tokens"
	"patd/tokens/secret"
)

const (
	secretA = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	secretB = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
	message = `{"type":"token.created","timestamp":"2026-01-02T03:04:05Z","data":{}}`
)

func sender(t *testing.T, c webhook.SenderConfig) *webhook.Sender {
	t.Helper()
	c.Now = time.Now
	s, err := webhook.NewSender(c)
	must(t, err)
	t.Cleanup(s.Close)
	return s
}

func send(t *testing.T, s *webhook.Sender, secrets ...string) webhook.Outcome {
	t.Helper()
	var list []tokens.Secret
	for _, text := range secrets {
		list = append(list, secret.NewSecret(text))
	}
	return s.Send(t.Context(), "evt_1_a", []byte(message), list...)
}

func TestMessagesAreSignedAsStandardWebhooksSays(t *testing.T) {
	t.Parallel()
	type got struct {
		body   []byte
		header http.Header
	}
	received := make(chan got, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		received <- got{body, r.Header}
	}))
	t.Cleanup(server.Close)
	s := sender(t, webhook.SenderConfig{URL: server.URL})
	if out := send(t, s, secretA, secretB); !out.Accepted() || out.Status != 200 {
		t.Fatalf("not accepted: %+v", out)
	}
	m := <-received
	if string(m.body) != message || m.header.Get("Content-Type") != "application/json" ||
		m.header.Get("Webhook-Id") != "evt_1_a" {
		t.Errorf("received %s with %v", m.body, m.header)
	}
	for _, text := range []string{secretA, secretB} {
		w, err := standardwebhooks.NewWebhook(text)
		must(t, err)
		must(t, w.Verify(m.body, m.header))
	}
	other, err := standardwebhooks.NewWebhook("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	must(t, err)
	if other.Verify(m.body, m.header) == nil || other.Verify(append(m.body, ' '), m.header) == nil {
		t.Error("a stranger's signature is good")
	}
}

func TestAnAttemptEndsByItsStatus(t *testing.T) {
	t.Parallel()
	later := http.TimeFormat
	for _, test := range []struct {
		name   string
		serve  http.HandlerFunc
		failed webhook.Failure
		status int
		after  time.Duration
	}{
		{"no content", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, "", 204, 0},
		{"error", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, webhook.FailureStatus, 500, 0},
		{"gone", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(410) }, webhook.FailureStatus, 410, 0},
		{"retry after seconds", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "90")
			w.WriteHeader(503)
		}, webhook.FailureStatus, 503, 90 * time.Second},
		{"retry after a time that is past", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", time.Now().Add(-time.Hour).UTC().Format(later))
			w.WriteHeader(429)
		}, webhook.FailureStatus, 429, 0},
		{"retry after years", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "999999999")
			w.WriteHeader(503)
		}, webhook.FailureStatus, 503, 24 * time.Hour},
		{"retry after nonsense", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "-1 soon")
			w.WriteHeader(503)
		}, webhook.FailureStatus, 503, 0},
		{"an endless body", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}, "", 200, 0},
		{"no answer", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, webhook.FailureNetwork, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(test.serve)
			t.Cleanup(server.Close)
			out := send(t, sender(t, webhook.SenderConfig{URL: server.URL}), secretA)
			if out != (webhook.Outcome{Status: test.status, Failure: test.failed, RetryAfter: test.after}) {
				t.Errorf("ended as %+v", out)
			}
		})
	}
}

func TestNoRedirectIsFollowed(t *testing.T) {
	t.Parallel()
	var followed atomic.Bool
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Store(true) }))
	t.Cleanup(target.Close)
	for _, code := range []int{301, 302, 303, 307, 308} {
		server := httptest.NewServer(http.RedirectHandler(target.URL, code))
		t.Cleanup(server.Close)
		out := send(t, sender(t, webhook.SenderConfig{URL: server.URL}), secretA)
		if out.Status != code || out.Failure != webhook.FailureStatus || followed.Load() {
			t.Errorf("%d: %+v", code, out)
		}
	}
}

// TestAnAttemptEndsWithItsContext stands for the bound of 15 s too: both end the same request.
func TestAnAttemptEndsWithItsContext(t *testing.T) {
	t.Parallel()
	reached := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(reached)
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-reached; cancel() }()
	out := sender(
		t,
		webhook.SenderConfig{URL: server.URL},
	).Send(ctx, "evt_1_a", []byte(message), secret.NewSecret(secretA))
	if out.Failure != webhook.FailureTimeout {
		t.Errorf("ended as %+v", out)
	}
}

func TestNoMessageWithoutASecret(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a message was sent") }),
	)
	t.Cleanup(server.Close)
	s := sender(t, webhook.SenderConfig{URL: server.URL})
	if out := send(t, s); out.Failure != webhook.FailureConfig {
		t.Errorf("without a secret: %+v", out)
	}
	if out := send(t, s, "whsec_?"); out.Failure != webhook.FailureConfig {
		t.Errorf("with a secret that is none: %+v", out)
	}
}

func TestAnEndpointMustBeReachableAsItsURLSays(t *testing.T) {
	t.Parallel()
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	closed.Close()
	selfSigned := httptest.NewTLSServer(http.NotFoundHandler())
	selfSigned.Config.ErrorLog = nil
	t.Cleanup(selfSigned.Close)
	for url, want := range map[string]webhook.Failure{
		"http://" + closed.Addr().String(): webhook.FailureConnect,
		selfSigned.URL:                     webhook.FailureTLS,
	} {
		if out := send(t, sender(t, webhook.SenderConfig{URL: url}), secretA); out.Failure != want {
			t.Errorf("%s: %+v", url, out)
		}
	}
	for _, url := range []string{"http://example.com/", "https://10.0.0.1/", "https://169.254.169.254/", "ftp://example.com", "https://u:p@example.com"} {
		if _, err := webhook.NewSender(webhook.SenderConfig{URL: url, Now: time.Now}); err == nil {
			t.Errorf("%s is accepted", url)
		}
	}
}

func TestMessagesReachNoPrivateNetwork(t *testing.T) {
	t.Parallel()
	for _, a := range []string{"127.0.0.1", "10.0.0.1", "192.168.7.7", "169.254.169.254", "100.64.1.1", "::1", "fd00:ec2::254", "fe80::1", "0.0.0.0"} {
		s := sender(
			t,
			webhook.SenderConfig{URL: "https://hooks.example.com:1/"}.WithResolver(dnstest.Resolver(t, a), nil),
		)
		if out := send(t, s, secretA); out.Failure != webhook.FailureAddress {
			t.Errorf("%s: %+v", a, out)
		}
	}
}

func TestRebindingOfAnEndpointsNameGainsNothing(t *testing.T) {
	t.Parallel()
	accept := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") })
	allowed := newTLSServer(t, "127.0.0.2:0", accept)
	_, port, _ := net.SplitHostPort(allowed.Listener.Addr().String())
	newTLSServer(t, "127.0.0.1:"+port, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the address that the name was rebound to received a message")
	}))
	roots := x509.NewCertPool()
	roots.AddCert(allowed.Certificate())
	s := sender(t, webhook.SenderConfig{
		URL: "https://example.com:" + port, AllowPrivate: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")},
	}.WithResolver(dnstest.Resolver(t, "127.0.0.2", "127.0.0.1"), roots))
	if out := send(t, s, secretA); !out.Accepted() {
		t.Fatalf("an allowed network: %+v", out)
	}
	if out := send(t, s, secretA); out.Failure != webhook.FailureAddress {
		t.Errorf("after rebinding: %+v", out)
	}
}

// newTLSServer serves as example.com at an address.
func newTLSServer(t *testing.T, addr string, h http.Handler) *httptest.Server {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	must(t, err)
	server := httptest.NewUnstartedServer(h)
	server.Listener.Close()
	server.Listener = l
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// TestMessagesKnowNoProxy holds that the environment cannot send messages elsewhere. The environment is read once a
// process, so the message is sent by another.
func TestMessagesKnowNoProxy(t *testing.T) {
	t.Parallel()
	const child = "PATD_TEST_PROXY_CHILD"
	if os.Getenv(child) != "" {
		s := sender(
			t,
			webhook.SenderConfig{
				URL: "https://hooks.example.com:1/",
			}.WithResolver(
				dnstest.Resolver(t, "10.0.0.1"),
				nil,
			),
		)
		if out := send(t, s, secretA); out.Failure != webhook.FailureAddress {
			t.Errorf("ended as %+v", out)
		}
		return
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		t.Error("the proxy of the environment was asked")
		w.WriteHeader(http.StatusBadGateway)
	}))
	t.Cleanup(proxy.Close)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMessagesKnowNoProxy$")
	for _, v := range os.Environ() {
		if !strings.Contains(strings.ToUpper(v), "PROXY") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, child+"=1", "HTTPS_PROXY="+proxy.URL, "https_proxy="+proxy.URL, "ALL_PROXY="+proxy.URL)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
