package server_test

import (
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"patd/internal/oidctest"
	"patd/server"
	"patd/store/storetest"
	"patd/tokens"
	"patd/tokens/secret"
)

// TestAProviderThatIsDownIsAnOutageOnEveryWay in and out: before its description is known, when it is old, when its
// keys are gone, and when it fails at its end of a sign-in.
func TestAProviderThatIsDownIsAnOutageOnEveryWay(t *testing.T) {
	t.Parallel()
	r, p := webRig(t)
	const says = "identity provider does not answer"
	p.SetDown(true)
	b := newBrowser(r)
	b.get("/signin?next=%2F").wants(http.StatusServiceUnavailable, says)
	b.get("/signin?next=%2F").wants(http.StatusServiceUnavailable, says) // without another request, for a moment
	b.get("/signin/callback?state=x&code=y").wants(http.StatusServiceUnavailable, says)
	p.SetDown(false)
	r.wait(4 * time.Second)
	b.signIn(p, "alice", "/").wants(http.StatusOK, "alice")

	// The description of an hour ago serves while the provider is away; its keys do too, and its token endpoint cannot.
	p.SetDown(true)
	r.wait(61 * time.Minute)
	other := newBrowser(r)
	back := allow(p, other.arrive("/"), "bob")
	r.wait(time.Second)
	other.get(back).wants(http.StatusServiceUnavailable, says)
	p.SetDown(false)
}

// TestSignInsThatCannotBeFinishedSignNobodyIn has the faults of a provider and of this server's registration there.
func TestSignInsThatCannotBeFinishedSignNobodyIn(t *testing.T) {
	t.Parallel()
	r, p := webRig(t, "profile")
	sum := sha512.Sum512([]byte("access")) // the hash of the algorithm that signs the ID token
	good := base64.RawURLEncoding.EncodeToString(sum[:32])
	for _, c := range []struct {
		name   string
		claims oidctest.Claims
		info   oidctest.Claims
		code   int
	}{
		{"an access token that is another's", oidctest.Claims{"at_hash": "AAAA" + good[4:]}, nil, http.StatusUnauthorized},
		{"its own access token", oidctest.Claims{"at_hash": good}, nil, http.StatusOK},
		{"features that are none", oidctest.Claims{idpFeatures: 7}, nil, http.StatusUnauthorized},
		{"userinfo of another kind", nil, oidctest.Claims{"sub": 7}, http.StatusServiceUnavailable},
		{"no user in userinfo", nil, oidctest.Claims{}, http.StatusUnauthorized},
	} {
		b := newBrowser(r)
		back := allow(p, b.arrive("/"), "alice")
		p.SetClaims(c.claims)
		p.SetUserInfo(c.info)
		page := b.get(back)
		p.SetClaims(nil)
		p.SetUserInfo(nil)
		if page.code != c.code || (b.cookies["__Host-patd-session"] != "") != (c.code == http.StatusOK) {
			t.Errorf("%s: %d, want %d\n%s", c.name, page.code, c.code, page.text)
		}
	}
	b := newBrowser(r)
	asked := b.arrive("/")
	for name, value := range b.cookies {
		if strings.HasPrefix(name, "__Host-patd-signin-") {
			parts := strings.Split(value, ".")
			parts[3] = "!" // where the user was going
			b.cookies[name] = strings.Join(parts, ".")
		}
	}
	b.get(allow(p, asked, "alice")).wants(http.StatusUnauthorized)
	b.get("/signin/callback?state=%22%3E%3Cscript&code=x").wants(http.StatusBadRequest)
	b = newBrowser(r)
	v := p.Allow(b.arrive("/"), "alice")
	v.Set("error", "access denied\n<b>"+strings.Repeat("x", 200))
	b.get("/signin/callback?" + v.Encode()).wants(http.StatusUnauthorized)
	if strings.Contains(r.logs.String(), strings.Repeat("x", 100)) {
		t.Error("the log has all that the provider's answer says")
	}
}

// TestAClientSecretThatCannotBeReadIsAnOutage and is not shown.
func TestAClientSecretThatCannotBeReadIsAnOutage(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) {
		c.Page.Client = &server.PageClient{ID: webClient, Secret: func() (tokens.Secret, error) {
			return secret.NewSecret(webSecret), errors.New("open the file: permission denied")
		}}
	})
	p := r.idp.Web(webClient, webSecret)
	b := newBrowser(r)
	page := b.signIn(p, "alice", "/").wants(http.StatusServiceUnavailable, "identity provider does not answer")
	if strings.Contains(page.text+r.logs.String(), webSecret) || strings.Contains(page.text, "permission denied") {
		t.Error("the page or the log says too much")
	}
	if !strings.Contains(r.logs.String(), "permission denied") {
		t.Error("the log does not say why")
	}
}

// TestSigningOutWhereTheProviderHasNoSuchPlace ends the session here.
func TestSigningOutWhereTheProviderHasNoSuchPlace(t *testing.T) {
	t.Parallel()
	r, p := webRig(t)
	b := newBrowser(r)
	b.signIn(p, "alice", "/").wants(http.StatusOK)
	p.SetDown(true)
	r.wait(50 * time.Minute)
	b.get("/").wants(http.StatusOK)
	r.wait(50 * time.Minute)
	if to := b.once(http.MethodPost, "/signout", url.Values{}).header.Get("Location"); !strings.Contains(to, "/out?") {
		t.Errorf("while the provider is down: %q", to)
	}
	if b.cookies["__Host-patd-session"] != "" {
		t.Error("the browser keeps its session")
	}
	alone := newRig(t)
	a := alone.signedIn("u1", time.Hour, "https://app.example.com/back")
	out := a.post("/signout", url.Values{}).wants(http.StatusOK, "You are signed out", "https://app.example.com/back")
	if got := out.header.Get("Refresh"); got != "0; url=https://app.example.com/back" {
		t.Errorf("Refresh: %q", got)
	}
	newBrowser(alone).get("/signin/callback?state=x").wants(http.StatusNotFound)
	newBrowser(alone).get("/signin?next=%2F").wants(http.StatusOK)
}

// TestASignInIsNotDoneWhileTheStoreIsOut and can be done once it is back.
func TestASignInIsNotDoneWhileTheStoreIsOut(t *testing.T) {
	t.Parallel()
	r, p := webRig(t)
	b := newBrowser(r)
	back := allow(p, b.arrive("/"), "alice")
	r.faulty.Fail(storetest.Outage())
	b.get(back).wants(http.StatusServiceUnavailable, "Not available now")
	r.faulty.Fail(nil)
	b.signIn(p, "alice", "/").wants(http.StatusOK, "alice")
}
