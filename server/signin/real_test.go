package signin_test

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"patd/internal/longtest"
	"patd/internal/oidctest"
	"patd/server/signin"
)

// realProvider is a provider that shares no code with patd.
type realProvider struct{ *oidctest.Real }

func startReal(t *testing.T, port string) *realProvider {
	t.Helper()
	longtest.Slow(t)
	return &realProvider{oidctest.StartReal(t, port)}
}

func (p *realProvider) port(t *testing.T) string {
	t.Helper()
	u, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Port()
}

var formAction = regexp.MustCompile(`<form[^>]*action="([^"]+)"`)

// signInAs does what a browser does: the authorization code flow (OpenID Connect Core 1.0 section 3.1), through the
// provider's own pages for login and consent.
func (p *realProvider) signInAs(t *testing.T, user string) oidctest.Grant {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	var code string
	browser := &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if code = r.URL.Query().Get("code"); code != "" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	defer browser.CloseIdleConnections()
	query := url.Values{
		"client_id": {"web"}, "response_type": {"code"}, "scope": {"openid tokens"},
		"redirect_uri": {"http://127.0.0.1/callback"}, "resource": {audience},
	}
	resp, err := browser.Get(p.URL + "/auth?" + query.Encode())
	for _, form := range []url.Values{{"prompt": {"login"}, "login": {user}, "password": {"any"}}, {"prompt": {"consent"}}} {
		if err != nil {
			t.Fatal(err)
		}
		page := oidctest.Read(t, resp)
		action := formAction.FindStringSubmatch(page)
		if action == nil {
			t.Fatalf("there is no form on the page:\n%s", page)
		}
		resp, err = browser.PostForm(action[1], form)
	}
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if code == "" {
		t.Fatalf("no code after consent: %s", resp.Status)
	}
	return p.Exchange(t, url.Values{
		"grant_type":   {"authorization_code"},
		"code":         {code},
		"redirect_uri": {"http://127.0.0.1/callback"},
		"resource":     {audience},
	})
}

func (p *realProvider) config() signin.Config {
	return signin.Config{
		Issuers: []signin.Issuer{{URL: p.URL, Audiences: []string{audience}, FeaturesClaim: "features"}},
	}
}

// in is claims of alice that are in order, with changes.
func (p *realProvider) in(changed claims) claims { return p.Claims("alice").With(changed) }

// publicKeys reads what the provider publishes.
func (p *realProvider) publicKeys(t *testing.T) []jose.JSONWebKey {
	t.Helper()
	resp, err := http.Get(p.URL + "/jwks")
	if err != nil {
		t.Fatal(err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(oidctest.Read(t, resp)), &set); err != nil {
		t.Fatal(err)
	}
	return set.Keys
}

func TestRealProviderSignsUsersIn(t *testing.T) {
	t.Parallel()
	p := startReal(t, "0")
	s := signIn(t, p.config())
	g := p.signInAs(t, "alice")
	who := wantUser(t, s, g.Access, "alice")
	if d := cmp.Diff(
		[]string{"billing.read", "reports.read"},
		who.Features,
	); d != "" || !who.HasFeatures ||
		who.Issuer != p.URL {
		t.Errorf("%+v: %s", who, d)
	}
	if bob := wantUser(t, s, p.signInAs(t, "bob").Access, "bob"); !bob.HasFeatures || len(bob.Features) != 0 {
		t.Errorf("bob holds %v", bob.Features)
	}

	// The ID token is for the client, not for patd, unless the operator says that the client is patd's own page.
	wantInvalid(t, s, g.ID)
	c := p.config()
	c.Issuers[0].Audiences = []string{"web"}
	own := signIn(t, c)
	wantUser(t, own, g.ID, "alice")
	wantInvalid(t, own, g.Access)

	// A program that got a token for itself is a user of that name, if operators let it have tokens for patd at all.
	wantUser(t, s, p.ForItself(t, audience), "web")
	wantInvalid(t, s, p.ForItself(t, "https://other.example/"))
}

func TestRealProviderRefusesForgeries(t *testing.T) {
	t.Parallel()
	p, other := startReal(t, "0"), startReal(t, "0")
	s := signIn(t, p.config())
	now := time.Now().Unix()
	wantUser(t, s, p.Sign(t, claims{"typ": "JWT"}, p.in(nil)), "alice")
	for name, jwt := range map[string]string{
		"wrong audience":              p.Sign(t, nil, p.in(claims{"aud": "https://other.example/"})),
		"expired":                     p.Sign(t, nil, p.in(claims{"exp": now - 60, "iat": now - 3600})),
		"nbf in the future":           p.Sign(t, nil, p.in(claims{"nbf": now + 60})),
		"logout token":                p.Sign(t, claims{"typ": "logout+jwt"}, p.in(nil)),
		"another provider's":          other.signInAs(t, "alice").Access,
		"another provider's, our iss": other.Sign(t, claims{"kid": "key-1"}, p.in(nil)),
		"ours, another iss":           p.Sign(t, nil, p.in(claims{"iss": other.URL})),
	} {
		t.Run(name, func(t *testing.T) { wantInvalid(t, s, jwt) })
	}
	parts := strings.Split(p.Sign(t, nil, p.in(nil)), ".")
	for _, alg := range []string{"none", "None", "NONE", ""} {
		header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"` + alg + `","kid":"key-1"}`))
		wantInvalid(t, s, header+"."+parts[1]+".")
		wantInvalid(t, s, header+"."+parts[1]+"."+parts[2])
	}
	for _, k := range p.publicKeys(t) {
		public, ok := k.Key.(*rsa.PublicKey)
		if !ok {
			t.Fatalf("the provider publishes %T", k.Key)
		}
		for _, jwt := range confused(t, public, k.KeyID, p.in(nil)) {
			wantInvalid(t, s, jwt)
		}
	}
}

func TestRealProviderRotatesAndGoesDown(t *testing.T) {
	t.Parallel()
	p := startReal(t, "0")
	clock := newClock()
	clock.at.Store(time.Now().UnixNano())
	c := p.config()
	c.Now = clock.now
	s := signIn(t, c)
	old := p.signInAs(t, "alice").Access
	wantUser(t, s, old, "alice")

	p.Rotate(t)
	next := p.signInAs(t, "bob").Access
	wantUser(t, s, next, "bob")
	wantInvalid(t, s, old) // its key is not published any more

	p.Stop()
	wantUser(t, s, next, "bob")
	clock.wait(11 * time.Minute)
	wantUser(t, s, next, "bob") // the keys could not be renewed; they serve
	fresh := signIn(t, c)
	wantUnavailable(t, fresh, next)

	again := startReal(t, p.port(t)) // with a new key, under the name of the very first
	clock.wait(3 * time.Second)
	third := again.Sign(t, nil, again.in(claims{"sub": "carol", "exp": clock.now().Unix() + 60}))
	wantUser(t, fresh, third, "carol")
	wantUser(t, s, third, "carol")
	wantInvalid(t, s, next)
}
