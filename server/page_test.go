package server_test

import (
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"patd/server"
	"patd/tokens"
)

// browser is a person with a browser, as far as a test needs one: it keeps cookies, follows redirects within the page,
// and fills in forms.
type browser struct {
	*rig
	cookies map[string]string
	headers map[string]string
}

// shown is a page that a browser shows.
type shown struct {
	t      testing.TB
	code   int
	path   string
	header http.Header
	text   string
}

func newBrowser(r *rig) *browser {
	return &browser{rig: r, cookies: map[string]string{}, headers: map[string]string{"Sec-Fetch-Site": "same-origin"}}
}

// signedIn returns a browser that was handed over as a user.
func (r *rig) signedIn(user string, ttl time.Duration, returnURL string) *browser {
	r.t.Helper()
	b := newBrowser(r)
	b.handOver(user, ttl, returnURL)
	return b
}

func (b *browser) handOver(user string, ttl time.Duration, returnURL string) shown {
	b.t.Helper()
	_, code, err := b.svc.HandOff(
		b.t.Context(),
		tokens.Operator(),
		tokens.HandoffRequest{User: user, TTL: &ttl, ReturnURL: returnURL},
	)
	must(b.t, err)
	page := b.get("/handoff?code=" + code.Reveal())
	if page.code != http.StatusOK || strings.Contains(page.path, "code") {
		b.t.Fatalf("handed over: %d at %s\n%s", page.code, page.path, page.text)
	}
	return page
}

func (b *browser) get(path string) shown { b.t.Helper(); return b.send(http.MethodGet, path, nil) }

func (b *browser) post(path string, form url.Values) shown {
	b.t.Helper()
	return b.send(http.MethodPost, path, form)
}

// send sends a request, and follows redirects to this server.
func (b *browser) send(method, path string, form url.Values) shown {
	b.t.Helper()
	for range 5 {
		page := b.once(method, path, form)
		to := page.header.Get("Location")
		if page.code != http.StatusSeeOther || !strings.HasPrefix(to, "/") {
			return page
		}
		method, path, form = http.MethodGet, to, nil
	}
	b.t.Fatalf("%s leads in a circle", path)
	return shown{}
}

// once sends one request.
func (b *browser) once(method, path string, form url.Values) shown {
	b.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(b.t.Context(), method, "http://"+b.srv.HTTPAddr()+path, body)
	must(b.t, err)
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for name, value := range b.headers {
		r.Header.Set(name, value)
	}
	for name, value := range b.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	resp, err := b.client.Transport.RoundTrip(r)
	must(b.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(b.t, err)
	for _, c := range resp.Cookies() {
		if b.cookies[c.Name] = c.Value; c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		}
	}
	return shown{b.t, resp.StatusCode, path, resp.Header, string(text)}
}

var (
	inputForm  = regexp.MustCompile(`<input[^>]*name="([^"]*)"[^>]*value="([^"]*)"`)
	secretForm = regexp.MustCompile(`data-testid="secret"[^>]*>([^<]*)<`)
)

// form returns the hidden fields of the form with that action field, or of the first form after the header's.
func (p shown) form(action string) url.Values {
	p.t.Helper()
	_, main, _ := strings.Cut(p.text, "<main")
	for part := range strings.SplitSeq(main, `<form method="post"`) {
		v := url.Values{}
		part, _, _ = strings.Cut(part, "</form>")
		for _, m := range inputForm.FindAllStringSubmatch(part, -1) {
			if strings.Contains(m[0], `type="hidden"`) {
				v.Add(m[1], html.UnescapeString(m[2]))
			}
		}
		if v.Has("session") && v.Get("action") == action {
			return v
		}
	}
	p.t.Fatalf("no form %q in %d\n%s", action, p.code, p.text)
	return nil
}

func (p shown) secret() string {
	if m := secretForm.FindStringSubmatch(p.text); m != nil {
		return m[1]
	}
	return ""
}

// wants checks the status, and that the page holds texts.
func (p shown) wants(code int, texts ...string) shown {
	p.t.Helper()
	if p.code != code {
		p.t.Errorf("%s: status %d, want %d\n%s", p.path, p.code, code, p.text)
	}
	for _, text := range texts {
		if !strings.Contains(p.text, text) {
			p.t.Errorf("%s: no %q in\n%s", p.path, text, p.text)
		}
	}
	return p
}

// newToken sends the form for a new token.
func (b *browser) newToken(name string, scopes ...string) shown {
	b.t.Helper()
	form := b.get("/new").wants(http.StatusOK, "New token").form("")
	form.Set("name", name)
	form.Set("expiration", "30d")
	form["scopes"] = scopes
	return b.post("/new", form)
}

func pageRig(t testing.TB, origins ...string) *rig {
	t.Helper()
	r := newRig(t, func(c *server.Config) { c.Page.Origins = origins })
	r.features("u1", "reports.read", "reports.write", "deploy.run")
	return r
}

// TestAUserMakesATokenInTheBrowser goes the way of a newcomer, without script.
func TestAUserMakesATokenInTheBrowser(t *testing.T) {
	t.Parallel()
	r := pageRig(t)
	b := r.signedIn("u1", time.Hour, "")
	b.get("/").wants(http.StatusOK, "You have none yet.", "/v1/self")
	form := b.get("/new").wants(http.StatusOK, "reports.read").form("")
	form.Set("name", "laptop")
	form.Set("expiration", "30d")
	form["scopes"] = []string{"reports.read", "deploy.run"}
	made := b.post("/new", form).wants(http.StatusOK)
	secret := made.secret()
	if r.introspect(secret).String() != "ALLOW" {
		t.Fatalf("the secret %q is invalid\n%s", secret, made.text)
	}
	if again := b.post("/new", form); again.secret() != secret {
		t.Errorf("sent twice, the form shows %q and %q", secret, again.secret())
	}
	list := b.get("/").wants(http.StatusOK, ">laptop</a>", "reports.read", "in 30 days", "Active")
	if n := strings.Count(list.text, ">laptop</a>"); n != 1 {
		t.Errorf("%d tokens were made", n)
	}
	id := regexp.MustCompile(`/tokens/([0-9A-Za-z]{11})"`).FindStringSubmatch(list.text)[1]

	page := b.get("/tokens/"+id).wants(http.StatusOK, "You created the token “laptop”.")
	edit := page.form("edit")
	edit.Set("name", "desktop")
	edit["scopes"] = []string{"reports.read"}
	b.post("/tokens/"+id, edit).wants(http.StatusOK, "Saved.", "desktop")
	rotate := b.get("/tokens/" + id).form("rotate")
	rotate.Set("grace", "0s")
	rotate.Set("expiration", "keep")
	second := b.post("/tokens/"+id, rotate).wants(http.StatusOK).secret()
	if again := b.post("/tokens/"+id, rotate).secret(); second == "" || again != second || second == secret {
		t.Errorf("rotated to %q, and sent twice to %q", second, again)
	}
	rotate = b.get("/tokens/" + id).form("rotate")
	rotate.Set("grace", "24h")
	rotate.Set("expiration", "renew")
	third := b.post("/tokens/"+id, rotate).wants(http.StatusOK, "The secret before it is good until").secret()
	rotate = b.get("/tokens/" + id).form("rotate")
	rotate.Set("grace", "0s")
	rotate.Set("expiration", "keep")
	asks := b.post("/tokens/"+id, rotate).wants(http.StatusBadRequest, "tick the box below", `name="force"`)
	rotate = asks.form("rotate")
	rotate.Set("grace", "0s")
	rotate.Set("expiration", "keep")
	rotate.Set("force", "yes")
	forced := b.post("/tokens/"+id, rotate).wants(http.StatusOK).secret()
	if got := r.introspect(second).
		String() +
		" " + r.introspect(third).
		String() +
		" " + r.introspect(forced).
		String(); got != "SUPERSEDED SUPERSEDED ALLOW" {
		t.Errorf("after two more rotations: %s", got)
	}
	second = forced
	if got := r.introspect(secret).String() + " " + r.introspect(second).String(); got != "SUPERSEDED ALLOW" {
		t.Errorf("after a rotation: %s", got)
	}
	b.get("/tokens/"+id+"?revoke=1").wants(http.StatusOK, "<dialog", " open>", "Revoke token")
	b.post("/tokens/"+id, page.form("revoke")).wants(http.StatusOK, "The token is revoked.")
	if got := r.introspect(second).String(); got != "REVOKED" {
		t.Errorf("after a revocation: %s", got)
	}
	b.get("/activity").
		wants(http.StatusOK, "You revoked the token “desktop”.", "You rotated", "You changed", "You signed in.")
}

// TestWrongInputComesBackWithTheErrorAtItsField holds that nothing that was typed is lost.
func TestWrongInputComesBackWithTheErrorAtItsField(t *testing.T) {
	t.Parallel()
	r := pageRig(t)
	b := r.signedIn("u1", time.Hour, "")
	b.newToken("taken", "reports.read").wants(http.StatusOK)
	for _, c := range []struct {
		name  string
		field url.Values
		code  int
		at    string // the id of the error
		text  string
	}{
		{"name taken", url.Values{"name": {"Taken"}}, http.StatusConflict, "name", "has this name"},
		{"no name", url.Values{"name": {" "}}, http.StatusBadRequest, "name", "Give it a name."},
		{"no scopes", url.Values{"scopes": nil}, http.StatusBadRequest, "scopes", "at least one scope"},
		{"a scope not held", url.Values{"scopes": {"reports.read", "gone"}}, http.StatusBadRequest, "scopes", "gone"},
		{"too long", url.Values{"expiration": {"400d"}}, http.StatusBadRequest, "expiration", "longer than the policy"},
		{"no date", url.Values{"expiration": {"custom"}}, http.StatusBadRequest, "date", "Give a date."},
		{"a past date", url.Values{"expiration": {"custom"}, "date": {"2020-01-01"}}, http.StatusBadRequest, "date", "in the past"},
		{"an unused date", url.Values{"date": {"2020-01-01"}}, http.StatusBadRequest, "date", "Custom date"},
		{"a network", url.Values{"networks": {"10.0.0.0/8 nonsense"}}, http.StatusBadRequest, "networks", "one on each line"},
		{"a description", url.Values{"description": {strings.Repeat("x", 1001)}}, http.StatusBadRequest, "description", "too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			form := b.get("/new").form("")
			form.Set("name", "kept name")
			form.Set("description", "kept description")
			form.Set("expiration", "90d")
			form["scopes"] = []string{"deploy.run"}
			form.Set("networks", "192.0.2.0/24")
			for name, values := range c.field {
				form[name] = values
			}
			page := b.post("/new", form).wants(c.code, `id="`+c.at+`-error" role="alert"`, c.text)
			for name, text := range map[string]string{"name": `value="kept name"`, "description": "kept description</textarea>", "networks": "192.0.2.0/24</textarea>"} {
				if _, changed := c.field[name]; !changed {
					page.wants(c.code, text)
				}
			}
			if _, changed := c.field["scopes"]; !changed {
				page.wants(c.code, `value="deploy.run" checked`)
			}
		})
	}
}

// TestALinkFillsInTheForm is for the docs of a product: "make a token for this".
func TestALinkFillsInTheForm(t *testing.T) {
	t.Parallel()
	r := pageRig(t)
	admin := r.service("catalog", "catalog")
	for _, body := range []string{
		`{"name": "reports.read", "display_name": "Read reports", "description": "See all of them", "default": true}`,
		`{"name": "deploy.run", "display_name": "Deploy", "consent": "REQUIRED", "default": true}`,
	} {
		if got := r.rest(http.MethodPost, "/v1/features", admin, body); got.code != http.StatusCreated {
			t.Fatal(got)
		}
	}
	b := r.signedIn("u1", time.Hour, "")
	b.get("/new").
		wants(http.StatusOK, `value="reports.read" checked`, ">Read reports</label>", "See all of them", `value="deploy.run" aria`, "Needs your consent")
	page := b.get("/new?name=From+the+docs&scopes=reports.write,deploy.run,billing.read&ttl=90d").
		wants(http.StatusOK, `value="From the docs"`, `value="90d" data-end`, `value="reports.write" checked`, "you do not hold: billing.read", "agree: deploy.run")
	for _, never := range []string{`value="deploy.run" checked`, `value="reports.read" checked`, `value="billing.read"`} {
		if strings.Contains(page.text, never) {
			t.Errorf("the page has %s", never)
		}
	}
	if !regexp.MustCompile(`value="90d"[^>]* selected`).MatchString(page.text) {
		t.Error("90 days are not chosen")
	}
}
