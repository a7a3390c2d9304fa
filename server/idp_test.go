package server_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"patd/server/signin"
	"patd/tokens"
)

const (
	idpAudience = "patd"
	idpFeatures = "entitlements" // the claim
)

// idp is an OpenID provider in this process.
type idp struct {
	url  string
	now  func() time.Time
	key  ed25519.PrivateKey
	down atomic.Bool
	// users is what signIn made.
	users *signin.SignIn
	// web is where users sign in with a browser; nil: they cannot.
	web *webIDP
}

func newIDP(t testing.TB, now func() time.Time) *idp {
	t.Helper()
	p := &idp{now: now, key: ed25519.NewKeyFromSeed([]byte(strings.Repeat("k", ed25519.SeedSize)))}
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	p.url = s.URL
	return p
}

// ServeHTTP serves discovery and keys, unless the provider is down.
func (p *idp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	public := p.key.Public().(ed25519.PublicKey)
	switch {
	case p.down.Load():
		w.WriteHeader(http.StatusBadGateway)
	case p.web != nil && p.web.serve(w, r):
	case r.URL.Path == "/.well-known/openid-configuration":
		_, _ = fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, p.url, p.url+"/jwks")
	case r.URL.Path == "/jwks":
		_, _ = fmt.Fprintf(
			w,
			`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k0","alg":"EdDSA","use":"sig","x":%q}]}`,
			encoded(public),
		)
	default:
		http.NotFound(w, r)
	}
}

// signIn is what verifies the provider's tokens.
func (p *idp) signIn(t testing.TB) *signin.SignIn {
	t.Helper()
	groups := map[string]tokens.Permission{}
	for _, name := range permissionNames {
		may, err := tokens.ParsePermissions([]string{name})
		must(t, err)
		groups["may-"+name] = may
	}
	s, err := signin.New(signin.Config{Now: p.now, Issuers: []signin.Issuer{
		{
			URL:              p.url,
			Audiences:        []string{idpAudience},
			FeaturesClaim:    idpFeatures,
			PermissionsClaim: "groups",
			Permissions:      groups,
		},
	}})
	must(t, err)
	t.Cleanup(s.Close)
	p.users = s
	return s
}

type claim struct {
	name  string
	value any
}

// jwt signs a user in. Claims replace those of a good token.
func (p *idp) jwt(t testing.TB, user string, claims ...claim) string {
	t.Helper()
	all := map[string]any{
		"iss": p.url,
		"sub": user,
		"aud": idpAudience,
		"iat": p.now().Unix(),
		"exp": p.now().Add(time.Hour).Unix(),
	}
	for _, c := range claims {
		all[c.name] = c.value
	}
	payload, err := json.Marshal(all)
	must(t, err)
	text := encoded([]byte(`{"alg":"EdDSA","kid":"k0","typ":"JWT"}`)) + "." + encoded(payload)
	return text + "." + encoded(ed25519.Sign(p.key, []byte(text)))
}

// unsigned is a JWT that says it needs no signature.
func unsigned(jwt string) string {
	return encoded([]byte(`{"alg":"none"}`)) + "." + strings.Split(jwt, ".")[1] + "."
}

func encoded(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
