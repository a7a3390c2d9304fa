package oidctest

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Discovery is the path of the discovery document (OpenID Connect Discovery 1.0 section 4).
const Discovery = "/.well-known/openid-configuration"

// Provider is an OpenID provider in the test's process, on loopback.
type Provider struct {
	// URL is its address, and its issuer unless [Provider.Describe] says otherwise.
	URL string

	now  func() time.Time
	down atomic.Bool
	keys atomic.Int64 // requests for them

	mu        sync.Mutex
	key       Key
	document  string // path of the discovery document
	discovery http.HandlerFunc
	jwks      http.HandlerFunc
	web       *Web // nil: users cannot sign in with a browser
}

// New starts a provider whose tokens are issued at the time that now returns. It signs with a key "k0" of Ed25519.
func New(tb testing.TB, now func() time.Time) *Provider {
	tb.Helper()
	p := &Provider{now: now}
	s := httptest.NewUnstartedServer(p)
	p.URL = "http://" + s.Listener.Addr().String()
	p.Describe(Discovery, p.URL)
	p.SignWith(tb, Key{"k0", jose.EdDSA, ed25519.NewKeyFromSeed([]byte(strings.Repeat("k", ed25519.SeedSize)))})
	s.Start()
	tb.Cleanup(s.Close)
	return p
}

// ServeHTTP serves the discovery document, the keys, and what browsers and clients ask for.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	document, discovery, jwks, web := p.document, p.discovery, p.jwks, p.web
	p.mu.Unlock()
	switch {
	case p.down.Load():
		w.WriteHeader(http.StatusBadGateway)
	case r.URL.Path == document:
		discovery(w, r)
	case r.URL.Path == "/jwks":
		p.keys.Add(1)
		jwks(w, r)
	case web != nil && web.serve(w, r):
	default:
		http.NotFound(w, r)
	}
}

// SetDown has every request fail, or no longer.
func (p *Provider) SetDown(down bool) { p.down.Store(down) }

// KeyRequests counts the requests for keys.
func (p *Provider) KeyRequests() int64 { return p.keys.Load() }

// Describe puts the discovery document at a path, with an issuer. An empty path leaves it out.
func (p *Provider) Describe(path, issuer string) {
	p.mu.Lock()
	p.document = path
	p.mu.Unlock()
	p.Set(JSON(fmt.Sprintf(`{"issuer": %q, "jwks_uri": %q}`, issuer, p.URL+"/jwks")), nil)
}

// Set replaces the responses for the discovery document and for the keys. A nil one stays as it is.
func (p *Provider) Set(discovery, jwks http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if discovery != nil {
		p.discovery = discovery
	}
	if jwks != nil {
		p.jwks = jwks
	}
}

// DiscoveryResponse returns what is served as the discovery document.
func (p *Provider) DiscoveryResponse() http.HandlerFunc {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.discovery
}

// KeysResponse returns what is served as the keys.
func (p *Provider) KeysResponse() http.HandlerFunc {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.jwks
}

// Publish replaces the keys that are served.
func (p *Provider) Publish(tb testing.TB, keys ...jose.JSONWebKey) {
	tb.Helper()
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		tb.Fatal(err)
	}
	p.Set(nil, JSON(string(text)))
}

// SignWith has the provider sign with a key, and publish nothing but its public part.
func (p *Provider) SignWith(tb testing.TB, key Key) {
	tb.Helper()
	p.mu.Lock()
	p.key = key
	p.mu.Unlock()
	p.Publish(tb, key.Public())
}

// Now is the provider's time.
func (p *Provider) Now() time.Time { return p.now() }

// Claims are the claims of a token of a user for an audience that is good for an hour.
func (p *Provider) Claims(user, audience string) Claims {
	now := p.now()
	return Claims{"iss": p.URL, "sub": user, "aud": audience, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
}

// Sign signs claims with the provider's key.
func (p *Provider) Sign(tb testing.TB, c Claims) string {
	tb.Helper()
	key := p.Key()
	return key.Sign(tb, Claims{"kid": key.ID, "typ": "JWT"}, c)
}

// Key returns the key that the provider signs with.
func (p *Provider) Key() Key {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.key
}

// JSON is a response with a body of JSON.
func JSON(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(body))
	}
}

// Fault is a response without a body.
func Fault(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}
