package signin_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"patd/internal/oidctest"
	"patd/server/signin"
	"patd/tokens/secret"
)

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	good := signin.Issuer{URL: "https://id.example", Audiences: []string{"a"}}
	for name, change := range map[string]func(*signin.Issuer){
		"no URL":              func(i *signin.Issuer) { i.URL = "" },
		"not a URL":           func(i *signin.Issuer) { i.URL = "https://%zz" },
		"half a URL":          func(i *signin.Issuer) { i.URL = "https://" },
		"a port alone":        func(i *signin.Issuer) { i.URL = "https://:443" },
		"another scheme":      func(i *signin.Issuer) { i.URL = "ftp://id.example" },
		"http elsewhere":      func(i *signin.Issuer) { i.URL = "http://id.example" },
		"http to a lookalike": func(i *signin.Issuer) { i.URL = "http://127.0.0.1.example" },
		"http, private":       func(i *signin.Issuer) { i.URL = "http://10.0.0.1" },
		"a query":             func(i *signin.Issuer) { i.URL = "https://id.example?a=b" },
		"a fragment":          func(i *signin.Issuer) { i.URL = "https://id.example#" },
		"a password":          func(i *signin.Issuer) { i.URL = "https://u:p@id.example" },
		"no audience":         func(i *signin.Issuer) { i.Audiences = nil },
		"an empty audience":   func(i *signin.Issuer) { i.Audiences = []string{"a", ""} },
		"none":                func(i *signin.Issuer) { i.Algorithms = []string{"none"} },
		"HS256":               func(i *signin.Issuer) { i.Algorithms = []string{"RS256", "HS256"} },
		"a long prefix":       func(i *signin.Issuer) { i.UserPrefix = strings.Repeat("a", 256) },
		"a control prefix":    func(i *signin.Issuer) { i.UserPrefix = "a\n" },
	} {
		bad := good
		change(&bad)
		if _, err := signin.New(signin.Config{Issuers: []signin.Issuer{bad}}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for _, c := range []signin.Config{
		{}, {Issuers: []signin.Issuer{good, good}}, {Issuers: []signin.Issuer{good}, Leeway: -1}, {Issuers: []signin.Issuer{good}, Leeway: time.Hour},
	} {
		if _, err := signin.New(c); err == nil {
			t.Errorf("taken: %+v", c)
		}
	}
	for _, url := range []string{"https://id.example/tenant/", "http://localhost:1", "http://127.8.9.1:1", "http://[::1]:1"} {
		at := good
		at.URL = url
		signIn(t, signin.Config{Issuers: []signin.Issuer{at}})
	}
}

func TestSignedInUser(t *testing.T) {
	t.Parallel()
	p := newProvider(t, newClock())
	s := signIn(t, p.config())
	got := wantUser(t, s, p.Sign(t, p.good()), "alice")
	want := signin.Identity{User: "alice", Issuer: p.URL, Expiry: p.clock.now().Add(time.Hour).Truncate(time.Second)}
	want.End = want.Expiry.Add(30 * time.Second) // the leeway
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, typ := range []string{"jwt", "at+jwt", "AT+JWT", "application/at+jwt", "application/jwt"} {
		wantUser(t, s, oidctest.Sign(t, jose.RS256, rsaKey(t, 0), claims{"typ": typ}, p.good()), "alice")
	}
	wantUser(t, s, p.Sign(t, p.with(claims{"aud": []string{"other", audience}})), "alice")
	wantUser(t, s, p.Sign(t, p.with(claims{"exp": float64(p.clock.now().Unix()) + 0.5, "nbf": 0, "iat": nil})), "alice")
	if n := p.KeyRequests(); n != 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
}

func TestEveryPinnedAlgorithm(t *testing.T) {
	t.Parallel()
	p := newProvider(t, newClock())
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p.Publish(
		t,
		oidctest.PublicKey("r", rsaKey(t, 0).Public(), ""),
		oidctest.PublicKey("e", ec.Public(), ""),
		oidctest.PublicKey("e3", ec384.Public(), ""),
		oidctest.PublicKey("d", public, "EdDSA"),
	)
	s := signIn(t, p.config())
	only := p.config()
	only.Issuers[0].Algorithms = []string{"ES384"}
	pinned := signIn(t, only)
	for _, c := range []struct {
		alg  jose.SignatureAlgorithm
		key  any
		kid  string
		good bool
	}{
		{jose.RS256, rsaKey(t, 0), "r", true},
		{jose.PS256, rsaKey(t, 0), "r", true},
		{jose.ES256, ec, "e", true},
		{jose.EdDSA, private, "d", true},
		{jose.RS512, rsaKey(t, 0), "r", false},
		{jose.ES384, ec384, "e3", false},
		{jose.RS256, rsaKey(t, 0), "e", false}, // another type of key under that kid
		{jose.ES256, ec, "d", false},
	} {
		jwt := oidctest.Sign(t, c.alg, c.key, claims{"kid": c.kid}, p.good())
		if c.good {
			wantUser(t, s, jwt, "alice")
		} else {
			wantInvalid(t, s, jwt)
		}
		if c.alg == jose.ES384 {
			wantUser(t, pinned, jwt, "alice")
		} else {
			wantInvalid(t, pinned, jwt)
		}
	}
}

func TestBadTokensAreOneAnswer(t *testing.T) {
	t.Parallel()
	p, other := newProvider(t, newClock()), newProvider(t, newClock())
	c := p.config()
	c.Issuers = append(c.Issuers, signin.Issuer{URL: other.URL, Audiences: []string{"other"}})
	s := signIn(t, c)
	other.Publish(t, oidctest.PublicKey("k1", rsaKey(t, 1).Public(), "RS256"))
	now := p.clock.now()
	key := rsaKey(t, 0)
	good := p.Sign(t, p.good())
	parts := strings.Split(good, ".")
	payload, err := json.Marshal(p.good())
	if err != nil {
		t.Fatal(err)
	}

	bad := map[string]string{
		"empty":              "",
		"dots":               "..",
		"no JWT":             "hello",
		"a patd secret":      "pat_15ODq7pq8Hy_0Eoh211G4c8wtVWM00my5rsNSFlKgaWqQ4mb8gdEqno0QDLb0",
		"white space":        " " + good,
		"line end":           good + "\n",
		"four parts":         good + ".a",
		"JSON serialization": `{"payload":"a"}`,
		"too long":           p.Sign(t, p.with(claims{"pad": strings.Repeat("a", 16<<10)})),
		"respelled":          respelled(good),
		"no signature":       parts[0] + "." + parts[1] + ".",
		"another payload": parts[0] + "." + part(
			strings.Replace(string(payload), "alice", "admin", 1),
		) + "." + parts[2],
		"header is a list": part(`[]`) + "." + parts[1] + "." + parts[2],
		"header is null":   part(`null`) + "." + parts[1] + "." + parts[2],
		"alg none":         part(`{"alg":"none"}`) + "." + parts[1] + ".",
		"alg None, signed": part(`{"alg":"None","kid":"k0"}`) + "." + parts[1] + "." + parts[2],
		"alg a number":     part(`{"alg":256}`) + "." + parts[1] + "." + parts[2],
		"kid a number":     oidctest.Sign(t, jose.RS256, key, claims{"kid": 1}, p.good()),
		"unknown key":      oidctest.Sign(t, jose.RS256, rsaKey(t, 2), claims{"kid": "k0"}, p.good()),
		"unknown kid":      oidctest.Sign(t, jose.RS256, key, claims{"kid": "k9"}, p.good()),
		"other's key":      oidctest.Sign(t, jose.RS256, rsaKey(t, 1), claims{"kid": "k1"}, p.good()),
		"embedded key":     embedded(t, p.good()),
		"jku": oidctest.Sign(
			t,
			jose.RS256,
			rsaKey(t, 2),
			claims{"kid": "k9", "jku": p.URL + "/jwks"},
			p.good(),
		),
		"critical":     oidctest.Sign(t, jose.RS256, key, claims{"kid": "k0", "crit": []string{"exp"}}, p.good()),
		"b64":          oidctest.Sign(t, jose.RS256, key, claims{"kid": "k0", "b64": true}, p.good()),
		"logout token": oidctest.Sign(t, jose.RS256, key, claims{"kid": "k0", "typ": "logout+jwt"}, p.good()),
		"event token": p.Sign(
			t,
			p.with(claims{"events": claims{"http://schemas.openid.net/event/backchannel-logout": claims{}}}),
		),
		"typ a number":   oidctest.Sign(t, jose.RS256, key, claims{"kid": "k0", "typ": 1}, p.good()),
		"bound to a key": p.Sign(t, p.with(claims{"cnf": claims{"jkt": "x"}})),

		"claims a list": oidctest.Sign(t, jose.RS256, key, claims{"kid": "k0"}, `[]`),
		"claims no UTF-8": oidctest.Sign(
			t,
			jose.RS256,
			key,
			claims{"kid": "k0"},
			strings.Replace(string(payload), "{", "{\"pad\":\"\xff\",", 1),
		),
		"sub twice": oidctest.Sign(
			t,
			jose.RS256,
			key,
			claims{"kid": "k0"},
			strings.Replace(string(payload), "{", `{"sub":"admin",`, 1),
		),
		"no iss":          p.Sign(t, p.with(claims{"iss": nil})),
		"iss and a slash": p.Sign(t, p.with(claims{"iss": p.URL + "/"})),
		"iss in capitals": p.Sign(t, p.with(claims{"iss": strings.ToUpper(p.URL)})),
		"iss elsewhere":   p.Sign(t, p.with(claims{"iss": "https://accounts.google.com"})),
		"iss of another":  p.Sign(t, p.with(claims{"iss": other.URL, "aud": "other"})),
		"ISS":             p.Sign(t, p.with(claims{"iss": nil, "ISS": p.URL})),
		"no aud":          p.Sign(t, p.with(claims{"aud": nil})),
		"wrong aud":       p.Sign(t, p.with(claims{"aud": "other"})),
		"part of aud":     p.Sign(t, p.with(claims{"aud": audience[:10]})),
		"aud a number":    p.Sign(t, p.with(claims{"aud": []any{audience, 1}})),
		"no exp":          p.Sign(t, p.with(claims{"exp": nil})),
		"exp a string":    p.Sign(t, p.with(claims{"exp": fmt.Sprint(now.Unix() + 60)})),
		"exp too far":     p.Sign(t, p.with(claims{"exp": 1e300})),
		"exp negative":    p.Sign(t, p.with(claims{"exp": -1})),
		"expired":         p.Sign(t, p.with(claims{"exp": now.Unix() - 30})),
		"not yet":         p.Sign(t, p.with(claims{"nbf": now.Unix() + 31})),
		"nbf a string":    p.Sign(t, p.with(claims{"nbf": "now"})),
		"from the future": p.Sign(t, p.with(claims{"iat": now.Unix() + 31})),
	}
	for name, sub := range map[string]any{
		"no sub": nil, "sub empty": "", "sub a number": 7, "sub true": true, "sub a list": []string{"alice"}, "sub an object": claims{"a": "b"},
		"sub me": "me", "sub with a line end": "alice\n", "sub with NUL": "a\x00", "sub with C1": "a\u0085", "sub half a character": json.RawMessage(`"a\ud800"`),
		"sub too long": strings.Repeat("a", 256), "sub a secret": "pat_15ODq7pq8Hy_0Eoh211G4c8wtVWM00my5rsNSFlKgaWqQ4mb8gdEqno0QDLb0",
	} {
		bad[name] = p.Sign(t, p.with(claims{"sub": sub}))
	}
	for name, jwt := range bad {
		t.Run(name, func(t *testing.T) { wantInvalid(t, s, jwt) })
	}
	wantUser(t, s, good, "alice")
}

// respelled is the same token to a lenient decoder: only bits of its last character differ that stand for nothing.
func respelled(jwt string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := len(jwt) - 1
	return jwt[:last] + string(alphabet[strings.IndexByte(alphabet, jwt[last])+1])
}

// embedded is signed with a key that stands in its own header.
func embedded(t *testing.T, c claims) string {
	t.Helper()
	s, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.RS256, Key: rsaKey(t, 2)},
		&jose.SignerOptions{EmbedJWK: true},
	)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.Sign(text)
	if err != nil {
		t.Fatal(err)
	}
	jwt, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return jwt
}

// confused signs with what everybody has, the public key, in each form that a careless verifier takes for a secret.
func confused(t *testing.T, key *rsa.PublicKey, kid string, c claims) []string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := json.Marshal(jose.JSONWebKey{Key: key, KeyID: kid, Use: "sig", Algorithm: "RS256"})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, secret := range [][]byte{
		der, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), x509.MarshalPKCS1PublicKey(key),
		pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(key)}), key.N.Bytes(), jwk,
	} {
		out = append(out, oidctest.Sign(t, jose.HS256, secret, claims{"kid": kid}, c))
	}
	return out
}

func TestPublicKeyAsSharedSecret(t *testing.T) {
	t.Parallel()
	p := newProvider(t, newClock())
	s := signIn(t, p.config())
	for _, jwt := range confused(t, &rsaKey(t, 0).PublicKey, "k0", p.good()) {
		wantInvalid(t, s, jwt)
	}
}

func TestLeeway(t *testing.T) {
	t.Parallel()
	p := newProvider(t, newClock())
	now := p.clock.now().Unix()
	s := signIn(t, p.config())
	c := p.config()
	c.Leeway = time.Second
	strict := signIn(t, c)
	for _, in := range []claims{{"exp": now - 29}, {"nbf": now + 30}, {"iat": now + 30}} {
		jwt := p.Sign(t, p.with(in))
		wantUser(t, s, jwt, "alice")
		wantInvalid(t, strict, jwt)
	}
}

func TestUserClaimAndPrefixes(t *testing.T) {
	t.Parallel()
	a, b, b2 := newProvider(t, newClock()), newProvider(t, newClock()), newProvider(t, newClock())
	c := a.config()
	c.Issuers[0].UserClaim = "https://acme.example/id"
	c.Issuers = append(c.Issuers,
		signin.Issuer{URL: b.URL, Audiences: []string{audience}, UserPrefix: "b:"},
		signin.Issuer{URL: b2.URL, Audiences: []string{audience}, UserPrefix: "b:2:"})
	s := signIn(t, c)
	id := func(v any) claims { return a.with(claims{"https://acme.example/id": v}) }

	wantUser(t, s, a.Sign(t, id("u-17")), "u-17")
	wantUser(t, s, a.Sign(t, id("B:x")), "B:x")
	wantUser(t, s, b.Sign(t, b.good()), "b:alice")
	wantUser(t, s, b2.Sign(t, b2.good()), "b:2:alice")
	wantUser(t, s, b2.Sign(t, b2.with(claims{"sub": strings.Repeat("a", 251)})), "b:2:"+strings.Repeat("a", 251))
	for name, jwt := range map[string]string{
		"without the claim":        a.Sign(t, a.good()),
		"an id of b":               a.Sign(t, id("b:alice")),
		"an id of b2 by a":         a.Sign(t, id("b:2:alice")),
		"an id of b2 by b":         b.Sign(t, b.with(claims{"sub": "2:alice"})),
		"me behind a prefix":       b.Sign(t, b.with(claims{"sub": "me"})),
		"nothing behind a prefix":  b.Sign(t, b.with(claims{"sub": ""})),
		"too long with the prefix": b2.Sign(t, b2.with(claims{"sub": strings.Repeat("a", 252)})),
	} {
		t.Run(name, func(t *testing.T) { wantInvalid(t, s, jwt) })
	}
}

func TestFeaturesClaim(t *testing.T) {
	t.Parallel()
	p := newProvider(t, newClock())
	c := p.config()
	c.Issuers[0].FeaturesClaim = "features"
	s := signIn(t, c)
	many := make([]string, 1001)
	for i := range many {
		many[i] = fmt.Sprint("f", i)
	}
	for _, good := range []struct {
		claim any
		want  []string
		has   bool
	}{
		{nil, nil, false},
		{[]string{}, []string{}, true},
		{"", []string{}, true},
		{[]string{"b", "a", "b"}, []string{"a", "b"}, true},
		{" reports.read  billing:read ", []string{"billing:read", "reports.read"}, true},
	} {
		got := wantUser(t, s, p.Sign(t, p.with(claims{"features": good.claim})), "alice")
		if d := cmp.Diff(good.want, got.Features); d != "" || got.HasFeatures != good.has {
			t.Errorf("%v: has %v, %s", good.claim, got.HasFeatures, d)
		}
	}
	for _, bad := range []any{
		json.RawMessage("null"), 1, true, claims{"a": true}, []any{"a", 1}, []any{"a", nil}, []string{"a b"}, []string{""}, []string{`"`},
		[]string{strings.Repeat("a", 129)}, "a\tb", "a\u00e4", many, "pat_15ODq7pq8Hy_0Eoh211G4c8wtVWM00my5rsNSFlKgaWqQ4mb8gdEqno0QDLb0",
	} {
		wantInvalid(t, s, p.Sign(t, p.with(claims{"features": bad})))
	}
	// Not configured, the claim is nothing.
	if got := wantUser(t, signIn(t, p.config()), p.Sign(t, p.with(claims{"features": 1})), "alice"); got.HasFeatures {
		t.Error("features without a claim for them")
	}
}

func TestLooksLikeJWT(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"a.b.c": true, "a.b.": true, "-_.A9.z": true, strings.Repeat("a", 16<<10-4) + ".b.c": true,
		"": false, ".": false, "..": false, "a..c": false, ".b.c": false, "a.b": false, "a.b.c.d": false, "a.b.c ": false, "a.b=.c": false,
		"a.b.ü": false, strings.Repeat("a", 16<<10) + ".b.c": false, "pat_15ODq7pq8Hy_0Eoh211G4c8wtVWM00my5rsNSFlKgaWqQ4mb8gdEqno0QDLb0": false,
	} {
		if got := signin.LooksLikeJWT(s); got != want {
			t.Errorf("LooksLikeJWT(%.40q) = %v", s, got)
		}
	}
}

func FuzzVerify(f *testing.F) {
	p := newProvider(f, newClock())
	c := p.config()
	c.Issuers[0].FeaturesClaim = "features"
	s := signIn(f, c)
	good := p.Sign(f, p.good())
	parts := strings.Split(good, ".")
	f.Add(good+"x", "")
	f.Add(parts[0]+"."+parts[1]+".", `{"alg":"none"}`)
	f.Add(
		`{"alg":"RS256","kid":"k0"}`,
		`{"iss":"`+p.URL+`","aud":"`+audience+`","exp":1e11,"sub":"alice","features":"a b"}`,
	)
	f.Add(`{"alg":"ES256","crit":[]}`, `{"iss":null}`)
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, jwt := range []string{a, part(a) + "." + part(b) + "." + parts[2], part(a) + "." + part(b) + ".", a + "." + b + "." + parts[2]} {
			if jwt == good {
				continue
			}
			if who, err := s.Verify(t.Context(), secret.NewSecret(jwt)); err == nil {
				t.Fatalf("%q signs in as %q", jwt, who.User)
			}
		}
	})
}
