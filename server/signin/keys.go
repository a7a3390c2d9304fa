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
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	maxKeys      = 100
	maxRedirects = 3
	maxCause     = 200 // bytes of a provider's error text that are kept for the log
	smallestRSA  = 2048
	wellKnown    = "/.well-known/openid-configuration"
	largestRSA   = 4096 // which is also go-jose's limit
)

// keySet is the set of keys that an issuer signs with, at one moment. It is immutable.
type keySet struct {
	keys    []jose.JSONWebKey
	fetched time.Time
}

// knows reports whether there is a key of that id.
func (s *keySet) knows(kid string) bool {
	for _, k := range s.keys {
		if k.KeyID == kid {
			return true
		}
	}
	return false
}

// fitting returns the keys that may have signed a token: those with its kid, or all if it names none, and of its
// algorithm's type.
func (s *keySet) fitting(kid, alg string) []crypto.PublicKey {
	var out []crypto.PublicKey
	for _, k := range s.keys {
		if (kid == "" || k.KeyID == kid) && (k.Algorithm == "" || k.Algorithm == alg) && fits(k.Key, alg) {
			out = append(out, k.Key)
		}
	}
	return out
}

// signed reports whether one of the keys made a token's signature.
func (s *keySet) signed(t *token) bool {
	return slices.ContainsFunc(s.fitting(t.kid, t.alg), t.signedBy)
}

func fits(key any, alg string) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return alg[:2] == "RS" || alg[:2] == "PS"
	case *ecdsa.PublicKey:
		return alg == string(jose.ES256) && k.Curve == elliptic.P256() ||
			alg == string(jose.ES384) &&
				k.Curve == elliptic.P384() || alg == string(jose.ES512) && k.Curve == elliptic.P521()
	case ed25519.PublicKey:
		return alg == string(jose.EdDSA)
	}
	return false
}

// misconfigured is a permanent fault: the provider's data and the local configuration do not match.
type misconfigured string

func (m misconfigured) Error() string { return string(m) }

// Is reports whether a fault is that nothing is served at an address.
func (m misconfigured) Is(target error) bool {
	return target == errNothingThere && strings.HasPrefix(string(m), nothingThere)
}

// nothingThere begins the fault of an address under which nothing is served.
const nothingThere = "nothing is served under "

var errNothingThere = errors.New("nothing is served there")

// fetchKeys fetches an issuer's keys from where the operator says, or else discovers where they are. skipped lists
// ignored keys, or parts of them, with the cause.
func (r *keyring) fetchKeys(ctx context.Context) (keys *keySet, skipped []string, err error) {
	if r.at != nil {
		return keysAt(ctx, r.client, r.at)
	}
	keys, skipped, err = discoverKeys(ctx, r.client, r.issuer, wellKnown)
	if r.events && errors.Is(err, errNothingThere) {
		// OpenID Shared Signals Framework 1.0 section 7.2; an issuer with a path has it between the host and the path.
		return discoverKeys(ctx, r.client, r.issuer, "/.well-known/ssf-configuration")
	}
	return keys, skipped, err
}

// discoverKeys reads where an issuer's keys are (OpenID Connect Discovery 1.0 section 4), and fetches them.
func discoverKeys(
	ctx context.Context,
	client *http.Client,
	issuer, document string,
) (keys *keySet, skipped []string, err error) {
	from, err := discoveryURL(issuer, document)
	if err != nil {
		return nil, nil, errors.New("discover the issuer: its URL is none")
	}
	trace, seen := noting(ctx)
	text, err := get(trace, client, from)
	if err != nil {
		return nil, nil, fmt.Errorf("discover the issuer: %w", clipped(err))
	}
	var found struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(text, &found); err != nil {
		return nil, nil, fmt.Errorf("read the discovery document: %w", clipped(err))
	}
	if found.Issuer != issuer {
		return nil, nil, misconfigured(
			fmt.Sprintf(
				"the issuer is configured as %q, and its discovery document says %q: configure it as that document spells it",
				issuer,
				short(found.Issuer),
			),
		)
	}
	at, err := url.Parse(found.Keys)
	if err != nil {
		return nil, nil, misconfigured("jwks_uri in the discovery document is no URL")
	}
	if err := reachable(at); err != nil {
		return nil, nil, misconfigured("jwks_uri in the discovery document: " + err.Error())
	}
	bounded, err := fenced(ctx, from, at, seen())
	if err != nil {
		return nil, nil, err
	}
	return keysAt(bounded, client, at)
}

// discoveryURL returns the address of a discovery document. That of OpenID follows the issuer's path, and that of
// shared signals precedes it.
func discoveryURL(issuer, document string) (*url.URL, error) {
	if !strings.HasSuffix(document, "/ssf-configuration") {
		return url.Parse(strings.TrimSuffix(issuer, "/") + document)
	}
	at, err := url.Parse(issuer)
	if err == nil {
		at.Path = document + strings.TrimSuffix(at.Path, "/")
	}
	return at, err
}

// keysAt fetches the keys at a URL.
func keysAt(ctx context.Context, client *http.Client, at *url.URL) (keys *keySet, skipped []string, err error) {
	text, err := get(ctx, client, at)
	if err != nil {
		return nil, nil, fmt.Errorf("get the keys: %w", clipped(err))
	}
	found, skipped, err := parseKeys(text)
	if err != nil {
		return nil, skipped, fmt.Errorf("read the keys: %w", clipped(err))
	}
	return &keySet{keys: found}, skipped, nil
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
		if resp.StatusCode == http.StatusNotFound {
			return nil, misconfigured(nothingThere + shown(at.String()) + " (404)")
		}
		return nil, fmt.Errorf("the provider returned status %d", resp.StatusCode)
	}
	return io.ReadAll(resp.Body)
}

// parseKeys parses a JWK Set (RFC 7517 section 5). Keys that are not for signing, too weak, or unknown are left out. A
// set with no usable key is an outage, since no token could be verified. Certificates of a key are ignored, so an
// unreadable one leaves the key usable.
func parseKeys(text []byte) (keys []jose.JSONWebKey, skipped []string, err error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, nil, err
	}
	if len(set.Keys) > maxKeys {
		return nil, nil, fmt.Errorf("there are %d, more than %d", len(set.Keys), maxKeys)
	}
	for n, raw := range set.Keys {
		k, odd := parseKey(raw)
		if odd != nil {
			skipped = append(skipped, fmt.Sprintf("key %d, kid %q: %v", n+1, short(k.KeyID), clipped(odd)))
		}
		if usable(k) {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, skipped, errors.New("there is none that can be used")
	}
	return keys, skipped, nil
}

// parseKey parses one key. odd is its fault; the key may still be usable.
func parseKey(raw json.RawMessage) (k jose.JSONWebKey, odd error) {
	if odd = json.Unmarshal(raw, &k); odd == nil {
		return k, nil
	}
	var members object
	if err := json.Unmarshal(raw, &members); err != nil {
		return jose.JSONWebKey{}, odd
	}
	kid, _ := members.text("kid")
	for _, certificate := range []string{"x5c", "x5t", "x5t#S256", "x5u"} {
		delete(members, certificate)
	}
	var bare jose.JSONWebKey
	if rest, err := json.Marshal(members); err != nil || json.Unmarshal(rest, &bare) != nil {
		return jose.JSONWebKey{KeyID: kid}, fmt.Errorf("passed over: %w", odd)
	}
	return bare, fmt.Errorf("its certificate is ignored: %w", odd)
}

// short cuts a provider's text to maxCause bytes.
func short(text string) string {
	if len(text) > maxCause {
		return text[:maxCause] + "…"
	}
	return text
}

func usable(k jose.JSONWebKey) bool {
	if k.Key == nil || !k.Valid() || k.Use != "" && k.Use != "sig" {
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

// clipped makes an error short and printable: it may contain a page that a provider sent.
func clipped(err error) error {
	var ours misconfigured
	if errors.As(err, &ours) {
		return ours
	}
	if text := err.Error(); len(text) > maxCause {
		return errors.New(strconv.QuoteToASCII(text[:maxCause]) + " …")
	}
	return errors.New(strconv.QuoteToASCII(err.Error()))
}

// bounded is a transport whose response bodies end with an error after most bytes, decompressed.
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

// CloseIdleConnections forwards the call, for http.Client.
func (b bounded) CloseIdleConnections() {
	if c, ok := b.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// sameHost rejects redirects to another host than the operator, or discovery, named.
func sameHost(r *http.Request, via []*http.Request) error {
	switch first := via[0].URL; {
	case r.URL.Scheme != first.Scheme || r.URL.Host != first.Host:
		return errors.New("it redirects to another host")
	case len(via) > maxRedirects:
		return errors.New("it redirects too often")
	}
	return nil
}
