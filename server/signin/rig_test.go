package signin_test

import (
	"compress/gzip"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"

	"patd/internal/oidctest"
	"patd/server/signin"
	"patd/tokens"
	"patd/tokens/secret"
)

const audience = oidctest.RealAudience

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

// provider is an OpenID provider on the clock of a test, which signs with the first RSA key.
type provider struct {
	*oidctest.Provider
	clock *clock
}

func newProvider(t testing.TB, c *clock) *provider {
	t.Helper()
	p := &provider{oidctest.New(t, c.now), c}
	p.SignWith(t, oidctest.Key{ID: "k0", Algorithm: jose.RS256, Private: rsaKey(t, 0)})
	return p
}

// padded is a response that is sound but for 10 MiB that come with it.
func padded(h http.HandlerFunc) http.HandlerFunc {
	w := httptest.NewRecorder()
	h(w, nil)
	return oidctest.JSON(strings.TrimSuffix(w.Body.String(), "}") + `, "pad": "` + strings.Repeat("a", 10<<20) + `"}`)
}

// compressed is a response that is small on its way.
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

type claims = oidctest.Claims

// good is claims of alice that are in order.
func (p *provider) good() claims { return p.Claims("alice", audience) }

func (p *provider) with(changed claims) claims { return p.good().With(changed) }

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
	return signin.Config{Now: p.clock.now, Issuers: []signin.Issuer{{URL: p.URL, Audiences: []string{audience}}}}
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
