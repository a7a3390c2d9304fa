package oidctest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"patd/internal/proctest"
)

const (
	// RealAudience is what the access tokens of a [Real] are for.
	RealAudience = "https://patd.example/api"
	// RealSecret is the secret of its clients "web" and "page".
	RealSecret = "a-secret-for-tests-only"
)

// Real is oidc-provider, a certified OpenID provider, run by Node. testdata/provider/provider.mjs says who its clients
// and users are.
type Real struct {
	URL string // its address and issuer

	stop func()
}

// Need skips a test where the real provider cannot run, or fails it in CI.
func Need(tb testing.TB) {
	tb.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		proctest.Missing(tb, "Node, which runs the real OpenID provider,")
	}
	// What npm writes last.
	if _, err := os.Stat(filepath.Join(providerDir(), "node_modules", ".package-lock.json")); err != nil {
		proctest.Missing(tb, "the real OpenID provider (npm ci in internal/oidctest/testdata/provider)")
	}
}

// providerDir is beside this file, wherever a test runs.
func providerDir() string {
	_, here, _, _ := runtime.Caller(0) //nolint:dogsled // only the file matters
	return filepath.Join(filepath.Dir(here), "testdata", "provider")
}

// StartReal runs the real provider until the test ends, on a loopback port, any for "0".
func StartReal(tb testing.TB, port string) *Real {
	tb.Helper()
	Need(tb)
	p, err := RunReal(port)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.Stop)
	return p
}

// RunReal is [StartReal] for what outlives a test. Users of the client "page" are sent back to one of the redirects; if
// there are any, whoever has a password signs in.
func RunReal(port string, redirects ...string) (*Real, error) {
	var ready struct{ Issuer string }
	stop, err := proctest.Helper(providerDir(), nil, &ready, "node", "provider.mjs", port, strings.Join(redirects, ","))
	if err != nil {
		return nil, fmt.Errorf("start the OpenID provider: %w", err)
	}
	return &Real{URL: ready.Issuer, stop: stop}, nil
}

// Stop ends the provider. It may be called twice.
func (p *Real) Stop() {
	p.stop()
	http.DefaultClient.CloseIdleConnections()
}

// Rotate has a new signing key take the place of the old one, which is published no longer.
func (p *Real) Rotate(tb testing.TB) {
	tb.Helper()
	p.post(tb, "/test/rotate", Claims{})
}

// Sign has the provider's current key sign claims that its own endpoints would not.
func (p *Real) Sign(tb testing.TB, header, c Claims) string {
	tb.Helper()
	return p.post(tb, "/test/sign", Claims{"header": header, "claims": c})
}

// Claims are the claims of a token of a user that is good for ten minutes.
func (p *Real) Claims(user string) Claims {
	now := time.Now().Unix()
	return Claims{"iss": p.URL, "sub": user, "aud": RealAudience, "iat": now, "exp": now + 600}
}

// Grant is what the token endpoint returns.
type Grant struct {
	Access string `json:"access_token"`
	ID     string `json:"id_token"`
}

// Exchange asks the token endpoint as the client "web".
func (p *Real) Exchange(tb testing.TB, form url.Values) Grant {
	tb.Helper()
	r, err := http.NewRequestWithContext(
		tb.Context(),
		http.MethodPost,
		p.URL+"/token",
		strings.NewReader(form.Encode()),
	)
	if err != nil {
		tb.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("web", RealSecret)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		tb.Fatal(err)
	}
	var g Grant
	if err := json.Unmarshal([]byte(Read(tb, resp)), &g); err != nil {
		tb.Fatal(err)
	}
	return g
}

// ForItself returns the access token that the client "web" gets for itself (RFC 6749 section 4.4).
func (p *Real) ForItself(tb testing.TB, resource string) string {
	tb.Helper()
	return p.Exchange(tb, url.Values{"grant_type": {"client_credentials"}, "resource": {resource}}).Access
}

func (p *Real) post(tb testing.TB, path string, body Claims) string {
	tb.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		tb.Fatal(err)
	}
	r, err := http.NewRequestWithContext(tb.Context(), http.MethodPost, p.URL+path, bytes.NewReader(text))
	if err != nil {
		tb.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		tb.Fatal(err)
	}
	return Read(tb, resp)
}

// Read returns the body of a response that must be 200.
func Read(tb testing.TB, resp *http.Response) string {
	tb.Helper()
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		tb.Fatalf("%s %s: %s: %v\n%s", resp.Request.Method, resp.Request.URL, resp.Status, err, text)
	}
	return string(text)
}
