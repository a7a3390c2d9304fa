package server_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"patd/server"
	"patd/tokens"
	"patd/tokens/secret"
)

const (
	webClient = "patd page"
	webSecret = "the client's own: secret%"
)

// webIDP is the part of an OpenID provider at which users sign in with a browser. It keeps to the RFCs where a client
// might cheat: a code is good once, with the client's secret, the address and the verifier that belong to it.
type webIDP struct {
	*idp
	mu     sync.Mutex
	codes  map[string]url.Values // what was asked for, by code
	claims []claim               // of the next ID token, in place of good ones
	info   map[string]any        // userinfo; nil: of the last user
	last   string                // who has signed in
	broken bool                  // the token endpoint fails
}

func (p *webIDP) serve(w http.ResponseWriter, r *http.Request) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer":                 p.url,
			"jwks_uri":               p.url + "/jwks",
			"authorization_endpoint": p.url + "/authorize",
			"token_endpoint":         p.url + "/token",
			"userinfo_endpoint":      p.url + "/userinfo",
			"end_session_endpoint":   p.url + "/out",
			"authorization_response_iss_parameter_supported": true,
			"id_token_signing_alg_values_supported":          []string{"EdDSA"},
		})
	case "/token":
		p.token(w, r)
	case "/userinfo":
		if r.Header.Get("Authorization") != "Bearer access" {
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		info := p.info
		if info == nil {
			info = map[string]any{"sub": p.last}
		}
		_ = json.NewEncoder(w).Encode(info)
	default:
		return false
	}
	return true
}

func (p *webIDP) token(w http.ResponseWriter, r *http.Request) {
	id, password, _ := r.BasicAuth()
	id, _ = url.QueryUnescape(id)
	password, _ = url.QueryUnescape(password)
	code := r.PostFormValue("code")
	asked, known := p.codes[code]
	delete(p.codes, code)
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	switch {
	case p.broken:
		w.WriteHeader(http.StatusBadGateway)
		return
	case id != webClient || password != webSecret, !known, r.PostFormValue("grant_type") != "authorization_code",
		r.PostFormValue("redirect_uri") != asked.Get("redirect_uri"), encoded(sum[:]) != asked.Get("code_challenge"):
		w.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprint(w, `{"error":"invalid_grant"}`)
		return
	}
	p.last = asked.Get("user")
	claims := append([]claim{{"aud", webClient}, {"nonce", asked.Get("nonce")}}, p.claims...)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"access_token": "access",
		"token_type":   "Bearer",
		"expires_in":   60,
		"id_token":     p.jwt(nil2{}, asked.Get("user"), claims...),
	})
}

// nil2 lets jwt be called outside a test's goroutine: it never fails there.
type nil2 struct{ testing.TB }

func (nil2) Helper() {}

// webRig is a server at which users sign in with a browser.
func webRig(t *testing.T, scopes ...string) (*rig, *webIDP) {
	t.Helper()
	return webRigWith(t, func(*server.Config) {}, scopes...)
}

// webRigWith is webRig with another configuration.
func webRigWith(t *testing.T, change func(*server.Config), scopes ...string) (*rig, *webIDP) {
	t.Helper()
	var p *webIDP
	r := newRig(t, change, func(c *server.Config) {
		c.Page.Client = &server.PageClient{
			ID:     webClient,
			Scopes: scopes,
			Secret: func() (tokens.Secret, error) { return secret.NewSecret(webSecret), nil },
		}
	}, func(c *server.Config) { c.Page.Origins = []string{"https://app.example.com"} })
	p = &webIDP{idp: r.idp, codes: map[string]url.Values{}}
	r.idp.web = p
	for _, user := range []string{"alice", "bob"} {
		r.features(user, "reports.read", "reports.write")
	}
	return r, p
}

// arrive follows a browser to the provider, and returns what it is asked there.
func (b *browser) arrive(path string) url.Values {
	b.t.Helper()
	page := b.get(path)
	to, err := url.Parse(page.header.Get("Location"))
	if err != nil || page.code != http.StatusSeeOther || !strings.HasPrefix(to.String(), b.idp.url+"/authorize?") {
		b.t.Fatalf("%s leads to %d %q, not to the provider\n%s", path, page.code, to, page.text)
	}
	return to.Query()
}

// allow signs a user in at the provider, and returns the address to which the browser is sent back.
func (p *webIDP) allow(asked url.Values, user string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	code := fmt.Sprintf("code %d", len(p.codes)+1) + user
	asked.Set("user", user)
	p.codes[code] = asked
	return "/signin/callback?" + url.Values{"code": {code}, "state": {asked.Get("state")}, "iss": {p.url}}.Encode()
}

// signIn signs a user in, on the way to a path.
func (b *browser) signIn(p *webIDP, user, path string) shown {
	b.t.Helper()
	return b.get(p.allow(b.arrive(path), user))
}

// TestUsersSignInAtTheProvider goes there and back, and out again.
func TestUsersSignInAtTheProvider(t *testing.T) {
	r, p := webRig(t, "profile", "groups")
	b := newBrowser(r)
	asked := b.arrive("/new?name=x&scopes=reports.read")
	for name, want := range map[string]string{
		"response_type": "code", "client_id": webClient, "scope": "openid profile groups", "code_challenge_method": "S256",
		"redirect_uri": "http://" + r.srv.HTTPAddr() + "/signin/callback",
	} {
		if asked.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, asked.Get(name), want)
		}
	}
	for _, name := range []string{"state", "nonce", "code_challenge"} {
		if len(asked.Get(name)) < 43 {
			t.Errorf("%s has less than 256 bits: %q", name, asked.Get(name))
		}
	}
	back := p.allow(asked, "alice")
	b.get(back).wants(http.StatusOK, "<strong>alice</strong>", `value="x"`, `value="reports.read" checked`)
	if len(b.cookies) != 1 {
		t.Errorf("cookies are left: %v", b.cookies)
	}
	kept := b.cookies["__Host-patd-session"]
	b.get(back).wants(http.StatusBadRequest) // replayed
	b.get("/").wants(http.StatusOK, "alice")

	out := b.post("/signout", url.Values{})
	to, err := url.Parse(out.header.Get("Location"))
	must(t, err)
	if q := to.Query(); to.Path != "/out" || q.Get("client_id") != webClient || q.Get("id_token_hint") == "" ||
		q.Get("post_logout_redirect_uri") != "http://"+r.srv.HTTPAddr()+"/signin/callback" {
		t.Errorf("signing out leads to %s", to)
	}
	b.get("/signin/callback").wants(http.StatusOK, "You are signed out", "Sign in")
	b.cookies["__Host-patd-session"] = kept
	b.arrive("/") // the cookie from before signs nobody in
}

// TestForgedAnswersOfTheProviderSignNobodyIn has one thing wrong in each.
func TestForgedAnswersOfTheProviderSignNobodyIn(t *testing.T) {
	r, p := webRig(t)
	for _, c := range []struct {
		name   string
		change func(b *browser, back url.Values)
		claims []claim
		code   int
	}{
		{name: "another state", change: func(_ *browser, v url.Values) { v.Set("state", v.Get("state")[:42]+"x") }, code: 400},
		{name: "no state", change: func(_ *browser, v url.Values) { v.Set("state", "") }, code: 400},
		{name: "another browser", change: func(b *browser, _ url.Values) { b.cookies = map[string]string{} }, code: 400},
		{name: "another issuer (RFC 9207)", change: func(_ *browser, v url.Values) { v.Set("iss", "https://evil.example") }, code: 401},
		{name: "no issuer (RFC 9207)", change: func(_ *browser, v url.Values) { v.Del("iss") }, code: 401},
		{name: "a refusal", change: func(_ *browser, v url.Values) { v.Set("error", "access_denied") }, code: 401},
		{name: "another code", change: func(_ *browser, v url.Values) { v.Set("code", "made up") }, code: 401},
		{name: "another nonce", claims: []claim{{"nonce", "other"}}, code: 401},
		{name: "no nonce", claims: []claim{{"nonce", nil}}, code: 401},
		{name: "for another client", claims: []claim{{"aud", "other"}}, code: 401},
		{name: "expired", claims: []claim{{"exp", 1}}, code: 401},
		{name: "of another issuer", claims: []claim{{"iss", "https://evil.example"}}, code: 401},
		{name: "of nobody", claims: []claim{{"sub", ""}}, code: 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBrowser(r.under(t))
			back, err := url.Parse(p.allow(b.arrive("/"), "alice"))
			must(t, err)
			v := back.Query()
			if c.change != nil {
				c.change(b, v)
			}
			p.mu.Lock()
			p.claims = c.claims
			p.mu.Unlock()
			page := b.get("/signin/callback?" + v.Encode()).wants(c.code)
			p.mu.Lock()
			p.claims = nil
			p.mu.Unlock()
			if b.cookies["__Host-patd-session"] != "" {
				t.Errorf("somebody is signed in: %s", page.text)
			}
		})
	}
	// An attacker's code in the victim's browser: the verifier is another one.
	attacker, victim := newBrowser(r), newBrowser(r)
	stolen, _ := url.Parse(p.allow(attacker.arrive("/"), "mallory"))
	own, _ := url.Parse(p.allow(victim.arrive("/"), "alice"))
	v := own.Query()
	v.Set("code", stolen.Query().Get("code"))
	victim.get("/signin/callback?" + v.Encode()).wants(http.StatusUnauthorized)
}

// TestClaimsComeFromUserinfoWhereTheIDTokenLacksThem has the features there.
func TestClaimsComeFromUserinfoWhereTheIDTokenLacksThem(t *testing.T) {
	r, p := webRig(t)
	p.info = map[string]any{"sub": "alice", idpFeatures: []string{"a.b"}}
	b := newBrowser(r)
	b.signIn(p, "alice", "/").wants(http.StatusOK, "alice")
	p.info = map[string]any{"sub": "mallory", idpFeatures: []string{"a.b"}}
	newBrowser(r).signIn(p, "alice", "/").wants(http.StatusUnauthorized)
}

// TestAnOutageOfTheProviderIsAPageThatSaysSo names it, and who is signed in stays so.
func TestAnOutageOfTheProviderIsAPageThatSaysSo(t *testing.T) {
	r, p := webRig(t)
	in := newBrowser(r)
	in.signIn(p, "alice", "/").wants(http.StatusOK)
	b := newBrowser(r)
	back := p.allow(b.arrive("/"), "bob")
	p.broken = true
	b.get(back).wants(http.StatusServiceUnavailable, "identity provider does not answer")
	in.get("/").wants(http.StatusOK, "alice")
}

// TestAFormSurvivesSigningInAgain holds that nothing is made and nothing is lost when the session ends under a form.
func TestAFormSurvivesSigningInAgain(t *testing.T) {
	r, p := webRig(t)
	b := newBrowser(r)
	b.signIn(p, "alice", "/").wants(http.StatusOK)
	form := b.get("/new").form("")
	form.Set("name", "typed before")
	form.Set("description", "two\nlines & <b>")
	form.Set("expiration", "90d")
	form["scopes"] = []string{"reports.write"}
	r.wait(tokens.PageSessionIdle + 2*time.Minute)
	lost := b.post("/new", form)
	asked, err := url.Parse(lost.header.Get("Location"))
	must(t, err)

	// Another user of the same browser does not see it.
	other := newBrowser(r)
	other.cookies = map[string]string{}
	for name, value := range b.cookies {
		other.cookies[name] = value
	}
	page := other.get(p.allow(asked.Query(), "bob")).wants(http.StatusOK, "bob")
	if strings.Contains(page.text, "typed before") {
		t.Error("another user sees the form")
	}

	page = b.signIn(p, "alice", "/signin?next=%2Fnew").
		wants(http.StatusOK, `value="typed before"`, "two\nlines &amp; &lt;b&gt;</textarea>",
			`value="reports.write" checked`, "nothing was done yet")
	again := page.form("")
	for _, name := range []string{"name", "description", "expiration", "scopes"} {
		again[name] = form[name]
	}
	if secret := b.post("/new", again).secret(); r.introspect(secret).String() != "ALLOW" {
		t.Errorf("sent again, the form makes %q", secret)
	}
	if n := strings.Count(b.get("/").text, "typed before"); n != 1 {
		t.Errorf("%d tokens were made", n)
	}
	if page := b.get("/new"); strings.Contains(page.text, "typed before") {
		t.Error("the form is filled in a second time")
	}
}
