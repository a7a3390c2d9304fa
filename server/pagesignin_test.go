package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"patd/internal/oidctest"
	"patd/server"
	"patd/tokens"
	"patd/tokens/secret"
)

const (
	webClient = "patd page"
	webSecret = "the client's own: secret%"
)

// webRig is a server at which users sign in with a browser.
func webRig(t *testing.T, scopes ...string) (*rig, *oidctest.Web) {
	t.Helper()
	return webRigWith(t, func(*server.Config) {}, scopes...)
}

// webRigWith is webRig with another configuration.
func webRigWith(t *testing.T, change func(*server.Config), scopes ...string) (*rig, *oidctest.Web) {
	t.Helper()
	r := newRig(t, change, func(c *server.Config) {
		c.Page.Client = &server.PageClient{
			ID:     webClient,
			Scopes: scopes,
			Secret: func() (tokens.Secret, error) { return secret.NewSecret(webSecret), nil },
		}
	}, func(c *server.Config) { c.Page.Origins = []string{"https://app.example.com"} })
	p := r.idp.Web(webClient, webSecret)
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
	if err != nil || page.code != http.StatusSeeOther || !strings.HasPrefix(to.String(), b.idp.URL+"/authorize?") {
		b.t.Fatalf("%s leads to %d %q, not to the provider\n%s", path, page.code, to, page.text)
	}
	return to.Query()
}

// allow signs a user in at the provider, and returns the address to which the browser is sent back.
func allow(p *oidctest.Web, asked url.Values, user string) string {
	return "/signin/callback?" + p.Allow(asked, user).Encode()
}

// signIn signs a user in, on the way to a path.
func (b *browser) signIn(p *oidctest.Web, user, path string) shown {
	b.t.Helper()
	return b.get(allow(p, b.arrive(path), user))
}

// TestUsersSignInAtTheProvider goes there and back, and out again.
func TestUsersSignInAtTheProvider(t *testing.T) {
	t.Parallel()
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
	back := allow(p, asked, "alice")
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
	t.Parallel()
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
			back, err := url.Parse(allow(p, b.arrive("/"), "alice"))
			must(t, err)
			v := back.Query()
			if c.change != nil {
				c.change(b, v)
			}
			p.SetClaims(claims(c.claims))
			page := b.get("/signin/callback?" + v.Encode()).wants(c.code)
			p.SetClaims(nil)
			if b.cookies["__Host-patd-session"] != "" {
				t.Errorf("somebody is signed in: %s", page.text)
			}
		})
	}
	// An attacker's code in the victim's browser: the verifier is another one.
	attacker, victim := newBrowser(r), newBrowser(r)
	stolen, _ := url.Parse(allow(p, attacker.arrive("/"), "mallory"))
	own, _ := url.Parse(allow(p, victim.arrive("/"), "alice"))
	v := own.Query()
	v.Set("code", stolen.Query().Get("code"))
	victim.get("/signin/callback?" + v.Encode()).wants(http.StatusUnauthorized)
}

// TestClaimsComeFromUserinfoWhereTheIDTokenLacksThem has the features there.
func TestClaimsComeFromUserinfoWhereTheIDTokenLacksThem(t *testing.T) {
	t.Parallel()
	r, p := webRig(t)
	p.SetUserInfo(oidctest.Claims{"sub": "alice", idpFeatures: []string{"a.b"}})
	b := newBrowser(r)
	b.signIn(p, "alice", "/").wants(http.StatusOK, "alice")
	p.SetUserInfo(oidctest.Claims{"sub": "mallory", idpFeatures: []string{"a.b"}})
	newBrowser(r).signIn(p, "alice", "/").wants(http.StatusUnauthorized)
}

// TestAnOutageOfTheProviderIsAPageThatSaysSo names it, and who is signed in stays so.
func TestAnOutageOfTheProviderIsAPageThatSaysSo(t *testing.T) {
	t.Parallel()
	r, p := webRig(t)
	in := newBrowser(r)
	in.signIn(p, "alice", "/").wants(http.StatusOK)
	b := newBrowser(r)
	back := allow(p, b.arrive("/"), "bob")
	p.Break()
	b.get(back).wants(http.StatusServiceUnavailable, "identity provider does not answer")
	in.get("/").wants(http.StatusOK, "alice")
}

// TestAFormSurvivesSigningInAgain holds that nothing is made and nothing is lost when the session ends under a form.
func TestAFormSurvivesSigningInAgain(t *testing.T) {
	t.Parallel()
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
	page := other.get(allow(p, asked.Query(), "bob")).wants(http.StatusOK, "bob")
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
