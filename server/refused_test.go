package server_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	patdv1 "patd/gen/patd/v1"
	"patd/server"
	"patd/store/storetest"
	"patd/tokens"
)

// TestARefusalStandsWhereItCannotBeRecorded has the audit log take nothing: who may not, may not nevertheless, and the
// log has a warning instead.
func TestARefusalStandsWhereItCannotBeRecorded(t *testing.T) {
	t.Parallel()
	r, p := webRig(t)
	form := adminForms(r)[0]
	low := r.service("low", "introspect")
	op := r.operator(p, "ann", "audit")
	bound := op.bound(form.fields)
	const warning = "a refused attempt could not be recorded"
	for what, attempt := range map[string]func() bool{
		"over gRPC": func() bool {
			_, err := patdv1.NewUserServiceClient(r.conn).SuspendUser(as(low), &patdv1.SuspendUserRequest{User: "bob"})
			return status.Code(err) == codes.PermissionDenied
		},
		"over REST": func() bool {
			return r.rest("POST", "/v1/users/bob:suspend", low, "{}").code == http.StatusForbidden
		},
		"on a page": func() bool { return op.post(form.path, bound).code == http.StatusForbidden },
	} {
		before := len(r.logs.find(map[string]any{"msg": warning, "level": "WARN"}))
		r.faulty.FailOp(storetest.OpUpdate, storetest.Outage())
		refused := attempt()
		r.faulty.Fail(nil)
		if !refused {
			t.Errorf("%s the attempt is not refused", what)
		}
		if n := len(r.logs.find(map[string]any{"msg": warning, "level": "WARN"})) - before; n != 1 {
			t.Errorf("%s %d warnings are logged", what, n)
		}
	}
	if got := r.state("bob"); got != "ACTIVE" {
		t.Errorf("the user is %s", got)
	}
}

// TestALinkToTheNextPageRepeatsNoSecret has a client that put one into its query.
func TestALinkToTheNextPageRepeatsNoSecret(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, secret := r.mint("u1", "one")
	r.mint("u2", "two")
	if got := r.rest(
		"GET",
		"/v1/tokens?page_size=1",
		r.admin,
		"",
	); !strings.Contains(
		got.header.Get("Link"),
		`rel="next"`,
	) {
		t.Errorf("the first page has no link to the next: %d %v", got.code, got.header)
	}
	for _, query := range []string{"created_before=2999-01-01T00:00:00Z&page_size=1&label." + secret + "=x", "page_size=1&q=" + secret} {
		got := r.rest("GET", "/v1/tokens?"+query, r.admin, "")
		if all := got.body + got.header.Get("Link"); strings.Contains(all, secret) {
			t.Errorf("%d: the answer repeats the secret", got.code)
		}
	}
	piece := strings.Split(r.idp.jwt(t, "u1"), ".")[0] + ".ey" // what a JWT begins with, in the names of two tokens
	for _, name := range []string{piece + "a", piece + "b"} {
		_, err := r.svc.Mint(t.Context(), tokens.Operator(),
			tokens.MintRequest{User: "u1", Name: name, Scopes: []string{"reports.read"}})
		must(t, err)
	}
	got := r.rest("GET", "/v1/users/u1/tokens?page_size=1&q="+piece, r.admin, "")
	if link := got.header.Get("Link"); !strings.Contains(got.body, `"next_page_token":"`) || link != "" {
		t.Errorf("a piece of a JWT: %d %s, Link %q", got.code, got.body, link)
	}
}

// TestFieldsThatCannotBeChangedAreNamed by their names alone: what is none is not repeated.
func TestFieldsThatCannotBeChangedAreNamed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, secret := r.mint("u1", "one")
	path := "/v1/users/u1/tokens/" + id
	for mask, says := range map[string]string{
		"user":            "user cannot be changed; the fields that can be changed are",
		"colour":          "no field colour; the fields that can be changed are",
		"a <b>\u00e9":     "update_mask: the fields that can be changed are",
		secret:            "update_mask: the fields that can be changed are",
		"name,issue_time": "issue_time cannot be changed",
		" ":               "name the fields to change",
	} {
		_, err := patdv1.NewTokenServiceClient(r.conn).UpdateToken(as(r.admin), &patdv1.UpdateTokenRequest{
			User: "u1", TokenId: id, UpdateMask: mask, Token: &patdv1.Token{Name: "changed"},
		})
		if _, field := grpcReason(err); status.Code(err) != codes.InvalidArgument || field != "update_mask" ||
			!strings.Contains(err.Error(), says) || mask == secret && strings.Contains(err.Error(), mask) {
			t.Errorf("%q: %v, want %q", mask, err, says)
		}
	}
	if got := r.rest("POST", path+":narrow", r.admin, `{"unused_for":"0s"}`); got.code != http.StatusBadRequest ||
		!strings.Contains(got.body, "must be more than nothing; left out: never used") {
		t.Errorf("scopes that were not used for nothing: %d %s", got.code, got.body)
	}
	until := r.now().Add(100 * 24 * time.Hour).UTC().Truncate(time.Second).Format(time.RFC3339)
	if got := r.rest(
		"PATCH",
		path,
		r.admin,
		`{"update_mask":"renewable_until","token":{"renewable_until":"`+until+`"}}`,
	); got.code != http.StatusOK ||
		!strings.Contains(got.body, until[:19]) {
		t.Errorf("until when it can be renewed: %d %s, want %s", got.code, got.body, until)
	}
	if tok := r.token(t, "u1", id); tok.GetName() != "one" {
		t.Errorf("it is called %q", tok.GetName())
	}
}

// TestFormsOfOperatorsThatAreNoneAreRefused has actions that no page offers, and choices that none lists.
func TestFormsOfOperatorsThatAreNoneAreRefused(t *testing.T) {
	t.Parallel()
	r, p := webRig(t)
	adminForms(r)
	op := r.operator(p, "ann", "admin")
	before := len(r.audited(t, ""))
	for _, path := range []string{
		"/admin/users/bob", "/admin/services/crm", "/admin/webhooks/hook", "/admin/audiences/api", "/admin/features/reports.read",
	} {
		op.post(path, op.bound(url.Values{"action": {"burn"}, "count": {"1"}})).
			wants(http.StatusBadRequest, "the form cannot be read")
	}
	for _, more := range []url.Values{{"grace": {"soon"}}, {"grace": {"1h"}, "life": {"soon"}}, {"grace": {"-1h"}}} {
		more.Set("action", "rotate")
		op.post("/admin/services/crm", op.bound(more)).wants(http.StatusBadRequest, `role="alert"`)
	}
	op.post("/admin/services/new", op.bound(url.Values{"name": {"typed"}, "permissions": {"audit"}, "life": {"soon"}})).
		wants(http.StatusBadRequest, "must be a duration such as 12h or 90d", `value="typed"`)
	op.post("/admin/audiences/api", op.bound(url.Values{"action": {"save"}, "max_ttl": {"soon"}})).
		wants(http.StatusBadRequest, `role="alert"`, `value="soon"`)
	if n := len(r.audited(t, "")) - before; n != 0 {
		t.Errorf("%d changes were made: %+v", n, r.audited(t, "")[:n])
	}

	// A key that was used for another form makes nothing twice: the form comes back with a fresh one.
	form := op.bound(
		url.Values{"name": {"first"}, "permissions": {"audit"}, "life": {"90d"}, "key": {strings.Repeat("k", 32)}},
	)
	op.post("/admin/services/new", form).wants(http.StatusOK, "Store it now.")
	form.Set("name", "second")
	again := op.post("/admin/services/new", form).wants(http.StatusConflict, `value="second"`).form("")
	if again.Get("key") == form.Get("key") {
		t.Error("the form keeps the key that was used")
	}
	form.Set("key", again.Get("key"))
	op.post("/admin/services/new", form).wants(http.StatusOK, "Store it now.")
	hook := op.hookForm("one", "https://hooks.example.com/one")
	op.post("/admin/webhooks/new", hook).wants(http.StatusOK, "Store it now.")
	hook.Set("webhook_id", "two")
	next := op.post("/admin/webhooks/new", hook).wants(http.StatusConflict, `value="two"`).form("create")
	if next.Get("key") == hook.Get("key") {
		t.Error("the form of a webhook keeps the key that was used")
	}
}

// TestServicesAndAudiencesAreShownAsTheyAre has one that expired, one that was revoked for a reason, and an audience
// whose access tokens are JWTs.
func TestServicesAndAudiencesAreShownAsTheyAre(t *testing.T) {
	t.Parallel()
	r, p := webRig(t)
	hour := time.Hour
	_, err := r.svc.CreateService(t.Context(), tokens.Operator(),
		tokens.ServiceRequest{Name: "short", Permissions: []string{"audit"}, TTL: &hour})
	must(t, err)
	r.service("lost", "audit")
	_, err = r.svc.RevokeService(t.Context(), tokens.Operator(), "lost", "found in a repository")
	must(t, err)
	r.wait(2 * hour)
	op := r.operator(p, "ann", "admin")
	op.get("/admin/services/short").wants(http.StatusOK, "Expired")
	op.get("/admin/services/lost").wants(http.StatusOK, "found in a repository")
	form := op.get("/admin/audiences/new").wants(http.StatusOK).form("save")
	for name, text := range map[string]string{"id": "signed", "format": "jwt"} {
		form.Set(name, text)
	}
	op.post("/admin/audiences/new", form).wants(http.StatusOK)
	op.get("/admin/audiences/signed").wants(http.StatusOK, `value="jwt" selected`)
	if e, err := r.svc.Audience(
		t.Context(),
		tokens.Operator(),
		"signed",
	); err != nil ||
		e.AccessFormat != tokens.AccessJWT {
		t.Errorf("the audience is %+v, %v", e, err)
	}
}

// TestOperatorsSeeWhichPartIsIll as probes do, and no more than the log may hold.
func TestOperatorsSeeWhichPartIsIll(t *testing.T) {
	t.Parallel()
	const hidden = "pat_15ODq7pq8Hy_0Eoh211G4c8wtVWM00my5rsNSFlKgaWqQ4mb8gdEqno0QDLb0"
	r, p := webRigWith(t, func(c *server.Config) {
		c.Details = func() map[string]string { return map[string]string{"sign-in": "keys of the issuer are old"} }
		c.Parts = func(context.Context) map[string]string {
			return map[string]string{"store": "", "sign-in": "not shown twice", "webhooks": "cannot send: " + hidden}
		}
	})
	probe := r.rest("GET", "/readyz?verbose", "", "")
	page := r.operator(p, "ann", "audit").get("/admin/health").
		wants(http.StatusOK, "keys of the issuer are old", "webhooks", "withheld: it holds a secret", "store")
	if strings.Contains(page.text, "not shown twice") {
		t.Error("a part is there twice")
	}
	for what, text := range map[string]string{"the probe": probe.body, "the page": page.text} {
		if strings.Contains(text, hidden) || !strings.Contains(text, "withheld: it holds a secret") {
			t.Errorf("%s: %s", what, text)
		}
	}
	if got := r.rest("GET", "/readyz", "", ""); strings.Contains(got.body, "webhooks") {
		t.Errorf("without being asked the probe says more: %s", got.body)
	}
}

// TestSecurityEventsOfAnOddFormAreRefused and too many of one issuer are told when to come again.
func TestSecurityEventsOfAnOddFormAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, withEvents(t, map[string]string{"account-disabled": "suspend"}),
		func(c *server.Config) { c.ServiceChangeRate, c.ServiceChangeBurst = 0.01, 2 })
	const kind = "application/secevent+jwt"
	for name, c := range map[string]struct {
		body    string
		headers []string
		code    int
	}{
		"an idempotency key": {
			r.idp.set(t, risc+"account-disabled", "keyed", nil),
			[]string{"Content-Type", kind, "Idempotency-Key", strings.Repeat("k", 16)}, http.StatusBadRequest,
		},
		"no kind":   {"x", []string{"Accept", "*/*"}, http.StatusUnsupportedMediaType},
		"two kinds": {"x", []string{"Content-Type", kind, "Content-Type", kind}, http.StatusUnsupportedMediaType},
		"too large": {strings.Repeat("x", 128<<10), []string{"Content-Type", kind}, http.StatusRequestEntityTooLarge},
	} {
		if code, _ := r.push(c.body, c.headers...); code != c.code {
			t.Errorf("%s: %d, want %d", name, code, c.code)
		}
	}
	if got := r.state("keyed"); got != "-" {
		t.Errorf("an event that was refused did something: %s", got)
	}
	for i, want := range []int{http.StatusAccepted, http.StatusAccepted, http.StatusTooManyRequests} {
		user := string(rune('a' + i))
		got := r.rest(
			http.MethodPost,
			"/v1/security-events",
			"",
			r.idp.set(t, risc+"account-disabled", user, nil),
			"Content-Type",
			kind,
		)
		if got.code != want || (got.header.Get("Retry-After") != "") != (want == http.StatusTooManyRequests) {
			t.Errorf("event %d: %d %s %v", i, got.code, got.body, got.header)
		}
	}
}
