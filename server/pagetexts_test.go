package server_test

import (
	"encoding/json"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/tokens"
)

// hostile is a text that would run if a page did not escape it.
const hostile = `"'><img src=x onerror=alert(1)><script>alert(2)</script>{{.}}`

// TestTextsOfOthersAreShownAndNotRun puts them wherever a page shows one.
func TestTextsOfOthersAreShownAndNotRun(t *testing.T) {
	t.Parallel()
	r := pageRig(t)
	r.features(hostile, "a'><b", "reports.read")
	catalog := r.service("catalog", "catalog")
	for path, fields := range map[string]map[string]any{
		"/v1/features":  {"name": "reports.read", "display_name": hostile, "description": hostile},
		"/v1/audiences": {"id": "api", "display_name": hostile},
	} {
		body, err := json.Marshal(fields)
		must(t, err)
		if a := r.rest(http.MethodPost, path, catalog, string(body)); a.code != http.StatusCreated {
			t.Fatal(a)
		}
	}
	b := r.signedIn(hostile, time.Hour, "")
	b.newToken(hostile, "a'><b", "reports.read").wants(http.StatusOK, "Store it now")
	id := regexp.MustCompile(`/tokens/([0-9A-Za-z]{11})"`).FindStringSubmatch(b.get("/").text)[1]
	_, err := r.svc.Revoke(t.Context(), tokens.Operator(), hostile, id, hostile)
	must(t, err)
	for _, path := range []string{"/", "/new", "/new?name=" + url.QueryEscape(hostile) + "&scopes=" + url.QueryEscape(hostile), "/activity", "/tokens/" + id,
		"/?q=" + url.QueryEscape(hostile), "/tokens/" + url.PathEscape(hostile), "/nothing" + url.PathEscape(hostile)} {
		page := b.get(path)
		if strings.Contains(page.text, "<img src=x") || strings.Contains(page.text, "<script>alert") ||
			strings.Contains(page.text, "a'><b") {
			t.Errorf("%s: it runs\n%s", path, page.text)
		}
	}
	b.get("/").wants(http.StatusOK, "&lt;img src=x onerror=alert(1)&gt;")
}

// TestNoSecretOfThePageIsLogged holds for codes, cookies and minted tokens.
func TestNoSecretOfThePageIsLogged(t *testing.T) {
	t.Parallel()
	r := pageRig(t)
	crm := r.service("crm", "tokens")
	path, _ := r.handoff(crm, "u1", `{}`)
	b := newBrowser(r)
	b.get(path)
	minted := b.newToken("x", "reports.read").secret()
	b.get(path) // used
	b.post("/signout", url.Values{})
	for what, text := range map[string]string{"the code": strings.TrimPrefix(path, "/handoff?code="), "the token": minted} {
		if text == "" || strings.Contains(r.logs.String(), text) {
			t.Errorf("%s stands in the log, or there is none", what)
		}
	}
	for _, cookie := range b.cookies {
		if strings.Contains(r.logs.String(), cookie) {
			t.Error("a cookie stands in the log")
		}
	}
	if len(
		r.logs.find(map[string]any{"method": "patd.v1.TokenService/CreateToken", "actor": "user:u1", "code": "OK"}),
	) != 1 {
		t.Error("the mint is not logged as every other")
	}
}

// hasMuch gives a user so many features and tokens.
func (r *rig) hasMuch(user string, features, count int) {
	r.t.Helper()
	names := make([]string, features)
	for i := range names {
		names[i] = "area" + strconv.Itoa(i%40) + ".feature" + strconv.Itoa(i)
	}
	r.features(user, names...)
	for i := range count {
		_, err := r.svc.Mint(r.t.Context(), tokens.Operator(), tokens.MintRequest{
			User: user, Name: "token number " + strconv.Itoa(i), Scopes: names[i%(features-9):][:10],
		})
		must(r.t, err)
	}
}

// BenchmarkPages measures the server's time for a page, with the way over loopback, of a usual user and of one who has
// as much as one may have. The aims are 30 ms for a usual list, and 300 ms for any page.
func BenchmarkPages(b *testing.B) {
	for _, who := range []struct {
		name             string
		features, tokens int
	}{{"usual", 20, 20}, {"most", 4096, 100}} {
		r := pageRig(b)
		r.hasMuch("u1", who.features, who.tokens)
		person := r.signedIn("u1", time.Hour, "")
		for _, path := range []string{"/", "/new", "/activity"} {
			b.Run(who.name+path, func(b *testing.B) {
				size := 0
				for b.Loop() {
					size = len(person.get(path).wants(http.StatusOK).text)
				}
				b.ReportMetric(float64(size), "bytes")
			})
		}
	}
}

// TestPagesStaySmall has a user with as much as one may have.
func TestPagesStaySmall(t *testing.T) {
	t.Parallel()
	longtest.Slow(t)
	r := pageRig(t)
	r.hasMuch("u1", 4096, 100)
	b := r.signedIn("u1", time.Hour, "")
	if page := b.get("/").wants(http.StatusOK); len(page.text) > 20<<10 {
		t.Errorf("/ has %d bytes, more than 20 KiB", len(page.text))
	}
	if page := b.get("/new").wants(http.StatusOK); strings.Count(page.text, `name="scopes"`) != 4096 {
		t.Errorf("/new has %d features of 4096", strings.Count(page.text, `name="scopes"`))
	}
	for page, pages := b.get("/"), 1; ; pages++ {
		m := regexp.MustCompile(`rel="next" href="([^"]*)"`).FindStringSubmatch(page.text)
		if m == nil {
			if pages != 5 {
				t.Errorf("100 tokens have %d pages", pages)
			}
			break
		}
		page = b.get(html.UnescapeString(m[1])).wants(http.StatusOK)
	}
	b.get("/?q=NUMBER+99&state=active").wants(http.StatusOK, "token number 99")
	b.get("/?q=nothing").wants(http.StatusOK, "Nothing matches.")
	b.get("/?state=revoked").wants(http.StatusOK, "Nothing matches.")
}
