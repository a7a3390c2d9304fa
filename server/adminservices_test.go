package server_test

import (
	"html"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/tokens"
)

// TestAnOperatorMakesRotatesAndRevokesServicesInTheBrowser also sends each form twice.
func TestAnOperatorMakesRotatesAndRevokesServicesInTheBrowser(t *testing.T) {
	t.Parallel()
	r, p := webRig(t)
	b := r.operator(p, "ann", "admin")
	form := b.get("/admin/services/new").wants(http.StatusOK, "New service").form("")
	form.Set("name", "bad name")
	form.Set("life", "90d")
	form["permissions"] = nil
	again := b.post("/admin/services/new", form).
		wants(http.StatusBadRequest, `value="bad name"`, `id="name-error" role="alert"`, `id="permissions-error" role="alert"`)
	form = again.form("")
	form.Set("name", "crm")
	form.Set("life", "90d")
	form["permissions"] = []string{"introspect", "audit"}
	made := b.post("/admin/services/new", form).wants(http.StatusOK, "Store it now.")
	first := made.secret()
	if twice := b.post("/admin/services/new", form).secret(); first == "" || twice != first {
		t.Errorf("sent twice, the form shows %q and %q", first, twice)
	}
	if got := r.rest(http.MethodGet, "/v1/events", first, ""); got.code != http.StatusOK {
		t.Errorf("the new service: %d %s", got.code, got.body)
	}
	fresh := b.get("/admin/services/new").form("")
	fresh.Set("name", "crm")
	fresh["permissions"] = []string{"audit"}
	b.post("/admin/services/new", fresh).wants(http.StatusConflict, `id="name-error" role="alert"`, "has this name")

	page := b.get("/admin/services/crm").wants(http.StatusOK, "1 secret stops working", "introspect")
	rotate := page.form("rotate")
	rotate.Set("grace", "24h")
	second := b.post("/admin/services/crm", rotate).wants(http.StatusOK, "The secret before it is good until").secret()
	if twice := b.post("/admin/services/crm", rotate).secret(); second == "" || second == first || twice != second {
		t.Errorf("rotated to %q, and sent twice to %q", second, twice)
	}
	other := b.get("/admin/services/crm").wants(http.StatusOK, "2 secrets stop working").form("rotate")
	other.Set("grace", "0s")
	asks := b.post("/admin/services/crm", other).wants(http.StatusBadRequest, `name="force"`)
	other = asks.form("rotate")
	other.Set("grace", "0s")
	other.Set("force", "yes")
	third := b.post("/admin/services/crm", other).wants(http.StatusOK).secret()
	revoke := b.get("/admin/services/crm").form("revoke")
	for _, wrong := range []string{"", "2"} {
		revoke.Set("count", wrong)
		if again := b.post(
			"/admin/services/crm",
			revoke,
		); again.code < 400 ||
			!strings.Contains(again.text, `role="alert"`) {
			t.Errorf("with the number %q: %d", wrong, again.code)
		}
	}
	if got := r.rest(http.MethodGet, "/v1/events", third, ""); got.code != http.StatusOK {
		t.Errorf("a wrong number revokes: %d", got.code)
	}
	revoke.Set("count", "1")
	b.post("/admin/services/crm", revoke).wants(http.StatusOK, "It is revoked.", "operator:ann")
	if got := r.rest(http.MethodGet, "/v1/events", third, ""); got.code != http.StatusUnauthorized {
		t.Errorf("revoked: %d", got.code)
	}
	b.get("/admin/services/none").wants(http.StatusNotFound)
	for _, secret := range []string{first, second, third} {
		if strings.Contains(r.logs.String(), secret) {
			t.Error("a secret stands in the log")
		}
	}
}

// TestServicesAreListedByTheirEnd goes through the pages of the list.
func TestServicesAreListedByTheirEnd(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r, p := webRig(t)
	b := r.operator(p, "ann", "admin")
	for i := range 60 {
		ttl := time.Duration(60-i/2) * tokens.Day // two of each
		_, err := r.svc.CreateService(
			t.Context(),
			tokens.Operator(),
			tokens.ServiceRequest{Name: "s" + strconv.Itoa(i), Permissions: []string{"audit"}, TTL: &ttl},
		)
		must(t, err)
	}
	_, err := r.svc.RevokeService(t.Context(), tokens.Operator(), "s7", "")
	must(t, err)
	row, next := regexp.MustCompile(
		`role="rowheader"><a href="[^"]*">([^<]*)</a>`,
	), regexp.MustCompile(
		`rel="next" href="([^"]*)"`,
	)
	for show, want := range map[string]int{"": 60, "?show=all": 61} { // with the rig's own
		seen := map[string]bool{}
		last := 0
		for page, pages := b.get("/admin/services"+show), 1; ; pages++ {
			for _, m := range row.FindAllStringSubmatch(page.wants(http.StatusOK).text, -1) {
				if seen[m[1]] {
					t.Errorf("%s is listed twice", m[1])
				}
				seen[m[1]] = true
				days := 365
				if n, err := strconv.Atoi(strings.TrimPrefix(m[1], "s")); err == nil {
					days = 60 - n/2
				}
				if days < last {
					t.Errorf("%s comes too late", m[1])
				}
				last = days
			}
			m := next.FindStringSubmatch(page.text)
			if m == nil || pages > 5 {
				break
			}
			page = b.get(html.UnescapeString(m[1]))
		}
		if len(seen) != want || seen["s7"] != (show != "") {
			t.Errorf("%q lists %d services, want %d", show, len(seen), want)
		}
	}
	b.get("/admin/services?page=forged").wants(http.StatusOK, ">s59</a>")
}

// TestKeysSayWhatIsLeftUnderThem has a token, the rig's service, and rows.
func TestKeysSayWhatIsLeftUnderThem(t *testing.T) {
	t.Parallel()
	r, p := webRig(t)
	r.mint("bob", "one")
	page := r.operator(p, "ann", "admin").get("/admin/keys").wants(http.StatusOK, "<code>k1</code>", "Current")
	cells := regexp.MustCompile(`data-label="(Secrets|Rows)">([0-9]+)<`).FindAllStringSubmatch(page.text, -1)
	if len(cells) != 2 || cells[0][2] != "2" || cells[1][2] == "0" {
		t.Errorf("what is left: %v", cells)
	}
}
