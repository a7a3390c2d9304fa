package server_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/store/storetest"
	"patd/tokens"
)

// failEach makes each operation of the store that do needs fail in turn, then each of its transactions that read. It
// returns what says found wrong with the page each time. Before and after, do must work. The server's own work may come
// between, so that what is wrong counts only if it is wrong again.
func (r *rig) failEach(t *testing.T, what string, do func() shown, says func(shown) string) (silent []string) {
	t.Helper()
	works := func(when string) {
		t.Helper()
		if page := do(); page.code != http.StatusOK {
			t.Errorf("%s %s: %d\n%s", what, when, page.code, page.text)
		}
	}
	again := func(what string, try func() (page shown, failed bool)) (more bool) {
		wrong := ""
		for range 3 {
			page, failed := try()
			if !failed {
				return false
			}
			if wrong = says(page); wrong == "" {
				return true
			}
		}
		silent = append(silent, what+": "+wrong)
		return true
	}
	before := r.faulty.Calls()
	works("before the outage")
	var used []storetest.Op
	for op, n := range r.faulty.Calls() {
		if n > before[op] && !own(op) {
			used = append(used, op)
		}
	}
	slices.Sort(used)
	for _, op := range used {
		again(string(op), func() (shown, bool) {
			r.faulty.FailOp(op, storetest.Outage())
			defer r.faulty.Fail(nil)
			return do(), true
		})
	}
	for spared := int64(0); again(fmt.Sprintf("reading %d", spared+1), func() (shown, bool) {
		var seen atomic.Int64
		r.store.set(func(op string) error {
			if op == "View" && seen.Add(1) == spared+1 {
				return storetest.Outage()
			}
			return nil
		})
		defer r.store.set(nil)
		page := do()
		return page, seen.Load() > spared
	}); {
		spared++
	}
	works("after the outage")
	return silent
}

// own reports whether an operation is the server's own work, and not for a request: it looks for what is to be carried
// on, and writes the time of the last visit in the background.
func own(op storetest.Op) bool {
	return slices.Contains([]storetest.Op{
		storetest.OpRecordVisit, "AbandonedBulkRevocation", "AbandonedNarrowing", "EndedPauses",
	}, op)
}

// TestEachReadOfAPageMayFail has one operation of the store after the other fail under every page. A page says so, with
// 503 or at the place of what is not known; none looks as if there were nothing.
func TestEachReadOfAPageMayFail(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r, p := webRig(t)
	id := r.fullToken(t, "alice")
	adminForms(r)
	person, op := newBrowser(r), r.operator(p, "ann", "admin")
	person.signIn(p, "alice", "/").wants(http.StatusOK)
	pages := map[string]*browser{"/": person, "/new": person, "/activity": person, "/tokens/" + id: person}
	for path := range adminPages() {
		pages[path] = op
	}
	pages["/admin/tokens/"+id] = op
	for path, b := range pages {
		silent := r.failEach(t, path, func() shown { return b.get(path) }, func(page shown) string {
			said := page.code == http.StatusServiceUnavailable && page.header.Get("Retry-After") != "" &&
				strings.Contains(page.text, "Not available now") ||
				strings.Contains(page.text, "cannot reach its store")
			if !said || strings.Contains(page.text, "injected") {
				return fmt.Sprintf("%d\n%s", page.code, page.text)
			}
			return ""
		})
		spared := 0
		if slices.Contains(
			[]string{"/", "/tokens/" + id, "/admin/tokens", "/admin/tokens/" + id, "/admin/users/bob"},
			path,
		) {
			spared = 1 // which scopes of a token are in effect is left out where it is not known; no page shows it
		}
		if len(silent) > spared {
			t.Errorf("%s says nothing of %s", path, strings.Join(silent, "\nnor of "))
		}
	}
}

// TestEachFormMayFail sends every form of the pages while the store takes no changes, none that it keeps, or does not
// answer at all. Each says so and keeps what was typed, and does what it should when it is sent again.
func TestEachFormMayFail(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r, p := webRig(t)
	forms := adminForms(r)
	op := r.operator(p, "ann", "admin")
	person := newBrowser(r)
	person.signIn(p, "alice", "/").wants(http.StatusOK)
	path := "/tokens/" + idOf(person.newToken("laptop", "reports.read", "reports.write").wants(http.StatusOK).secret())
	of := func(action string, more url.Values) url.Values {
		more.Set("action", action)
		return person.bound(more)
	}
	type sent struct {
		b    *browser
		path string
		form url.Values
	}
	all := []sent{
		{person, path, of("edit", url.Values{"name": {"typed"}, "scopes": {"reports.read"}})},
		{
			person,
			path,
			of("rotate", url.Values{"grace": {"1h"}, "expiration": {"keep"}, "key": {strings.Repeat("r", 32)}}),
		},
		{person, path, of("narrow", url.Values{"scopes": {"reports.write"}})},
		{person, path, of("revoke", url.Values{})},
		{person, "/activity", of("", url.Values{})},
	}
	for _, f := range forms {
		all = append(all, sent{op, f.path, op.bound(f.fields)})
	}
	before := len(r.audited(t, "operator:ann"))
	for _, f := range all {
		for _, fails := range []storetest.Op{storetest.OpView, storetest.OpUpdate, storetest.OpCommit} {
			was := r.faulty.Calls()[fails]
			r.faulty.FailOp(fails, storetest.Outage())
			page := f.b.post(f.path, f.form)
			r.faulty.Fail(nil)
			refused := slices.Contains(
				[]int{http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed}, page.code,
			)
			if fails != storetest.OpView && refused || r.faulty.Calls()[fails] == was {
				continue // it was refused for what it is, before anything was to be kept
			}
			what := f.path + " " + f.form.Get("action")
			if strings.Contains(page.text, "injected") {
				t.Errorf("%s without %s: the cause is shown", what, fails)
			}
			if !strings.Contains(page.text, "cannot reach its store") &&
				!strings.Contains(page.text, "Not available now") ||
				page.code < 400 {
				t.Errorf("%s without %s: %d\n%s", what, fails, page.code, page.text)
			}
		}
	}
	if now := len(r.audited(t, "operator:ann")); now != before {
		t.Errorf("during the outages %d changes were made", now-before)
	}
	if again := person.get(path).wants(http.StatusOK, "laptop"); !strings.Contains(again.text, "Active") {
		t.Error("the token was changed")
	}
	person.post(path, all[0].form).wants(http.StatusOK, "Saved.", "typed")
	op.post(all[5].path, all[5].form).wants(http.StatusOK, "The user is suspended.")
}

// TestSigningInAndOutDuringAnOutage ends nobody's session by mistake, and says to nobody that it has.
func TestSigningInAndOutDuringAnOutage(t *testing.T) {
	t.Parallel()
	r, p := webRig(t)
	b := newBrowser(r)
	b.signIn(p, "alice", "/").wants(http.StatusOK)
	for _, op := range []storetest.Op{storetest.OpView, storetest.OpUpdate, storetest.OpCommit} {
		other := newBrowser(r)
		back := allow(p, other.arrive("/"), "bob")
		r.faulty.FailOp(op, storetest.Outage())
		page := b.post("/signout", url.Values{}).wants(http.StatusServiceUnavailable, "Not available now")
		if page.header.Get("Set-Cookie") != "" {
			t.Errorf("without %s the cookie of a session that goes on is taken away", op)
		}
		if op != storetest.OpView {
			other.get(back).wants(http.StatusServiceUnavailable)
		}
		r.faulty.Fail(nil)
		b.get("/").wants(http.StatusOK, "alice")
		if other.cookies["__Host-patd-session"] != "" {
			t.Errorf("without %s somebody was signed in", op)
		}
	}
	// A form that is sent after its session has ended, and whose text cannot be kept, is not lost: it is sent again.
	form := b.get("/new").form("")
	form.Set("name", "typed before")
	r.wait(tokens.PageSessionIdle + 2*time.Minute)
	r.faulty.FailOp(storetest.OpRecordVisit, storetest.Outage())
	b.post("/new", form).wants(http.StatusServiceUnavailable, `name="name" value="typed before"`, "Try again")
	r.faulty.Fail(nil)

	if to := newBrowser(r).once(http.MethodPost, "/signout", url.Values{}).header.Get("Location"); to != "/signin" {
		t.Errorf("who is not signed in and signs out comes to %q", to)
	}
}
