package features_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"patd/features"
	"patd/tokens"
)

// names is a DNS server that answers address i to the i-th question about any name, and the last one from then on.
func names(t *testing.T, answers ...string) *net.Resolver {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		asked := 0
		buf := make([]byte, 1500)
		for {
			n, peer, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			a := netip.MustParseAddr(answers[min(asked, len(answers)-1)])
			h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}
			switch {
			case q.Type == dnsmessage.TypeA && a.Is4():
				m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AResource{A: a.As4()}}}
				asked++
			case q.Type == dnsmessage.TypeAAAA && a.Is6():
				m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}}}
				asked++
			}
			m.Response, m.Additionals = true, nil
			packed, err := m.Pack()
			if err == nil {
				_, _ = server.WriteTo(packed, peer)
			}
		}
	}()
	t.Cleanup(func() { server.Close(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

// TestCallbackDialsPublicAddressesOnly holds that a name that resolves to an address of the company's own network, or
// to this machine, is not connected to, whatever it resolved to before.
func TestCallbackDialsPublicAddressesOnly(t *testing.T) {
	for _, a := range []string{"127.0.0.1", "10.0.0.1", "192.168.7.7", "169.254.169.254", "100.64.1.1", "::1", "fd00:ec2::254", "fe80::1", "0.0.0.0"} {
		t.Run(a, func(t *testing.T) {
			s := newCallback(t, features.CallbackConfig{URL: "https://example.com:1/"}.WithResolver(names(t, a)))
			held, err := s.Features(t.Context(), tokens.User{ID: "alice"}, true)
			isOutage(t, held, err)
			if !strings.Contains(err.Error(), "not a public address") {
				t.Errorf("another reason: %v", err)
			}
		})
	}
}

func TestCallbackRebindingGainsNothing(t *testing.T) {
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
	}.WithResolver(names(t, "127.0.0.2", "127.0.0.1")))
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
	const child = "PATD_TEST_PROXY_CHILD"
	if os.Getenv(child) != "" {
		s := newCallback(t, features.CallbackConfig{
			URL: "https://example.com:1/", AllowPrivate: prefixes("127.0.0.0/8"),
		}.WithResolver(names(t, "10.0.0.1")))
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
