package server_test

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/store/storetest"
	"patd/tokens"
)

// adminForm is a form of an operator's page: where it is sent, and what it holds beside the session.
type adminForm struct {
	path, permission string
	fields           url.Values
	audited          tokens.Action // what a refused attempt is recorded as
}

// adminForms are all that change something. Each is about things that r has.
func adminForms(r *rig) []adminForm {
	id, _ := r.mint("bob", "bob's")
	_, err := r.svc.CreateFeature(r.t.Context(), tokens.Operator(), tokens.FeatureEntry{Name: "reports.read"})
	must(r.t, err)
	_, err = r.svc.CreateAudience(r.t.Context(), tokens.Operator(), tokens.AudienceEntry{ID: "api"})
	must(r.t, err)
	r.service("crm", "audit")
	_, err = r.svc.CreateWebhook(
		r.t.Context(),
		tokens.Operator(),
		tokens.WebhookRequest{ID: "hook", URL: "https://hooks.example.com/", Enabled: true},
	)
	must(r.t, err)
	of := func(action string, more ...string) url.Values {
		v := url.Values{"action": {action}, "count": {"1"}, "reason": {"why"}}
		for i := 0; i+1 < len(more); i += 2 {
			v.Set(more[i], more[i+1])
		}
		return v
	}
	return []adminForm{
		{"/admin/users/bob", "users", of("suspend"), tokens.ActionUserSuspend},
		{"/admin/users/bob", "users", of("resume"), tokens.ActionUserResume},
		{"/admin/users/bob", "users", of("delete"), tokens.ActionUserDelete},
		{"/admin/users/bob", "users", of("features", "features", "x"), tokens.ActionUserFeatures},
		{"/admin/users/bob", "users", of("refresh"), tokens.ActionUserRefresh},
		{"/admin/tokens/" + id, "tokens", of("revoke"), ""}, // it is found first, which only reads
		{"/admin/tokens/revoke", "tokens", of("revoke", "user", "bob", "plan", "x"), tokens.ActionTokenRevokeMatching},
		{
			"/admin/services/new",
			"admin",
			of("", "name", "own", "permissions", "admin", "key", strings.Repeat("k", 32)),
			tokens.ActionServiceCreate,
		},
		{
			"/admin/services/crm",
			"admin",
			of("rotate", "grace", "0s", "key", strings.Repeat("l", 32)),
			tokens.ActionServiceRotate,
		},
		{"/admin/services/crm", "admin", of("revoke"), tokens.ActionServiceRevoke},
		{
			"/admin/webhooks/new",
			"admin",
			of("create", "url", "https://own.example.com/", "key", strings.Repeat("m", 32)),
			tokens.ActionWebhookCreate,
		},
		{"/admin/webhooks/hook", "admin", of("save", "url", "https://own.example.com/"), tokens.ActionWebhookUpdate},
		{"/admin/webhooks/hook", "admin", of("test"), tokens.ActionWebhookTest},
		{
			"/admin/webhooks/hook",
			"admin",
			of("redeliver", "delivery", strings.Repeat("0", 32)),
			tokens.ActionWebhookRedeliver,
		},
		{"/admin/webhooks/hook", "admin", of("rotate", "key", strings.Repeat("n", 32)), tokens.ActionWebhookRotate},
		{"/admin/webhooks/hook", "admin", of("delete"), tokens.ActionWebhookDelete},
		{"/admin/audiences/new", "catalog", of("save", "id", "own"), tokens.ActionAudienceCreate},
		{"/admin/audiences/api", "catalog", of("save", "max_ttl", "1h"), tokens.ActionAudienceReplace},
		{"/admin/audiences/api", "catalog", of("delete"), tokens.ActionAudienceDelete},
		{"/admin/audiences/api", "catalog", of("block"), tokens.ActionTokenBlock},
		{"/admin/audiences/api", "catalog", of("unblock"), tokens.ActionTokenUnblock},
		{"/admin/features/new", "catalog", of("save", "name", "own"), tokens.ActionFeatureCreate},
		{"/admin/features/reports.read", "catalog", of("save", "display_name", "own"), tokens.ActionFeatureReplace},
		{"/admin/features/reports.read", "catalog", of("delete"), tokens.ActionFeatureDelete},
	}
}

// bound returns a form with the session of a browser.
func (b *browser) bound(form url.Values) url.Values {
	out := url.Values{}
	for name, values := range form {
		out[name] = values
	}
	out.Set("session", regexp.MustCompile(`name="session" value="([^"]*)"`).FindStringSubmatch(b.get("/new").text)[1])
	return out
}

// TestNoOperatorChangesWhatItMayNot sends every form as every kind of operator that may not, and as a user. The forms
// are as the page would have them for one who may.
func TestNoOperatorChangesWhatItMayNot(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r, p := webRig(t)
	forms := adminForms(r)
	before := r.audited(t, "")
	for _, kind := range []string{"tokens", "users", "catalog", "audit", ""} {
		b := newBrowser(r)
		if kind == "" {
			b.signIn(p, "bob", "/") // about itself, too
		} else {
			b = r.operator(p, "op-"+kind, kind)
		}
		for _, f := range forms {
			if f.permission == kind {
				continue
			}
			page := b.post(f.path, b.bound(f.fields))
			if page.code != http.StatusForbidden ||
				!strings.Contains(page.text, "needs the permission "+f.permission) && f.permission != "admin" {
				t.Errorf("%q sends %s %s: %d\n%s", kind, f.path, f.fields.Get("action"), page.code, page.text)
			}
		}
	}
	refused := map[string]int{}
	for _, e := range r.audited(t, "")[:len(r.audited(t, ""))-len(before)] {
		switch {
		case e.Outcome == tokens.OutcomeRefused:
			refused[e.Actor+" "+string(e.Action)]++
		case e.Action != tokens.ActionSessionCreate:
			t.Errorf("%s did %s", e.Actor, e.Action)
		}
	}
	for _, f := range forms {
		if f.audited != "" && refused["operator:op-audit "+string(f.audited)] != 1 {
			t.Errorf(
				"a refused %s of an operator is recorded %d times",
				f.audited,
				refused["operator:op-audit "+string(f.audited)],
			)
		}
	}
}

// audited returns the newest events, the newest first.
func (r *rig) audited(t *testing.T, actor string) []tokens.Event {
	t.Helper()
	events, _, err := r.svc.Events(
		t.Context(),
		tokens.Operator(),
		tokens.EventFilter{Actor: actor},
		tokens.Page{Size: tokens.MaxPageSize},
	)
	must(t, err)
	return events
}

// TestOtherSitesSendNoFormOfAnOperator is about CSRF, and about a form of another session.
func TestOtherSitesSendNoFormOfAnOperator(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r, p := webRig(t)
	forms := adminForms(r)
	b := r.operator(p, "ann", "admin")
	count := len(r.audited(t, ""))
	for _, f := range forms {
		form := b.bound(f.fields)
		for _, headers := range []map[string]string{{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://app.example.com"}} {
			other := *b
			other.headers = headers
			other.post(f.path, form).wants(http.StatusForbidden, "another site")
		}
		form.Set("session", "00000000000")
		b.post(f.path, form).wants(http.StatusConflict, "Nothing was done")
		form.Del("session")
		b.post(f.path, form).wants(http.StatusConflict)
	}
	if got := len(r.audited(t, "")); got != count {
		t.Errorf("%d events came of it", got-count)
	}
}

// TestHostileTextsAreShownToOperatorsAndNotRun puts them wherever an operator's page shows one.
func TestHostileTextsAreShownToOperatorsAndNotRun(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r, p := webRig(t)
	const feature, audience = "a'><img/src=x/onerror=alert(1)>", "https://api.example.com/'><img/src=x/onerror=alert(1)>"
	r.features(hostile, feature)
	ctx, root := t.Context(), tokens.Operator()
	_, err := r.svc.CreateFeature(
		ctx,
		root,
		tokens.FeatureEntry{Name: feature, DisplayName: hostile, Description: hostile},
	)
	must(t, err)
	_, err = r.svc.CreateAudience(
		ctx,
		root,
		tokens.AudienceEntry{ID: audience, DisplayName: hostile, MaxTTL: 300 * tokens.Day},
	)
	must(t, err)
	m, err := r.svc.Mint(
		ctx,
		root,
		tokens.MintRequest{
			User:        hostile,
			Name:        hostile,
			Scopes:      []string{feature},
			Audiences:   []string{audience},
			Description: hostile,
			Labels:      map[string]string{"team": hostile},
		},
	)
	must(t, err)
	_, err = r.svc.CreateService(
		ctx,
		root,
		tokens.ServiceRequest{Name: "crm", Permissions: []string{"audit"}, Audience: audience},
	)
	must(t, err)
	_, err = r.svc.CreateWebhook(
		ctx,
		root,
		tokens.WebhookRequest{
			ID:          "hook",
			URL:         "https://hooks.example.com/" + hostile,
			Description: hostile,
			Enabled:     true,
			Filter: tokens.WebhookFilter{
				Users:     []string{hostile},
				Audiences: []string{audience},
				Labels:    map[string]string{"team": hostile},
			},
		},
	)
	must(t, err)
	_, err = r.svc.TestWebhook(ctx, root, "hook")
	must(t, err)
	id := m.Token.ID.String()
	b := r.operator(p, "ann", "admin")
	revoke := b.get("/admin/tokens/" + id + "?revoke=1").form("revoke")
	revoke.Set("reason", hostile)
	b.post("/admin/tokens/"+id, revoke).wants(http.StatusOK, "&lt;img src=x onerror=alert(1)&gt;")
	in := url.QueryEscape(hostile)
	paths := []string{
		"/admin",
		"/admin/users",
		"/admin/users?q=" + in,
		"/admin/users?state=" + in,
		"/admin/users?done=" + in,
		"/admin/users/-?id=" + in,
		"/admin/users/" + url.PathEscape(hostile),
		"/admin/tokens",
		"/admin/tokens?q=" + in + "&user=" + in + "&scope=" + in + "&audience=" + in + "&label=" + in,
		"/admin/tokens?order=" + in,
		"/admin/tokens/" + id,
		"/admin/tokens/" + url.PathEscape(
			hostile,
		),
		"/admin/tokens/revoke?user=" + in,
		"/admin/events",
		"/admin/events?user=" + in + "&token=" + in,
		"/admin/events?actor=" + in,
		"/admin/webhooks",
		"/admin/webhooks/hook",
		"/admin/webhooks/hook?state=" + in + "&page=" + in,
		"/admin/webhooks/-?id=" + in,
		"/admin/webhooks?done=" + in,
		"/admin/services",
		"/admin/services/crm",
		"/admin/services/-?id=" + in,
		"/admin/audiences",
		"/admin/audiences?q=" + in,
		"/admin/audiences/-?id=" + url.QueryEscape(
			audience,
		),
		"/admin/audiences/-?longest=" + in + "&id=" + url.QueryEscape(audience),
		"/admin/audiences/-?id=" + in,
		"/admin/features",
		"/admin/features?q=" + in,
		"/admin/features/-?id=" + url.QueryEscape(feature),
		"/admin/keys",
		"/admin/health",
		"/admin/nothing" + url.PathEscape(hostile),
	}
	seen := map[string]bool{}
	for len(paths) > 0 {
		path := paths[0]
		if paths = paths[1:]; seen[path] || strings.Contains(path, "/export") {
			continue
		}
		seen[path] = true
		page := b.get(path)
		for _, runs := range []string{"<img", "<script>alert", "onerror=alert(1)>", "href=\"javascript:"} {
			// Escaped, it stands there as &lt;img … &gt;.
			if strings.Contains(page.text, runs) {
				t.Errorf("%s has %s\n%s", path, runs, page.text)
			}
		}
		if page.code >= 500 {
			t.Errorf("%s: %d", path, page.code)
		}
		for _, m := range adminLink.FindAllStringSubmatch(page.text, -1) {
			paths = append(paths, html.UnescapeString(m[1]))
		}
	}
	b.get("/admin/users/-?id="+in).wants(http.StatusOK, "&lt;img src=x onerror=alert(1)&gt;")
}

// TestOperatorsTurnThePagesOfLists goes through all pages of each list, and finds everything once.
func TestOperatorsTurnThePagesOfLists(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r, p := webRig(t)
	b := r.operator(p, "ann", "admin")
	for i := range 60 {
		r.mint("user"+strconv.Itoa(i), "token"+strconv.Itoa(i))
		_, err := r.svc.CreateFeature(t.Context(), tokens.Operator(), tokens.FeatureEntry{Name: "f" + strconv.Itoa(i)})
		must(t, err)
		_, err = r.svc.CreateAudience(t.Context(), tokens.Operator(), tokens.AudienceEntry{ID: "a" + strconv.Itoa(i)})
		must(t, err)
		_, err = r.svc.CreateWebhook(
			t.Context(),
			tokens.Operator(),
			tokens.WebhookRequest{ID: "w" + strconv.Itoa(i), URL: "https://hooks.example.com/"},
		)
		must(t, err)
	}
	row, next := regexp.MustCompile(
		`role="rowheader"><a href="([^"]*)"`,
	), regexp.MustCompile(
		`rel="next" href="([^"]*)"`,
	)
	for path, want := range map[string]int{"/admin/users?q=user": 60, "/admin/tokens": 60, "/admin/tokens?order=expire_time&scope=reports.read": 60, "/admin/features": 60, "/admin/audiences": 60, "/admin/webhooks": 60} {
		found := map[string]bool{}
		for page, pages := b.get(path), 1; ; pages++ {
			for _, m := range row.FindAllStringSubmatch(page.wants(http.StatusOK).text, -1) {
				if found[m[1]] {
					t.Errorf("%s: %s is listed twice", path, m[1])
				}
				found[m[1]] = true
			}
			if pages > 1 && !strings.Contains(page.text, ">First page</a>") {
				t.Errorf("%s: no way back to the first page", path)
			}
			m := next.FindStringSubmatch(page.text)
			if m == nil || pages > 9 {
				break
			}
			page = b.get(html.UnescapeString(m[1]))
		}
		if len(found) != want {
			t.Errorf("%s lists %d, want %d", path, len(found), want)
		}
		forged, err := url.Parse(path)
		if err != nil {
			t.Fatal(err)
		}
		query := forged.Query()
		filter := query.Encode()
		query.Set("page", "forged")
		forged.RawQuery = query.Encode()
		to, err := url.Parse(b.once(http.MethodGet, forged.String(), nil).header.Get("Location"))
		if err != nil || to.Path != forged.Path || to.Query().Encode() != filter {
			t.Errorf("%s: a page of another list leads to %s, want the first page with the same filter", path, to)
		}
		b.get(to.String()).wants(http.StatusOK)
	}
	// Lists on the page of one thing.
	for _, path := range []string{"/admin/webhooks/w1?state=pending", "/admin/audiences/a1?longest=1h"} {
		if to := b.once(http.MethodGet, path+"&page=forged", nil).header.Get("Location"); to != path {
			t.Errorf("%s: a page of another list leads to %q", path, to)
		}
	}
}

// TestAnOutageIsAPageThatSaysSoToOperators has the store out: no page is an empty list, and a form is sent again.
func TestAnOutageIsAPageThatSaysSoToOperators(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r, p := webRig(t)
	adminForms(r)
	b := r.operator(p, "ann", "admin")
	form := b.get("/admin/users/bob").form("suspend")
	form.Set("count", "1")
	form.Set("reason", "kept")
	b.get("/admin/health").wants(http.StatusOK, ">ready<", "test")
	r.faulty.FailOp(storetest.OpUpdate, storetest.Outage())
	again := b.post("/admin/users/bob", form).
		wants(http.StatusServiceUnavailable, "Try again", `name="reason" value="kept"`, `name="count" value="1"`)
	r.faulty.FailOp(storetest.OpUpdate, nil)
	r.faulty.Fail(storetest.Outage())
	for _, path := range []string{"/admin/users", "/admin/users/bob", "/admin/tokens", "/admin/events", "/admin/events/export?format=csv", "/admin/services", "/admin/audiences",
		"/admin/features", "/admin/keys", "/admin/webhooks", "/admin/webhooks/hook"} {
		page := b.get(path).wants(http.StatusServiceUnavailable, "Not available now")
		if strings.Contains(page.text, "Nothing matches") || page.header.Get("Retry-After") == "" {
			t.Errorf("%s: an outage looks like an empty list", path)
		}
	}
	r.faulty.Fail(nil)
	resent := url.Values{}
	for _, m := range inputForm.FindAllStringSubmatch(again.text, -1) {
		resent.Add(m[1], html.UnescapeString(m[2]))
	}
	b.post("/admin/users/bob", resent).wants(http.StatusOK, "The user is suspended.")
}

// TestAFormOfAnOperatorSurvivesSigningInAgain comes back to the same thing, even where a path would lose its id.
func TestAFormOfAnOperatorSurvivesSigningInAgain(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r, p := webRig(t)
	const user = "a/b?c"
	r.mint(user, "one")
	b := r.operator(p, "ann", "users")
	at := "/admin/users/-?id=" + url.QueryEscape(user)
	form := b.get(at).wants(http.StatusOK, ">a/b?c</h1>").form("suspend")
	form.Set("count", "1")
	form.Set("reason", "typed before")
	r.wait(tokens.PageSessionIdle + 2*time.Minute)
	lost := b.post(at, form)
	asked, err := url.Parse(lost.header.Get("Location"))
	must(t, err)
	p.SetClaims(claims([]claim{{"groups", []string{"may-users"}}}))
	page := b.get(allow(p, asked.Query(), "ann")).
		wants(http.StatusOK, ">a/b?c</h1>", `value="typed before"`, "nothing was done yet")
	again := page.form("suspend")
	again.Set("count", "1")
	b.post(at, again).wants(http.StatusOK, "The user is suspended.")
}
