package server_test

import (
	"context"
	"encoding/json"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"patd/server"
	"patd/store/storetest"
	"patd/tokens"
	"patd/tokens/secret"
)

const appOrigin = "https://app.example.com"

// handoff asks for a hand-off as a service does, and returns the path with the code.
func (r *rig) handoff(service, user, body string) (path string, got map[string]any) {
	r.t.Helper()
	a := r.rest(http.MethodPost, "/v1/users/"+url.PathEscape(user)+"/page-sessions", service, body)
	if a.code != http.StatusOK {
		r.t.Fatalf("a hand-off of %s: %d %s", user, a.code, a.body)
	}
	must(r.t, json.Unmarshal([]byte(a.body), &got))
	at, err := url.Parse(got["url"].(string))
	must(r.t, err)
	return at.RequestURI(), got
}

// TestAServiceHandsAUserOver is the whole way of a company whose own product signs users in.
func TestAServiceHandsAUserOver(t *testing.T) {
	t.Parallel()
	r := pageRig(t, appOrigin)
	crm := r.service("crm", "tokens")
	path, got := r.handoff(crm, "u1", `{"ttl": "900s", "return_url": "https://app.example.com/settings?tab=2"}`)
	for field, after := range map[string]time.Duration{"expire_time": time.Minute, "session_expire_time": 15 * time.Minute} {
		at, err := time.Parse(time.RFC3339, got[field].(string))
		if err != nil || at.Sub(r.now()).Abs().Round(time.Second) != after {
			t.Errorf("%s is %v, want %s from now", field, got[field], after)
		}
	}
	b := newBrowser(r)
	first := b.once(http.MethodGet, path, nil)
	if to := first.header.Get("Location"); first.code != http.StatusSeeOther || to != "/" {
		t.Fatalf("the code is left by %d to %q", first.code, to)
	}
	b.get("/").wants(http.StatusOK, "<strong>u1</strong>", `href="https://app.example.com/settings?tab=2"`)
	newBrowser(r).get(path).wants(http.StatusUnauthorized, "This link was used before")

	// When the session ends the user goes back: from a page at once, from a form by a page that says so.
	form := b.get("/new").form("")
	r.wait(16 * time.Minute)
	page := b.get("/activity")
	if to := page.header.Get(
		"Location",
	); page.code != http.StatusSeeOther ||
		to != "https://app.example.com/settings?tab=2" {
		t.Errorf("a session that has ended leads to %d %q", page.code, to)
	}
	form.Set("name", "typed before")
	form.Set("expiration", "30d")
	form["scopes"] = []string{"deploy.run"}
	b.post("/new", form).
		wants(http.StatusUnauthorized, `href="https://app.example.com/settings?tab=2"`, "What you typed is kept")
	path, _ = r.handoff(crm, "u1", `{}`)
	b.get(path).wants(http.StatusOK, `value="typed before"`, `value="deploy.run" checked`)

	events := r.rest(http.MethodGet, "/v1/events?user=u1", r.admin, "").body
	for _, action := range []string{`"session.handoff"`, `"session.create"`, "handed over by service:crm"} {
		if !strings.Contains(events, action) {
			t.Errorf("the audit log has no %s: %s", action, events)
		}
	}
}

// TestOnlyAServiceThatManagesTokensHandsOver also checks what may be asked for.
func TestOnlyAServiceThatManagesTokensHandsOver(t *testing.T) {
	t.Parallel()
	r := pageRig(t, appOrigin)
	crm := r.service("crm", "tokens")
	_, pat := r.mint("u1", "own")
	for _, c := range []struct{ name, who, body, reason string }{
		{"introspect", r.service("gateway", "introspect"), `{}`, "PERMISSION_DENIED"},
		{"the user", r.idp.jwt(t, "u1"), `{}`, "PERMISSION_DENIED"},
		{"a token", pat, `{}`, "PERMISSION_DENIED"},
		{"nobody", "", `{}`, "CREDENTIAL_REQUIRED"},
		{"too short", crm, `{"ttl": "59s"}`, "SESSION_TTL_OUT_OF_RANGE"},
		{"too long", crm, `{"ttl": "43201s"}`, "SESSION_TTL_OUT_OF_RANGE"},
		{"another origin", crm, `{"return_url": "https://evil.example/"}`, "RETURN_URL_NOT_ALLOWED"},
		{"a longer host", crm, `{"return_url": "https://app.example.com.evil.example/"}`, "RETURN_URL_NOT_ALLOWED"},
		{"a user in it", crm, `{"return_url": "https://app.example.com@evil.example/"}`, "RETURN_URL_NOT_ALLOWED"},
		{"another scheme", crm, `{"return_url": "javascript://app.example.com/%0aalert(1)"}`, "RETURN_URL_NOT_ALLOWED"},
		{"plain http", crm, `{"return_url": "http://app.example.com/"}`, "RETURN_URL_NOT_ALLOWED"},
		{"a backslash", crm, `{"return_url": "https://app.example.com\\@evil.example/"}`, "RETURN_URL_NOT_ALLOWED"},
		{"no host", crm, `{"return_url": "/settings"}`, "RETURN_URL_NOT_ALLOWED"},
	} {
		a := r.rest(http.MethodPost, "/v1/users/u1/page-sessions", c.who, c.body)
		if reason, _ := a.reason(); reason != c.reason {
			t.Errorf("%s: %d %s, want %s", c.name, a.code, a.body, c.reason)
		}
	}
	r.handoff(crm, "u1", `{"ttl": "60s", "return_url": "https://app.example.com"}`)
	r.handoff(crm, "u1", `{"ttl": "12h"}`)
	_, err := r.svc.SuspendUser(t.Context(), tokens.Operator(), "u1", "")
	must(t, err)
	if reason, _ := r.rest(http.MethodPost, "/v1/users/u1/page-sessions", crm, `{}`).
		reason(); reason != "USER_SUSPENDED" {
		t.Errorf("a suspended user: %s", reason)
	}
}

// TestACodeIsGoodOnceAndForAMinute races for it.
func TestACodeIsGoodOnceAndForAMinute(t *testing.T) {
	t.Parallel()
	r := pageRig(t)
	crm := r.service("crm", "tokens")
	path, _ := r.handoff(crm, "u1", `{}`)
	if code := newBrowser(r).once(http.MethodHead, path, nil).code; code == http.StatusSeeOther {
		t.Error("a HEAD takes the code")
	}
	eager := newBrowser(r)
	eager.headers["Sec-Purpose"] = "prefetch"
	eager.get(path)
	var (
		racing sync.WaitGroup
		mu     sync.Mutex
		won    int
	)
	for range 16 {
		racing.Go(func() {
			got := newBrowser(r).once(http.MethodGet, path, nil)
			mu.Lock()
			defer mu.Unlock()
			if got.code == http.StatusSeeOther {
				won++
			} else if got.code != http.StatusUnauthorized {
				t.Errorf("a loser of the race gets %d", got.code)
			}
		})
	}
	racing.Wait()
	if won != 1 {
		t.Errorf("%d browsers were signed in by one code", won)
	}
	path, _ = r.handoff(crm, "u1", `{}`)
	r.wait(time.Minute)
	newBrowser(r).get(path).wants(http.StatusUnauthorized, "too old")
	newBrowser(r).get("/handoff?code=" + strings.Repeat("A", 43)).wants(http.StatusUnauthorized)
	newBrowser(r).get("/handoff").wants(http.StatusUnauthorized)
}

// TestAHandOffReplacesWhoWasSignedIn holds that a form from before makes nothing.
func TestAHandOffReplacesWhoWasSignedIn(t *testing.T) {
	t.Parallel()
	r := pageRig(t)
	r.features("u2", "reports.read")
	b := r.signedIn("u1", time.Hour, "")
	form := b.get("/new").form("")
	form.Set("name", "from before")
	form.Set("expiration", "30d")
	form["scopes"] = []string{"reports.read"}
	old := b.cookies["__Host-patd-session"]
	b.handOver("u2", time.Hour, "").wants(http.StatusOK, "<strong>u2</strong>")
	page := b.post("/new", form).
		wants(http.StatusConflict, "Nothing was done", `value="from before"`, "<strong>u2</strong>")
	if b.get("/").wants(http.StatusOK, "You have none yet."); page.secret() != "" {
		t.Error("the form made a token")
	}
	stale := newBrowser(r)
	stale.cookies["__Host-patd-session"] = old
	stale.get("/").wants(http.StatusUnauthorized)

	// The same user again: still another session.
	form = b.get("/new").form("")
	b.handOver("u2", time.Hour, "")
	form.Set("name", "again")
	form.Set("expiration", "30d")
	form["scopes"] = []string{"reports.read"}
	page = b.post("/new", form).wants(http.StatusConflict, `value="again"`)
	again := page.form("")
	for _, name := range []string{"name", "expiration", "scopes"} {
		again[name] = form[name]
	}
	b.post("/new", again).wants(http.StatusOK, "Store it now")
}

// TestSessionsEnd has each way in which one does.
func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		ttl  time.Duration
		end  func(r *rig, b *browser)
	}{
		{"after an hour without use", 12 * time.Hour, func(r *rig, _ *browser) { r.wait(tokens.PageSessionIdle + time.Minute) }},
		{"at its end, however much it is used", 2 * time.Hour, func(r *rig, b *browser) {
			for range 3 {
				r.wait(39 * time.Minute)
				b.get("/").wants(http.StatusOK)
			}
			r.wait(3 * time.Minute)
		}},
		{"when the user signs out", time.Hour, func(_ *rig, b *browser) {
			kept := b.cookies["__Host-patd-session"]
			b.post("/signout", url.Values{}).wants(http.StatusOK, "You are signed out")
			b.cookies["__Host-patd-session"] = kept
		}},
		{"when the user is suspended", time.Hour, func(r *rig, _ *browser) {
			_, err := r.svc.SuspendUser(context.Background(), tokens.Operator(), "u1", "")
			must(r.t, err)
		}},
		{"for good when the user is suspended and resumed", time.Hour, func(r *rig, _ *browser) {
			_, err := r.svc.SuspendUser(context.Background(), tokens.Operator(), "u1", "")
			must(r.t, err)
			_, err = r.svc.ResumeUser(context.Background(), tokens.Operator(), "u1", "")
			must(r.t, err)
		}},
		{"when the user is deleted", time.Hour, func(r *rig, _ *browser) {
			_, err := r.svc.DeleteUser(context.Background(), tokens.Operator(), "u1", "")
			must(r.t, err)
		}},
		{"when another session ends it", time.Hour, func(r *rig, _ *browser) {
			other := r.signedIn("u1", time.Hour, "")
			page := other.get("/activity").wants(http.StatusOK, "This one", "End all others")
			form := url.Values{"session": page.form("")["session"]}
			other.post("/activity", form).wants(http.StatusOK, "Ended.")
			other.get("/").wants(http.StatusOK, "u1")
		}},
		{"when its digest key is gone", time.Hour, func(r *rig, _ *browser) {
			keys, err := secret.ParseKeys("k2:ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
			must(r.t, err)
			r.keys.Set(keys)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := pageRig(t)
			b := r.signedIn("u1", c.ttl, "")
			b.get("/").wants(http.StatusOK, "u1")
			c.end(r, b)
			for _, path := range []string{"/", "/new", "/activity"} {
				if page := b.get(path).
					wants(http.StatusUnauthorized); regexp.MustCompile(`\bu1\b`).
					MatchString(page.text) {
					t.Errorf("%s shows who it was", path)
				}
			}
			b.post("/new", url.Values{"name": {"x"}, "scopes": {"reports.read"}, "expiration": {"30d"}}).
				wants(http.StatusUnauthorized)
		})
	}
}

// TestForgedCookiesSignNobodyIn also holds that they count as guesses.
func TestForgedCookiesSignNobodyIn(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.FailureRate, c.FailureBurst = 0.001, 10 })
	r.features("u1", "reports.read")
	good := r.signedIn("u1", time.Hour, "")
	b := newBrowser(r)
	seen := map[int]int{}
	for i := range 20 {
		b.cookies["__Host-patd-session"] = strings.Repeat(string(rune('A'+i)), 43)
		seen[b.get("/").code]++
	}
	b.cookies["__Host-patd-session"] = "'--DROP TABLE"
	b.get("/")
	if seen[http.StatusUnauthorized] < 5 || seen[http.StatusTooManyRequests] < 5 || len(seen) != 2 {
		t.Errorf("guesses get %v", seen)
	}
	good.get("/").wants(http.StatusOK, "u1") // from the same address
}

// TestRequestsFromOtherSitesDoNothing is about CSRF, and about who may frame the page.
func TestRequestsFromOtherSitesDoNothing(t *testing.T) {
	t.Parallel()
	r := pageRig(t, appOrigin)
	b := r.signedIn("u1", time.Hour, "")
	form := b.get("/new").form("")
	form.Set("name", "x")
	form.Set("expiration", "30d")
	form["scopes"] = []string{"reports.read"}
	for _, headers := range []map[string]string{
		{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"},
		{"Origin": appOrigin},
	} {
		b.headers = headers
		b.post("/new", form).wants(http.StatusForbidden, "another site")
		b.post("/signout", url.Values{}).wants(http.StatusForbidden)
	}
	b.headers = map[string]string{"Origin": "http://" + r.srv.HTTPAddr()}
	b.get("/").wants(http.StatusOK, "You have none yet.")
	form.Set("session", "00000000000")
	b.post("/new", form).wants(http.StatusConflict)

	h := b.get("/new").header
	policy := h.Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "base-uri 'none'", "form-action 'self';", "frame-ancestors " + appOrigin} {
		if !strings.Contains(policy+";", part) {
			t.Errorf("the policy has no %s: %s", part, policy)
		}
	}
	if strings.Contains(policy, "unsafe") {
		t.Error(policy)
	}
	for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"} {
		if h.Get(name) != want {
			t.Errorf("%s is %q", name, h.Get(name))
		}
	}
	alone := pageRig(t)
	h = newBrowser(alone).get("/").header
	if !strings.Contains(h.Get("Content-Security-Policy"), "frame-ancestors 'none'") ||
		h.Get("X-Frame-Options") != "DENY" {
		t.Errorf("without origins: %v", h)
	}
}

// TestCookiesOfThePage have every protection that there is.
func TestCookiesOfThePage(t *testing.T) {
	t.Parallel()
	r := pageRig(t, appOrigin)
	crm := r.service("crm", "tokens")
	for _, embedded := range []bool{false, true} {
		b, want := newBrowser(r), []string{"__Host-patd-session=", "Path=/", "HttpOnly", "Secure", "SameSite=Lax"}
		if embedded {
			b.headers["Sec-Fetch-Dest"] = "iframe"
			want = []string{"__Host-patd-embedded=", "Path=/", "HttpOnly", "Secure", "SameSite=None", "Partitioned"}
		}
		path, _ := r.handoff(crm, "u1", `{}`)
		set := b.once(http.MethodGet, path, nil).header.Get("Set-Cookie")
		for _, part := range want {
			if !strings.Contains(set, part) {
				t.Errorf("embedded %v: no %s in the cookie", embedded, part)
			}
		}
		if strings.Contains(set, "Domain") || len(regexp.MustCompile(`=([^;]*)`).FindStringSubmatch(set)[1]) != 43 {
			t.Errorf("embedded %v: %d bytes", embedded, len(set))
		}
		b.get("/").wants(http.StatusOK, "u1")
	}
}

// TestSigningInLeadsNowhereElse is about open redirects.
func TestSigningInLeadsNowhereElse(t *testing.T) {
	t.Parallel()
	r, p := webRig(t)
	for _, next := range []string{"https://evil.example/", "//evil.example", `/\evil.example`, "/%2f/evil.example", "javascript:alert(1)", "/signout", "/handoff?code=x",
		"/tokens/..//evil.example", "/\t/evil.example", "/@evil.example", "evil.example", "/new\r\nX: y"} {
		b := newBrowser(r)
		back := allow(p, b.arrive("/signin?next="+url.QueryEscape(next)), "alice")
		if to := b.once(http.MethodGet, back, nil).header.Get("Location"); to != "/" {
			t.Errorf("next=%q leads to %q", next, to)
		}
	}
	b := newBrowser(r)
	if to := b.once(
		http.MethodGet,
		allow(p, b.arrive("/signin?next=%2Fnew%3Fname%3Da%2Bb"), "alice"),
		nil,
	).header.Get(
		"Location",
	); to != "/new?name=a+b" {
		t.Errorf("a good one leads to %q", to)
	}
}

// TestAnOutageIsAPageThatSaysSoAndLosesNoInput has the store out before and behind the session, and the features.
func TestAnOutageIsAPageThatSaysSoAndLosesNoInput(t *testing.T) {
	t.Parallel()
	r := pageRig(t)
	b := r.signedIn("u1", time.Hour, "")
	b.newToken("there", "reports.read").wants(http.StatusOK)
	form := b.get("/new").form("")
	form.Set("name", "kept")
	form.Set("expiration", "30d")
	form["scopes"] = []string{"deploy.run"}
	r.faulty.Fail(storetest.Outage())
	for _, path := range []string{"/", "/new", "/activity"} {
		page := b.get(path).wants(http.StatusServiceUnavailable, "Not available now")
		if strings.Contains(page.text, "You have none yet") || page.header.Get("Retry-After") == "" {
			t.Errorf("%s: an outage looks like an empty list", path)
		}
	}
	again := b.post("/new", form).
		wants(http.StatusServiceUnavailable, "Try again", `name="name" value="kept"`, `name="scopes" value="deploy.run"`)
	r.faulty.Fail(nil)
	r.faulty.FailOp(storetest.OpUpdate, storetest.Outage())
	b.post("/new", form).
		wants(http.StatusServiceUnavailable, `value="kept"`, `value="deploy.run" checked`, "cannot reach its store")
	r.faulty.FailOp(storetest.OpUpdate, nil)
	resent := url.Values{}
	for _, m := range inputForm.FindAllStringSubmatch(again.text, -1) {
		resent.Add(m[1], html.UnescapeString(m[2]))
	}
	b.post("/new", resent).wants(http.StatusOK, "Store it now")
}
