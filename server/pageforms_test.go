package server_test

import (
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"patd/tokens"
)

// TestWrongInputOnThePageOfATokenComesBack has a form of each kind with one thing wrong. The token stays as it is.
func TestWrongInputOnThePageOfATokenComesBack(t *testing.T) {
	t.Parallel()
	r := pageRig(t)
	b := r.signedIn("u1", time.Hour, "")
	secret := b.newToken("laptop", "reports.read").wants(http.StatusOK).secret()
	b.newToken("taken", "reports.read").wants(http.StatusOK)
	path := "/tokens/" + idOf(secret)
	before := r.token(t, "u1", idOf(secret))
	for _, c := range []struct {
		name, action string
		fields       url.Values
		code         int
		texts        []string
	}{
		{"an action that is none", "burn", nil, http.StatusBadRequest, nil},
		{"no action", "", nil, http.StatusBadRequest, nil},
		{"another session's form", "revoke", url.Values{"session": {"00000000000"}}, http.StatusConflict,
			[]string{"Nothing was done"}},
		{"no session", "edit", url.Values{"session": nil, "name": {"typed"}}, http.StatusConflict,
			[]string{"Nothing was done", `value="typed"`}},
		{"no grace", "rotate", url.Values{"grace": {""}, "expiration": {"keep"}}, http.StatusBadRequest,
			[]string{"Choose a grace period."}},
		{"a grace that is none", "rotate", url.Values{"grace": {"soon"}, "expiration": {"keep"}},
			http.StatusBadRequest, []string{"Choose a grace period."}},
		{"a grace that is too long", "rotate", url.Values{"grace": {"100000h"}, "expiration": {"keep"}},
			http.StatusBadRequest, []string{`id="grace-error" role="alert"`}},
		{"an expiration that is none", "rotate", url.Values{"grace": {"1h"}, "expiration": {"soon"}},
			http.StatusBadRequest, []string{"Choose how long it lives."}},
		{"an expiration of no days", "rotate", url.Values{"grace": {"1h"}, "expiration": {"0d"}},
			http.StatusBadRequest, []string{"Choose how long it lives."}},
		{"no date", "rotate", url.Values{"grace": {"1h"}, "expiration": {"custom"}},
			http.StatusBadRequest, []string{"Give a date."}},
		{"a date that does not count", "rotate",
			url.Values{"grace": {"1h"}, "expiration": {"keep"}, "date": {"2030-01-01"}},
			http.StatusBadRequest, []string{"Choose “Custom date” as the expiration"}},
		{"a name that is taken", "edit", url.Values{"name": {"Taken"}, "scopes": {"reports.read"}},
			http.StatusConflict, []string{`id="name-error" role="alert"`, `value="Taken"`}},
		{"a scope that is not held", "edit", url.Values{"name": {"n"}, "scopes": {"reports.read", "gone"}},
			http.StatusBadRequest, []string{`id="scopes-error" role="alert"`, `value="n"`}},
		{"an older version", "edit", url.Values{"name": {"n"}, "scopes": {"reports.read"}, "etag": {`"0000000000000000"`}},
			http.StatusConflict, []string{`value="n"`, `role="alert"`}},
		{"a token that is not paused", "resume", nil, 0, nil},
		{"a token that was not rotated", "cancel", nil, http.StatusBadRequest, []string{`role="alert"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			form := b.bound(url.Values{"action": {c.action}})
			for name, values := range c.fields {
				form[name] = values
			}
			if c.code == 0 {
				if page := b.post(path, form); page.code >= http.StatusInternalServerError {
					t.Errorf("%d\n%s", page.code, page.text)
				}
				return
			}
			b.post(path, form).wants(c.code, c.texts...)
		})
	}
	for _, action := range []string{"edit", "rotate", "cancel", "resume", "narrow", "revoke"} {
		form := b.bound(
			url.Values{
				"action":     {action},
				"name":       {"n"},
				"scopes":     {"reports.read"},
				"grace":      {"0s"},
				"expiration": {"keep"},
			},
		)
		b.post("/tokens/15ODq7pq8Hy", form).wants(http.StatusNotFound)
	}
	if got := r.introspect(secret).String(); got != "ALLOW" {
		t.Errorf("after all these forms: %s", got)
	}
	if after := r.token(t, "u1", idOf(secret)); after.GetName() != before.GetName() ||
		after.GetEtag() != before.GetEtag() {
		t.Errorf("it was changed: %v", after)
	}
}

// TestAnEditThatCameTooLateCanBeSentAgain shows what another window has changed, and takes the form a second time.
func TestAnEditThatCameTooLateCanBeSentAgain(t *testing.T) {
	t.Parallel()
	r := pageRig(t)
	b := r.signedIn("u1", time.Hour, "")
	path := "/tokens/" + idOf(b.newToken("laptop", "reports.read").wants(http.StatusOK).secret())
	first, second := b.get(path).form("edit"), b.get(path).form("edit")
	for name, form := range map[string]url.Values{"one": first, "two": second} {
		form.Set("name", name)
		form["scopes"] = []string{"reports.read"}
	}
	b.post(path, first).wants(http.StatusOK, "Saved.")
	again := b.post(path, second).wants(http.StatusConflict, `value="two"`).form("edit")
	again.Set("name", "two")
	again["scopes"] = []string{"reports.read"}
	b.post(path, again).wants(http.StatusOK, "Saved.", "two")
	b.post(path, second).wants(http.StatusConflict)
}

// fullToken mints a token with everything that a page shows, has it used, rotated, blocked and paused.
func (r *rig) fullToken(t *testing.T, user string) string {
	t.Helper()
	r.features(user, "a", "b")
	m, err := r.svc.Mint(t.Context(), tokens.Operator(), tokens.MintRequest{
		User: user, Name: "full", Description: "For the nightly job", Scopes: []string{"a", "b"},
		Audiences: []string{"api"}, CIDRs: []string{"192.0.2.0/24", "127.0.0.0/8"},
		Labels: map[string]string{"team": "infra", "a=b": "c"}, Lifetime: tokens.Lifetime{Never: true},
	})
	must(t, err)
	r.store.RecordUse(
		tokens.Usage{ID: m.Token.ID, Use: tokens.Use{Time: r.now(), IP: netip.MustParseAddr("192.0.2.7")}},
	)
	must(t, r.store.FlushUses(t.Context(), nil))
	_, err = r.svc.Rotate(
		t.Context(),
		tokens.Operator(),
		tokens.RotateRequest{User: user, TokenID: m.Token.ID.String()},
	)
	must(t, err)
	return m.Token.ID.String()
}

// TestThePageOfATokenSaysAllThatIsKnownOfIt to its user and to operators.
func TestThePageOfATokenSaysAllThatIsKnownOfIt(t *testing.T) {
	t.Parallel()
	r, p := webRig(t)
	id := r.fullToken(t, "alice")
	person, op := newBrowser(r), r.operator(p, "ann", "admin")
	person.signIn(p, "alice", "/").wants(http.StatusOK)
	both := []string{
		id, "Never", "from 192.0.2.7", ">Rotations<", ">api<", ">192.0.2.0/24<", ">127.0.0.0/8<", "For the nightly job",
	}
	page := person.get("/tokens/"+id).wants(http.StatusOK, append(both, "Label team", "Label a=b", "Active")...)
	if strings.Contains(page.text, `name="labels"`) {
		t.Error("labels that cannot be written as lines are in the form to edit, which would lose them")
	}
	op.get("/admin/tokens/"+id).wants(http.StatusOK, append(both, "team=infra", "a=b=c")...)

	_, err := r.svc.Narrow(t.Context(), tokens.Operator(),
		tokens.NarrowRequest{User: "alice", TokenID: id, Scopes: []string{"b"}})
	must(t, err)
	op.get("/admin/tokens/"+id).wants(http.StatusOK, "Paused scopes")

	// What makes it useless is said on its own page and in each list.
	r.pause(t, id)
	person.get("/tokens/"+id).wants(http.StatusOK, ">Paused<")
	person.get("/").wants(http.StatusOK, ">Paused<")
	op.get("/admin/tokens/"+id).wants(http.StatusOK, ">Paused<")
	op.get("/admin/tokens").wants(http.StatusOK, ">Paused<")
	person.post("/tokens/"+id, person.get("/tokens/"+id).form("resume")).
		wants(http.StatusOK, "The token works again.", "You resumed the token “full”.")
	month := 30 * 24 * time.Hour
	_, err = r.svc.CreateAudience(t.Context(), tokens.Operator(),
		tokens.AudienceEntry{ID: "api", MaxTTL: month, DefaultTTL: month})
	must(t, err)
	_, _, err = r.svc.BlockTokens(t.Context(), tokens.Operator(), "api", "")
	must(t, err)
	person.get("/tokens/"+id).wants(http.StatusOK, ">Blocked by<", "Blocked")
	person.get("/").wants(http.StatusOK, ">Blocked<")
	op.get("/admin/tokens/"+id).wants(http.StatusOK, ">Blocked by<")
	op.get("/admin/tokens").wants(http.StatusOK, ">Blocked<")

	// A scope that the user has lost is said to be.
	r.features("alice", "a")
	person.get("/?q=full").wants(http.StatusOK)
}

// TestAnExpirationInALinkBecomesAChoice of the form, or a date, or nothing.
func TestAnExpirationInALinkBecomesAChoice(t *testing.T) {
	t.Parallel()
	r := pageRig(t)
	b := r.signedIn("u1", time.Hour, "")
	chosen := regexp.MustCompile(`<option value="([^"]*)"[^>]* selected`)
	date := regexp.MustCompile(`name="date"[^>]*value="([^"]*)"`)
	for ttl, want := range map[string]string{
		"90d": "90d", "1y": "365d", "365d": "365d", "45d": "custom", "never": "never", "": "180d", "400d": "180d",
		"-1d": "180d", "90": "180d", "1w": "180d", "%22%3E": "180d", "99999999999999999999d": "180d",
	} {
		page := b.get("/new?ttl=" + ttl).wants(http.StatusOK)
		m := chosen.FindStringSubmatch(page.text)
		if m == nil || m[1] != want {
			t.Errorf("ttl=%s chooses %q, want %q", ttl, m, want)
		}
		day := ""
		if m := date.FindStringSubmatch(page.text); m != nil {
			day = m[1]
		}
		if wantDay := r.now().Add(45 * 24 * time.Hour).UTC().Format("2006-01-02"); ttl == "45d" && day != wantDay {
			t.Errorf("ttl=%s fills in the date %q, want %q", ttl, day, wantDay)
		} else if ttl != "45d" && day != "" {
			t.Errorf("ttl=%s fills in the date %q", ttl, day)
		}
	}
}

// TestAudiencesAreChosenInTheForm has one of the catalogue, with a limit of its own, and one that is not in it.
func TestAudiencesAreChosenInTheForm(t *testing.T) {
	t.Parallel()
	r := pageRig(t)
	_, err := r.svc.CreateAudience(t.Context(), tokens.Operator(), tokens.AudienceEntry{
		ID: "api", DisplayName: "The API", MaxTTL: 36 * time.Hour, DefaultTTL: time.Hour,
	})
	must(t, err)
	_, err = r.svc.CreateAudience(t.Context(), tokens.Operator(), tokens.AudienceEntry{ID: "plain"})
	must(t, err)
	b := r.signedIn("u1", time.Hour, "")
	form := b.get("/new?audiences=plain,elsewhere").
		wants(http.StatusOK, "The API", "At most 36h", `value="plain" checked`, ">elsewhere</textarea>").form("")
	form.Set("name", "n")
	form["scopes"] = []string{"reports.read"}
	form.Set("expiration", "30d")
	form["audiences"] = []string{"api"}
	form.Set("other_audiences", "elsewhere\r\nthird")
	b.post("/new", form).wants(http.StatusBadRequest, `id="expiration-error" role="alert"`, `value="api" checked`,
		"elsewhere\nthird</textarea>")
	form["audiences"] = []string{"plain"}
	made := b.post("/new", form).wants(http.StatusOK).secret()
	if got := r.token(t, "u1", idOf(made)).GetAudiences(); strings.Join(got, " ") != "elsewhere plain third" {
		t.Errorf("audiences: %v", got)
	}

	// The key of a form that was sent is another request's: the form comes back with a new one, and is taken then.
	form.Set("name", "another")
	again := b.post("/new", form)
	if again.code < 400 || again.form("").Get("key") == form.Get("key") {
		t.Fatalf("a used key: %d\n%s", again.code, again.text)
	}
	form.Set("key", again.form("").Get("key"))
	b.post("/new", form).wants(http.StatusOK, "Store it now")
}

// TestActivityInPagesNamesWhoDidIt has more events than a page, of one token and of all, by all kinds of actors.
func TestActivityInPagesNamesWhoDidIt(t *testing.T) {
	t.Parallel()
	r := pageRig(t)
	id, secret := r.mint("u1", "noisy")
	for i := range 60 {
		name := strings.Repeat("n", i%40+1)
		_, err := r.svc.UpdateToken(t.Context(), tokens.Operator(), "u1", id, tokens.TokenChange{Name: &name})
		must(t, err)
	}
	named := tokens.Operator()
	named.User = "ann"
	_, err := r.svc.SetUserFeatures(t.Context(), named, "u1", []string{"reports.read", "x"})
	must(t, err)
	svc := r.service("crm", "tokens", "users")
	for _, c := range []struct{ method, path, who, body string }{
		{"POST", "/v1/users/u1/tokens/" + id + ":rotate", svc, `{}`},
		{"POST", "/v1/users/u1/tokens", r.idp.jwt(t, "u2"), `{"name": "x", "scopes": ["reports.read"]}`},
		{"PATCH", "/v1/users/u1/tokens/" + id + "?update_mask=name", secret, `{"name": "x"}`},
	} {
		r.rest(c.method, c.path, c.who, c.body)
	}
	b := r.signedIn("u1", time.Hour, "")
	page := b.get("/activity").wants(http.StatusOK, "The service crm rotated the token")
	next := regexp.MustCompile(`href="(/activity\?page=[^"]*)"`).FindStringSubmatch(page.text)
	if next == nil {
		t.Fatalf("there is no second page\n%s", page.text)
	}
	b.get(next[1]).wants(http.StatusOK, "created the token")
	page = b.get("/activity?token="+id).wants(http.StatusOK, "An operator changed the token")
	more := regexp.MustCompile(`href="(/activity\?[^"]*token=` + id + `[^"]*)"`).FindStringSubmatch(page.text)
	if more == nil {
		t.Fatalf("the token's activity has no second page\n%s", page.text)
	}
	b.get(strings.ReplaceAll(more[1], "&amp;", "&")).wants(http.StatusOK, "created the token")
	b.get("/activity?token=15ODq7pq8Hy").wants(http.StatusOK, "Nothing has happened yet.")
	b.get("/activity?page=nonsense").wants(http.StatusOK, "The service crm rotated")
	b.get("/?page=nonsense&state=none").wants(http.StatusOK)
	b.post("/activity", url.Values{"session": {"00000000000"}}).wants(http.StatusBadRequest, "Nothing was done")
	b.get("/").wants(http.StatusOK, "u1")
}

// TestSessionsAreShownByTheirBrowsers tells a user where it is signed in.
func TestSessionsAreShownByTheirBrowsers(t *testing.T) {
	t.Parallel()
	r := pageRig(t)
	for of, want := range map[string]string{
		"(X11; Linux x86_64) Chrome/130.0 Safari/537.36":                 "Chrome, Linux",
		"(Windows NT 10.0) Chrome/130.0 Safari/537.36 Edg/130.0":         "Edge, Windows",
		"(Macintosh; Intel Mac OS X 10_15) Version/17 Safari/605":        "Safari, macOS",
		"(iPhone; CPU iPhone OS 17_0 like Mac OS X) Version/17 Safari/6": "Safari, iPhone",
		"(Linux; Android 14) Chrome/130.0 Mobile Safari/537.36":          "Chrome, Android",
		"(X11; Ubuntu) Gecko/20100101 Firefox/130.0":                     "Firefox",
		"curl/8.5.0":                       "curl",
		strings.Repeat("long", 30) + "<b>": strings.Repeat("long", 10) + "<",
		"":                                 "",
	} {
		b := newBrowser(r)
		b.headers["User-Agent"] = of
		b.handOver("u1", time.Hour, "")
		b.get("/activity").wants(http.StatusOK, want)
	}
}
