package server_test

import (
	"context"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/internal/oidctest"
	"patd/store/storetest"
	"patd/tokens"
)

// operator returns a browser in which somebody with permissions has signed in.
func (r *rig) operator(p *oidctest.Web, user string, permissions ...string) *browser {
	r.t.Helper()
	groups := make([]string, len(permissions))
	for i, name := range permissions {
		groups[i] = "may-" + name
	}
	b := newBrowser(r)
	p.SetClaims(claims([]claim{{"groups", groups}}))
	b.signIn(p, user, "/").wants(http.StatusOK, user)
	p.SetClaims(nil)
	return b
}

// adminPages are the operators' pages with the permissions that open each; admin opens all.
func adminPages() map[string][]string {
	return map[string][]string{
		"/admin":                          {"tokens", "users", "catalog", "audit"},
		"/admin/users":                    {"users"},
		"/admin/users/bob":                {"users", "tokens"},
		"/admin/tokens":                   {"tokens"},
		"/admin/tokens/revoke?user=bob":   {"tokens"},
		"/admin/events":                   {"audit"},
		"/admin/events?user=bob":          {"audit"},
		"/admin/events/export?format=csv": {"audit"},
		"/admin/services":                 {"admin"},
		"/admin/services/new":             {"admin"},
		"/admin/services/admin":           {"admin"},
		"/admin/webhooks":                 {"admin"},
		"/admin/webhooks/new":             {"admin"},
		"/admin/webhooks/hook":            {"admin"},
		"/admin/audiences":                {"catalog"},
		"/admin/audiences/new":            {"catalog"},
		"/admin/audiences/api":            {"catalog"},
		"/admin/features":                 {"catalog"},
		"/admin/features/new":             {"catalog"},
		"/admin/features/reports.read":    {"catalog"},
		"/admin/keys":                     {"admin"},
		"/admin/health":                   {"tokens", "users", "catalog", "audit"},
	}
}

func opens(permissions []string, name string) bool {
	return name == "admin" || slices.Contains(permissions, name)
}

var adminLink = regexp.MustCompile(`href="(/admin[^"]*)"`)

// TestEachOperatorSeesAndMayWhatTheTableSays opens every page as every kind of operator, and follows every link that it
// is shown.
func TestEachOperatorSeesAndMayWhatTheTableSays(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r, p := webRig(t)
	id, _ := r.mint("bob", "bob's")
	_, err := r.svc.CreateFeature(t.Context(), tokens.Operator(), tokens.FeatureEntry{Name: "reports.read"})
	must(t, err)
	_, err = r.svc.CreateAudience(t.Context(), tokens.Operator(), tokens.AudienceEntry{ID: "api"})
	must(t, err)
	_, err = r.svc.CreateWebhook(
		t.Context(),
		tokens.Operator(),
		tokens.WebhookRequest{ID: "hook", URL: "https://hooks.example.com/"},
	)
	must(t, err)
	pages := adminPages()
	pages["/admin/tokens/"+id] = []string{"tokens"}
	for _, kind := range []string{"tokens", "users", "catalog", "audit", "admin"} {
		t.Run(kind, func(t *testing.T) {
			b := r.under(t).operator(p, "op-"+kind, kind)
			b.get("/").wants(http.StatusOK, `<a href="/admin">Administration</a>`)
			for path, open := range pages {
				page := b.get(path)
				if want := opens(
					open,
					kind,
				); want != (page.code == http.StatusOK) ||
					!want && page.code != http.StatusForbidden {
					t.Errorf("%s: %d; may %v\n%s", path, page.code, want, page.text)
				} else if !want {
					page.wants(http.StatusForbidden, "this call needs the permission ")
				}
				for _, m := range adminLink.FindAllStringSubmatch(page.text, -1) {
					to := html.UnescapeString(m[1])
					if followed := b.get(to); followed.code != http.StatusOK {
						t.Errorf("%s leads to %s: %d", path, to, followed.code)
					}
				}
			}
		})
	}
	b, program := newBrowser(r), r.operator(p, "programs-only", "introspect") // which no person does
	b.signIn(p, "alice", "/").wants(http.StatusOK, "alice")
	if strings.Contains(b.get("/").text, "/admin") || strings.Contains(program.get("/").text, "/admin") {
		t.Error("a user without permissions is shown the operators' pages")
	}
	for path := range pages {
		program.get(path).wants(http.StatusForbidden, "needs the permission")
		page := b.get(path).wants(http.StatusForbidden, "needs the permission")
		if strings.Contains(page.text, "bob's") {
			t.Errorf("%s shows a token", path)
		}
		stranger := newBrowser(r)
		asked := stranger.arrive(path)
		p.SetClaims(claims([]claim{{"groups", []string{"may-admin"}}}))
		back := stranger.once(http.MethodGet, allow(p, asked, "root"), nil)
		p.SetClaims(nil)
		if to := back.header.Get("Location"); to != path {
			t.Errorf("who signs in on the way to %s comes to %q", path, to)
		}
	}
}

// TestAnOperatorManagesUsersInTheBrowser suspends, resumes and deletes.
func TestAnOperatorManagesUsersInTheBrowser(t *testing.T) {
	t.Parallel()
	r, p := webRig(t)
	b := r.operator(p, "ann", "users")
	_, first := r.mint("bob", "one")
	r.mint("bob", "two")
	r.features("bobby", "reports.read")
	r.features("carl", "reports.read")
	list := b.get("/admin/users?q=bob").wants(http.StatusOK, ">bob</a>", ">bobby</a>", "Open the user bob")
	if strings.Contains(list.text, "carl") {
		t.Error("the search finds others too")
	}
	page := b.get("/admin/users/bob").
		wants(http.StatusOK, "2 active tokens stop working", "0 sessions", "2 tokens are revoked for good", ">one<", "reports.read")
	if strings.Contains(page.text, `href="/admin/tokens`) {
		t.Error("there is a link to what the operator may not use")
	}
	form := page.form("suspend")
	form.Set("reason", "on leave")
	for _, wrong := range []string{"", "1", "two", "-2", "2.0"} {
		form.Set("count", wrong)
		again := b.post("/admin/users/bob", form)
		if again.code < 400 || !strings.Contains(again.text, `role="alert"`) ||
			!strings.Contains(again.text, `value="on leave"`) {
			t.Errorf("with the number %q: %d\n%s", wrong, again.code, again.text)
		}
	}
	if got := r.introspect(first).String(); got != "ALLOW" {
		t.Fatalf("a wrong number suspends: %s", got)
	}
	form.Set("count", "2")
	b.post("/admin/users/bob", form).wants(http.StatusOK, "The user is suspended.", "2 tokens work again.")
	if got := r.introspect(first).String(); got != "USER_SUSPENDED" {
		t.Errorf("suspended: %s", got)
	}
	b.get("/admin/users?state=suspended").wants(http.StatusOK, ">bob</a>")
	b.post("/admin/users/bob", b.get("/admin/users/bob").form("resume")).wants(http.StatusOK, "The user is resumed.")
	if got := r.introspect(first).String(); got != "ALLOW" {
		t.Errorf("resumed: %s", got)
	}
	edit := b.get("/admin/users/bob").form("features")
	edit.Set("features", "reports.read\r\ndeploy.run")
	b.post("/admin/users/bob", edit).wants(http.StatusOK, "Saved.", "deploy.run")
	b.post("/admin/users/bob", edit).wants(http.StatusPreconditionFailed, "changed in another window")

	remove := b.get("/admin/users/bob").form("delete")
	remove.Set("count", "2")
	r.mint("bob", "three") // since the page was shown
	b.post("/admin/users/bob", remove).
		wants(http.StatusConflict, "The number is 3 now", "3 tokens are revoked for good")
	remove.Set("count", "3")
	b.post("/admin/users/bob", remove).wants(http.StatusOK, "The user is deleted.")
	if got := r.introspect(first).String(); got != "REVOKED" {
		t.Errorf("deleted: %s", got)
	}
	b.get("/admin/users/bob").wants(http.StatusOK, "no record of this user")
	ahead := b.get("/admin/users/dave").form("suspend")
	ahead.Set("count", "0")
	b.post("/admin/users/dave", ahead).wants(http.StatusOK, "The user is suspended.")

	var actions []string
	events, _, err := r.svc.Events(
		t.Context(),
		tokens.Operator(),
		tokens.EventFilter{Actor: "operator:ann"},
		tokens.Page{Size: 200},
	)
	must(t, err)
	for _, e := range events {
		if e.Outcome == tokens.OutcomeSuccess {
			actions = append(actions, string(e.Action))
		}
	}
	if got := strings.Join(
		actions,
		" ",
	); got != "user.suspend user.delete token.revoke token.revoke token.revoke user.features user.resume user.suspend" {
		t.Errorf("events of the operator: %s", got)
	}
}

// TestAnOperatorFindsAndRevokesTokensInTheBrowser goes from the filter to the number.
func TestAnOperatorFindsAndRevokesTokensInTheBrowser(t *testing.T) {
	t.Parallel()
	r, p := webRig(t)
	b := r.operator(p, "ann", "tokens")
	_, lost := r.mint("bob", "ci of bob")
	oneID, one := r.mint("bob", "laptop")
	_, other := r.mint("carl", "ci of carl")
	for query, want := range map[string]int{"": 3, "?user=bob": 2, "?q=CI": 2, "?q=" + oneID: 1, "?scope=reports.read&order=issue_time": 3,
		"?state=revoked": 0, "?created_before=1999-01-01": 0, "?created_before=2999-01-01": 3, "?label=team%3Dx": 0, "?audience=api": 0,
		"?expires_before=2999-01-01": 3, "?unused_since=2999-01-01": 3} {
		page := b.get("/admin/tokens" + query).wants(http.StatusOK)
		if got := strings.Count(page.text, `role="rowheader"`); got != want {
			t.Errorf("%q finds %d, want %d", query, got, want)
		}
	}
	for _, wrong := range []string{"?state=x", "?created_before=yesterday", "?label=team", "?order=name", "?scope=%22"} {
		b.get("/admin/tokens"+wrong).wants(http.StatusBadRequest, `role="alert"`)
	}
	page := b.get("/admin/tokens/"+oneID+"?revoke=1").
		wants(http.StatusOK, "laptop", "bob", "reports.read", "<dialog", " open>")
	form := page.form("revoke")
	form.Set("reason", "found in a repository")
	b.post("/admin/tokens/"+oneID, form).wants(http.StatusOK, "It is revoked.", "found in a repository", "operator:ann")
	if got := r.introspect(one).String(); got != "REVOKED" {
		t.Errorf("after its revocation: %s", got)
	}

	list := b.get("/admin/tokens?q=ci").wants(http.StatusOK, "Revoke all that match")
	if strings.Contains(b.get("/admin/tokens").text, "Revoke all that match") {
		t.Error("all tokens can be revoked without a filter")
	}
	to := html.UnescapeString(regexp.MustCompile(`href="(/admin/tokens/revoke[^"]*)"`).FindStringSubmatch(list.text)[1])
	form = b.get(to).wants(http.StatusOK, "2 tokens would be revoked.", "Revoke 2 tokens").form("revoke")
	form.Set("reason", "leaked")
	form.Set("count", "3")
	again := b.post("/admin/tokens/revoke", form).wants(http.StatusConflict, "The number is 2 now", `value="leaked"`)
	form.Set("count", "")
	b.post("/admin/tokens/revoke", form).wants(http.StatusBadRequest, "Type the number")
	if got := r.introspect(lost).String(); got != "ALLOW" {
		t.Fatalf("a wrong number revokes: %s", got)
	}
	r.mint("dave", "ci of dave")
	form = again.form("revoke")
	form.Set("count", "2")
	outdated := b.post("/admin/tokens/revoke", form).
		wants(http.StatusConflict, "3 tokens would be revoked.", "not the same any more")
	form = outdated.form("revoke")
	form.Set("count", "3")
	form.Set("reason", "leaked")
	b.post("/admin/tokens/revoke", form).wants(http.StatusOK, "Done: 3 of 3 tokens were revoked here.")
	b.post("/admin/tokens/revoke", form).wants(http.StatusOK, "Done: 3 of 3 tokens were revoked here.") // reloaded
	for _, secret := range []string{lost, other} {
		if got := r.introspect(secret).String(); got != "REVOKED" {
			t.Errorf("after the revocation of all: %s", got)
		}
	}
	form.Set("plan", "made up")
	b.post("/admin/tokens/revoke", form).wants(http.StatusBadRequest, `role="alert"`)
	b.get("/admin/tokens/revoke").wants(http.StatusBadRequest, "Say which tokens")
	events, _, err := r.svc.Events(
		t.Context(),
		tokens.Operator(),
		tokens.EventFilter{Actor: "operator:ann", Action: "token.revoke_matching"},
		tokens.Page{},
	)
	must(t, err)
	found := 0
	for _, e := range events {
		if e.Outcome == tokens.OutcomeSuccess {
			found++
		}
	}
	if found != 1 {
		t.Errorf("%d events of the revocation", found)
	}
}

// TestAnEndedSessionOfAnOperatorDoesNothing ends it in another browser, and by its age.
func TestAnEndedSessionOfAnOperatorDoesNothing(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r, p := webRig(t)
	r.mint("bob", "one")
	b, elsewhere := r.operator(p, "ann", "users"), r.operator(p, "ann", "users")
	form := b.get("/admin/users/bob").form("suspend")
	form.Set("count", "1")
	elsewhere.post("/activity", elsewhere.get("/activity").form("")).wants(http.StatusOK, "Ended.")
	b.arrive("/admin/users/bob")
	if page := b.once(
		http.MethodPost,
		"/admin/users/bob",
		form,
	); page.code != http.StatusSeeOther ||
		!strings.HasPrefix(page.header.Get("Location"), "/signin") {
		t.Errorf("a form of an ended session: %d", page.code)
	}
	u, err := r.svc.User(t.Context(), tokens.Operator(), "bob")
	if must(t, err); u.State != tokens.UserActive {
		t.Error("an ended session suspends a user")
	}
	for range 14 { // uses, each within an hour of the one before
		r.wait(50 * time.Minute)
		elsewhere.get("/admin/health").wants(http.StatusOK)
	}
	r.wait(30 * time.Minute) // past 12 hours
	elsewhere.arrive("/admin/health")
}

// TestPagesOfOperatorsAreFramedNowhere holds even for origins that frame the users' pages.
func TestPagesOfOperatorsAreFramedNowhere(t *testing.T) {
	t.Parallel()
	r, p := webRig(t)
	b := r.operator(p, "ann", "admin")
	for path, want := range map[string]string{"/": "https://app.example.com", "/admin": "'none'", "/admin/users": "'none'", "/admin/nothing": "'none'"} {
		h := b.get(path).header
		policy := h.Get("Content-Security-Policy")
		if !strings.HasSuffix(policy, "frame-ancestors "+want) || strings.Contains(policy, "unsafe") ||
			(h.Get("X-Frame-Options") == "DENY") != (want == "'none'") {
			t.Errorf("%s: %s, X-Frame-Options %q", path, policy, h.Get("X-Frame-Options"))
		}
	}
}

// TestAnExportIsWholeOrFails has more events than one page of a list, and a store that fails on the way.
func TestAnExportIsWholeOrFails(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r, p := webRig(t)
	b := r.operator(p, "ann", "audit")
	const formula = "=HYPERLINK(1)"
	r.features(formula, "reports.read")
	for i := range 450 {
		r.features("bob", "reports.read", "n"+strconv.Itoa(i))
	}
	page := b.get("/admin/events?user=bob").wants(http.StatusOK, "user.features", "export?format=csv&amp;user=bob")
	if strings.Count(page.text, `role="rowheader"`) != 50 || !strings.Contains(page.text, `rel="next"`) {
		t.Errorf("the first page of events:\n%s", page.text)
	}
	lines := func(path string) []string {
		return strings.Split(strings.TrimSpace(b.get(path).wants(http.StatusOK).text), "\n")
	}
	if got := len(
		lines("/admin/events/export?format=csv&user=bob"),
	); got != 452 { // a head, and the features of the rig
		t.Errorf("the table has %d lines", got)
	}
	all := lines("/admin/events/export?format=ndjson")
	seen := map[string]bool{}
	for _, line := range all {
		var e map[string]string
		must(t, json.Unmarshal([]byte(line), &e))
		seen[e["event_id"]] = true
	}
	if len(seen) != len(all) || len(all) < 451 {
		t.Errorf("%d events in %d lines", len(seen), len(all))
	}
	if text := b.get(
		"/admin/events/export?format=csv",
	).text; strings.Contains(text, ","+formula) ||
		!strings.Contains(text, ",'"+formula) {
		t.Error("a cell is a formula")
	}
	b.get("/admin/events?actor=bob").wants(http.StatusBadRequest, `role="alert"`)
	b.get("/admin/events/export?format=xls").wants(http.StatusBadRequest)
	for _, c := range []struct {
		what string
		then func(read int32) error
	}{
		{"the store fails", func(read int32) error {
			if read > 3 { // the session, a page, the session again
				return storetest.Outage()
			}
			return nil
		}},
		{"the operator is suspended", func(read int32) error {
			if read != 3 {
				return nil
			}
			_, err := r.svc.SuspendUser(context.Background(), tokens.Operator(), "ann", "")
			return err
		}},
	} {
		began := false
		for range 5 { // the server reads its store in the background, too
			var reads atomic.Int32
			r.store.set(func(op string) error {
				if op != "View" {
					return nil
				}
				return c.then(reads.Add(1))
			})
			req, err := http.NewRequestWithContext(
				t.Context(),
				http.MethodGet,
				"http://"+r.srv.HTTPAddr()+"/admin/events/export?format=ndjson",
				nil,
			)
			must(t, err)
			req.AddCookie(&http.Cookie{Name: "__Host-patd-session", Value: b.cookies["__Host-patd-session"]})
			resp, err := r.client.Transport.RoundTrip(req)
			if err == nil {
				began = resp.StatusCode == http.StatusOK
				_, err = io.ReadAll(resp.Body)
				must(t, resp.Body.Close())
			}
			r.store.set(nil)
			if began {
				if err == nil {
					t.Errorf("where %s, an export that broke off looks whole", c.what)
				}
				break
			}
			_, _ = r.svc.ResumeUser(t.Context(), tokens.Operator(), "ann", "") // nobody, if it is not known
			b = r.operator(p, "ann", "audit")
		}
		if !began {
			t.Errorf("where %s, no export begins", c.what)
		}
	}
}
