package signin_test

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"

	"patd/server/signin"
	"patd/tokens"
	"patd/tokens/secret"
)

const audience = "https://patd.example/api"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// signingKey makes RSA keys once, since that takes a while.
var signingKey = sync.OnceValues(func() ([]*rsa.PrivateKey, error) {
	var all []*rsa.PrivateKey
	for range 3 {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, err
		}
		all = append(all, k)
	}
	return all, nil
})

func rsaKey(t testing.TB, i int) *rsa.PrivateKey {
	t.Helper()
	all, err := signingKey()
	if err != nil {
		t.Fatal(err)
	}
	return all[i]
}

// clock is a clock that tests set.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.at.Store(time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) now() time.Time       { return time.Unix(0, c.at.Load()).UTC() }
func (c *clock) wait(d time.Duration) { c.at.Add(int64(d)) }

// provider is an OpenID provider in this process, whose answers tests replace.
type provider struct {
	url      string
	clock    *clock
	requests atomic.Int64 // for keys

	mu        sync.Mutex
	discovery http.HandlerFunc
	jwks      http.HandlerFunc
}

func newProvider(t testing.TB, c *clock) *provider {
	t.Helper()
	p := &provider{clock: c}
	s := httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(s.Close)
	p.url = s.URL
	p.set(answer(fmt.Sprintf(`{"issuer": %q, "jwks_uri": %q}`, p.url, p.url+"/jwks")), nil)
	p.publish(t, publicKey("k0", rsaKey(t, 0).Public(), "RS256"))
	return p
}

// padded is one of the answers above, sound but for 10 MiB that come with it.
func padded(h http.HandlerFunc) http.HandlerFunc {
	w := httptest.NewRecorder()
	h(w, nil)
	return answer(strings.TrimSuffix(w.Body.String(), "}") + `, "pad": "` + strings.Repeat("a", 10<<20) + `"}`)
}

func (p *provider) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	discovery, jwks := p.discovery, p.jwks
	p.mu.Unlock()
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		discovery(w, r)
	case "/jwks":
		p.requests.Add(1)
		jwks(w, r)
	default:
		http.NotFound(w, r)
	}
}

// set replaces the answers that are given.
func (p *provider) set(discovery, jwks http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if discovery != nil {
		p.discovery = discovery
	}
	if jwks != nil {
		p.jwks = jwks
	}
}

func (p *provider) publish(t testing.TB, keys ...jose.JSONWebKey) {
	t.Helper()
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	p.set(nil, answer(string(text)))
}

func answer(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(body))
	}
}

// compressed is an answer that is small on its way.
func compressed(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		plain := httptest.NewRecorder()
		h(plain, r)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = z.Write(plain.Body.Bytes())
		_ = z.Close()
	}
}

// fenced is a transport that fails the test when it is to leave for another host than the provider's.
type fenced struct {
	*http.Transport
	t   *testing.T
	url string
}

func (f fenced) RoundTrip(r *http.Request) (*http.Response, error) {
	if at := r.URL.Scheme + "://" + r.URL.Host; at != f.url {
		f.t.Errorf("a request goes to %s", at)
	}
	return f.Transport.RoundTrip(r)
}

func fault(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func publicKey(kid string, key any, alg string) jose.JSONWebKey {
	return jose.JSONWebKey{Key: key, KeyID: kid, Algorithm: alg, Use: "sig"}
}

type claims map[string]any

// good is claims of alice that are in order.
func (p *provider) good() claims {
	now := p.clock.now()
	return claims{"iss": p.url, "sub": "alice", "aud": audience, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
}

func (p *provider) with(changed claims) claims {
	c := p.good()
	maps.Copy(c, changed)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// sign makes a token with the first key.
func (p *provider) sign(t testing.TB, c claims) string {
	t.Helper()
	return sign(t, jose.RS256, rsaKey(t, 0), claims{"kid": "k0", "typ": "JWT"}, c)
}

func sign(t testing.TB, alg jose.SignatureAlgorithm, key any, header claims, payload any) string {
	t.Helper()
	options := &jose.SignerOptions{}
	for k, v := range header {
		options.WithHeader(jose.HeaderKey(k), v)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	text, ok := payload.(string)
	if !ok {
		b, err := json.Marshal(payload)
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	signed, err := s.Sign([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

func part(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// signIn makes a SignIn for one issuer, or as configured.
func signIn(t testing.TB, c signin.Config) *signin.SignIn {
	t.Helper()
	s, err := signin.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func (p *provider) config() signin.Config {
	return signin.Config{Now: p.clock.now, Issuers: []signin.Issuer{{URL: p.url, Audiences: []string{audience}}}}
}

func verify(t testing.TB, s *signin.SignIn, jwt string) (signin.Identity, error) {
	t.Helper()
	who, err := s.Verify(t.Context(), secret.NewSecret(jwt))
	if err != nil && who.User != "" {
		t.Errorf("an error comes with the identity of %q", who.User)
	}
	if err != nil {
		noLeak(t, jwt, err)
	}
	return who, err
}

// noLeak looks for parts of a token in an error, its cause included.
func noLeak(t testing.TB, jwt string, err error) {
	t.Helper()
	text := fmt.Sprintf("%v %+v %#v", err, err, err)
	for _, p := range strings.Split(jwt, ".") {
		if len(p) > 16 && strings.Contains(text, p[:16]) {
			t.Errorf("the token stands in its error: %s", text)
		}
	}
}

func wantUser(t testing.TB, s *signin.SignIn, jwt, user string) signin.Identity {
	t.Helper()
	who, err := verify(t, s, jwt)
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	if who.User != user {
		t.Fatalf("signed in as %q, want %q", who.User, user)
	}
	return who
}

func wantInvalid(t testing.TB, s *signin.SignIn, jwt string) {
	t.Helper()
	wantCode(t, s, jwt, tokens.CodeUnauthenticated, "CREDENTIAL_INVALID")
}

func wantUnavailable(t testing.TB, s *signin.SignIn, jwt string) {
	t.Helper()
	wantCode(t, s, jwt, tokens.CodeUnavailable, "SIGNIN_UNAVAILABLE")
}

func wantCode(t testing.TB, s *signin.SignIn, jwt string, code tokens.Code, reason string) {
	t.Helper()
	who, err := verify(t, s, jwt)
	var e *tokens.Error
	if !errors.As(err, &e) || e.Code != code || e.Reason != reason {
		t.Fatalf("answer %+v, %v; want the reason %s", who, err, reason)
	}
	if code == tokens.CodeUnauthenticated && e.Message != "the token is not valid" {
		t.Errorf("the caller is told %q", e.Message)
	}
}

// logBuffer is a log that is written and read at the same time.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
