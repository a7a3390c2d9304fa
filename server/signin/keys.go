package signin

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

const (
	maxKeys      = 100
	maxRedirects = 3
	maxCause     = 200 // bytes of a provider's fault that are kept for the log
	smallestRSA  = 2048
	largestRSA   = 8192
)

// keySet is the keys that an issuer signs with, at one moment. It does not change.
type keySet struct {
	keys    []jose.JSONWebKey
	fetched time.Time
}

// knows tells whether there is a key of that id.
func (s *keySet) knows(kid string) bool {
	for _, k := range s.keys {
		if k.KeyID == kid {
			return true
		}
	}
	return false
}

// fitting lists the keys that may have signed a token: of its kid, or any when it names none, and of the type that its
// algorithm takes.
func (s *keySet) fitting(kid, alg string) []crypto.PublicKey {
	var out []crypto.PublicKey
	for _, k := range s.keys {
		if (kid == "" || k.KeyID == kid) && (k.Algorithm == "" || k.Algorithm == alg) && fits(k.Key, alg) {
			out = append(out, k.Key)
		}
	}
	return out
}

func fits(key any, alg string) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return alg[:2] == "RS" || alg[:2] == "PS"
	case *ecdsa.PublicKey:
		return alg == oidc.ES256 && k.Curve == elliptic.P256() ||
			alg == oidc.ES384 && k.Curve == elliptic.P384() || alg == oidc.ES512 && k.Curve == elliptic.P521()
	case ed25519.PublicKey:
		return alg == oidc.EdDSA
	}
	return false
}

// fetchKeys asks an issuer where its keys are, and for them. Discovery refuses an answer that names another issuer.
func fetchKeys(ctx context.Context, client *http.Client, issuer string) (*keySet, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, client), issuer)
	if err != nil {
		return nil, fmt.Errorf("discover the issuer: %w", clipped(err))
	}
	var document struct {
		Keys string `json:"jwks_uri"`
	}
	if err := provider.Claims(&document); err != nil {
		return nil, fmt.Errorf("read the discovery document: %w", clipped(err))
	}
	at, err := url.Parse(document.Keys)
	if err != nil {
		return nil, errors.New("read the discovery document: jwks_uri is no URL")
	}
	if err := reachable(at); err != nil {
		return nil, fmt.Errorf("read jwks_uri in the discovery document: %w", err)
	}
	text, err := get(ctx, client, at)
	if err != nil {
		return nil, fmt.Errorf("get the keys: %w", clipped(err))
	}
	keys, err := parseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("read the keys: %w", clipped(err))
	}
	return &keySet{keys: keys}, nil
}

func get(ctx context.Context, client *http.Client, at *url.URL) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the provider answered %d", resp.StatusCode)
	}
	return io.ReadAll(resp.Body)
}

// parseKeys reads a JWK Set (RFC 7517 section 5). Keys that are not for signing, too weak, or not understood are left out; a set
// of which nothing is left is an outage, for no token could be told good from bad.
func parseKeys(text []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, err
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("there are %d, more than %d", len(set.Keys), maxKeys)
	}
	var out []jose.JSONWebKey
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		if err := json.Unmarshal(raw, &k); err == nil && usable(k) {
			out = append(out, k)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("there is none that can be used")
	}
	return out, nil
}

func usable(k jose.JSONWebKey) bool {
	if !k.Valid() || k.Use != "" && k.Use != "sig" {
		return false
	}
	switch key := k.Key.(type) {
	case *rsa.PublicKey:
		return key.N.BitLen() >= smallestRSA && key.N.BitLen() <= largestRSA
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}

// clipped keeps a fault short and printable: it may hold a page that a provider sent.
func clipped(err error) error {
	if text := err.Error(); len(text) > maxCause {
		return errors.New(strconv.QuoteToASCII(text[:maxCause]) + " …")
	}
	return errors.New(strconv.QuoteToASCII(err.Error()))
}

// bounded is a transport whose answers end with an error after some bytes, decompressed.
type bounded struct {
	http.RoundTripper
	most int64
}

// RoundTrip makes one request.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, b.most)
	}
	return resp, err
}

// CloseIdleConnections passes on what http.Client looks for.
func (b bounded) CloseIdleConnections() {
	if c, ok := b.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// sameHost refuses redirects away from where the operator, or discovery, pointed.
func sameHost(r *http.Request, via []*http.Request) error {
	switch first := via[0].URL; {
	case r.URL.Scheme != first.Scheme || r.URL.Host != first.Host:
		return errors.New("it redirects to another host")
	case len(via) > maxRedirects:
		return errors.New("it redirects too often")
	}
	return nil
}
