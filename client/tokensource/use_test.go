package tokensource_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/credentials/local"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"patd/client/tokensource"
	patdv1 "patd/gen/patd/v1"
	"patd/tokens/secret"
)

func TestASecretGoesToItsOriginsOnly(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	got := map[string]string{}
	note := func(name string, then http.HandlerFunc) *httptest.Server {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			got[name] = r.Header.Get("Authorization")
			mu.Unlock()
			then(w, r)
		}))
		t.Cleanup(srv.Close)
		return srv
	}
	other := note("other", func(http.ResponseWriter, *http.Request) {})
	own := note(
		"own",
		func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) },
	)
	s, _ := source(t, newPatd(day), tokensource.Config{Store: tokensource.Memory(start, nil)})
	c := &http.Client{Transport: s.RoundTripper(nil, own.URL, "http://192.0.2.1")}
	resp, err := c.Get(own.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if got["own"] != "Bearer "+start || got["other"] != "" || len(got) != 2 {
		t.Errorf("what the servers got: %q", got)
	}
	if _, err := c.Get("http://192.0.2.1/"); err == nil || !strings.Contains(err.Error(), "plain text") {
		t.Errorf("plain text to another machine: %v", err)
	}
}

func TestTheSecretIsSentToPatdOverHTTPSOnly(t *testing.T) {
	t.Parallel()
	for _, server := range []string{"http://patd.example", "patd.example", "ftp://patd.example", "https://u:p@patd.example", "https://patd.example?a=b", ""} {
		if _, err := tokensource.REST(server, nil); err == nil {
			t.Errorf("%q is accepted", server)
		}
	}
	for _, server := range []string{"https://patd.example", "https://patd.example/base/", "http://127.0.0.1:8080", "http://localhost:8080"} {
		if _, err := tokensource.REST(server, nil); err != nil {
			t.Errorf("%q: %v", server, err)
		}
	}
	if _, err := tokensource.PlaintextREST("http://patd.example", nil); err != nil {
		t.Error(err)
	}
}

// TestAProxysErrorSaysNothingAboutTheToken: only what patd itself answers is a refusal.
func TestAProxysErrorSaysNothingAboutTheToken(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.HandlerFunc{
		"401 of a proxy": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) },
		"an HTML page":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"a redirect":     func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"JSON of another API": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(403)
			_, _ = io.WriteString(w, `{"error":{"status":"PERMISSION_DENIED"}}`)
		},
	} {
		_, err := serveREST(t, h).Self(t.Context(), secret.NewSecret(start))
		if status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := newPatd(day)
	api := serveREST(t, p)
	if _, err := api.Self(t.Context(), secret.NewSecret("pat_wrong")); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a refusal of patd's: %v", err)
	}
	self, err := api.Self(t.Context(), secret.NewSecret(start))
	if err != nil || !self.ExpireTime.Equal(p.expire) || self.Token.GetTokenId() == "" {
		t.Errorf("%+v, %v", self, err)
	}
}

// overWire serves the fake over gRPC.
type overWire struct {
	patdv1.UnimplementedSelfServiceServer
	p *patd
}

func (o overWire) bearer(ctx context.Context) secret.Secret {
	return secret.NewSecret(
		strings.TrimPrefix(strings.Join(metadata.ValueFromIncomingContext(ctx, "authorization"), ""), "Bearer "),
	)
}

func (o overWire) GetSelf(ctx context.Context, _ *patdv1.GetSelfRequest) (*patdv1.GetSelfResponse, error) {
	self, err := o.p.Self(ctx, o.bearer(ctx))
	if err != nil {
		return nil, err
	}
	return &patdv1.GetSelfResponse{
			Token: self.Token,
		}, grpc.SetHeader(
			ctx,
			metadata.Pairs("patd-token-expires-at", self.ExpireTime.Format("2006-01-02T15:04:05Z")),
		)
}

func (o overWire) RotateSelf(ctx context.Context, r *patdv1.RotateSelfRequest) (*patdv1.RotateSelfResponse, error) {
	return o.p.Rotate(ctx, o.bearer(ctx), r)
}

func TestRotatingOverGRPCIsAsOverREST(t *testing.T) {
	t.Parallel()
	p := newPatd(30 * day)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	patdv1.RegisterSelfServiceServer(srv, overWire{p: p})
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(local.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	p.loseAnswers = 1
	s, _ := source(t, p, tokensource.Config{API: tokensource.GRPC(conn), Store: tokensource.Memory(start, nil)})
	if err := s.RotateNow(t.Context()); status.Code(errors.Unwrap(err)) != codes.Unavailable {
		t.Fatal(err)
	}
	p.wait(day / 24)
	if err := s.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text, err := s.Secret(t.Context()); text != p.current || err != nil || p.made != 1 {
		t.Errorf("%d rotations, %v", p.made, err)
	}
	plain, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = plain.Close() })
	if _, err := tokensource.GRPC(plain).
		Self(t.Context(), secret.NewSecret(start)); err == nil ||
		!strings.Contains(err.Error(), "plain text") {
		t.Errorf("the secret was sent in plain text: %v", err)
	}
}

func TestMemoryStoresEachSecretBeforeItIsUsed(t *testing.T) {
	t.Parallel()
	p := newPatd(30 * day)
	var s *tokensource.Source
	stored := ""
	store := tokensource.Memory(start, func(ctx context.Context, text string) error {
		if used, _ := s.Secret(ctx); used != start {
			t.Error("it is used before it is stored")
		}
		stored = text
		return nil
	})
	s, _ = source(t, p, tokensource.Config{Store: store})
	if err := s.RotateNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text, _ := s.Secret(t.Context()); stored != p.current || text != stored {
		t.Error("the new secret is not the one in use")
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	p := newPatd(30 * day)
	s, _ := source(t, p, tokensource.Config{Store: tokensource.Memory(start, nil)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
