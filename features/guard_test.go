package features_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"patd/features"
	"patd/internal/dnstest"
	"patd/tokens"
)

// TestCallbackDialsPublicAddressesOnly holds that a name that resolves to an address of the company's own network, or
// to this machine, is not connected to, whatever it resolved to before.
func TestCallbackDialsPublicAddressesOnly(t *testing.T) {
	t.Parallel()
	for _, a := range []string{"127.0.0.1", "10.0.0.1", "192.168.7.7", "169.254.169.254", "100.64.1.1", "::1", "fd00:ec2::254", "fe80::1", "0.0.0.0"} {
		t.Run(a, func(t *testing.T) {
			s := newCallback(
				t,
				features.CallbackConfig{URL: "https://example.com:1/"}.WithResolver(dnstest.Resolver(t, a)),
			)
			held, err := s.Features(t.Context(), tokens.User{ID: "alice"}, true)
			isOutage(t, held, err)
			if !strings.Contains(err.Error(), "not a public address") {
				t.Errorf("another reason: %v", err)
			}
		})
	}
}

func TestCallbackRebindingGainsNothing(t *testing.T) {
	t.Parallel()
	var internal atomic.Int64
	answer := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Connection", "close")
		_, _ = w.Write([]byte(`{"features":["a"]}`))
	}
	allowed, ca := serve(t, "127.0.0.2:0", http.HandlerFunc(answer))
	_, port, _ := net.SplitHostPort(allowed.Listener.Addr().String())
	serve(
		t,
		"127.0.0.1:"+port,
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { internal.Add(1); answer(w, r) }),
	)
	s := newCallback(t, features.CallbackConfig{
		URL: "https://example.com:" + port, CACertFile: ca, AllowPrivate: prefixes("127.0.0.2/32"),
	}.WithResolver(dnstest.Resolver(t, "127.0.0.2", "127.0.0.1")))
	asked(t, s, "alice", "a")
	allowed.CloseClientConnections()
	held, err := s.Features(t.Context(), tokens.User{ID: "alice"}, true)
	isOutage(t, held, err)
	if internal.Load() > 0 {
		t.Error("the address that the name was rebound to was asked")
	}
}

// TestCallbackKnowsNoProxy holds that the environment cannot send questions elsewhere. The environment is read once a
// process, so the question is asked by another.
func TestCallbackKnowsNoProxy(t *testing.T) {
	t.Parallel()
	const child = "PATD_TEST_PROXY_CHILD"
	if os.Getenv(child) != "" {
		s := newCallback(t, features.CallbackConfig{
			URL: "https://example.com:1/", AllowPrivate: prefixes("127.0.0.0/8"),
		}.WithResolver(dnstest.Resolver(t, "10.0.0.1")))
		held, err := s.Features(t.Context(), tokens.User{ID: "alice"}, true)
		isOutage(t, held, err)
		return
	}
	var proxied atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		proxied.Add(1)
		w.WriteHeader(http.StatusBadGateway)
	}))
	defer proxy.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCallbackKnowsNoProxy$")
	cmd.Env = append(
		os.Environ(),
		child+"=1",
		"HTTPS_PROXY="+proxy.URL,
		"https_proxy="+proxy.URL,
		"ALL_PROXY="+proxy.URL,
		"NO_PROXY=",
		"no_proxy=",
	)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if proxied.Load() > 0 {
		t.Error("the proxy of the environment was asked")
	}
}
