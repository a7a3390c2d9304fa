package replicatest

import (
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	patdv1 "patd/gen/patd/v1"
)

const sessionCookie = "__Host-patd-session"

// visit sends a request for a page to a replica, as a browser with a session does; no form: a GET.
func (r *replica) visit(t *testing.T, path, session string, form url.Values) (code int, text, set string) {
	t.Helper()
	method, body := http.MethodGet, io.Reader(nil)
	if form != nil {
		method, body = http.MethodPost, strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(t.Context(), method, r.now().url+path, body)
	must(t, err)
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if session != "" {
		req.AddCookie(&http.Cookie{Name: sessionCookie, Value: session})
	}
	client := http.Client{
		Timeout:       answerWithin,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	must(t, err)
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	must(t, err)
	for _, c := range resp.Cookies() {
		set = c.Value
	}
	return resp.StatusCode, string(all), set
}

// handoff is the path of a hand-off that one replica made.
func (r *replica) handoff(t *testing.T, user string) string {
	t.Helper()
	answer, err := patdv1.NewPageServiceClient(r.now().conn).
		CreatePageSession(t.Context(), &patdv1.CreatePageSessionRequest{
			User: user, Ttl: durationpb.New(15 * time.Minute),
		})
	must(t, err)
	at, err := url.Parse(answer.GetUrl())
	must(t, err)
	return at.RequestURI()
}

// aBrowserMeetsAnyReplica is a balancer without stickiness: each click goes to the next replica.
func aBrowserMeetsAnyReplica(t *testing.T, c *cluster) {
	const user = "browser"
	must(t, c.replicas[0].now().hold(t.Context(), user, "a"))
	for range 3 {
		path := c.replicas[0].handoff(t, user)
		var (
			racing sync.WaitGroup
			won    atomic.Int32
			mine   atomic.Value
		)
		for n := range 9 {
			racing.Go(func() {
				code, _, session := c.replicas[n%3].visit(t, path, "", nil)
				if code == http.StatusSeeOther {
					won.Add(1)
					mine.Store(session)
				} else if code != http.StatusUnauthorized {
					t.Errorf("a loser of the race for a code gets %d", code)
				}
			})
		}
		racing.Wait()
		if won.Load() != 1 {
			t.Fatalf("one code signed %d browsers in", won.Load())
		}
		session, _ := mine.Load().(string)
		_, text, _ := c.replicas[1].visit(t, "/new", session, nil)
		form := url.Values{"name": {"made in the browser " + session[:6]}, "expiration": {"30d"}, "scopes": {"a"}}
		for _, m := range regexp.MustCompile(`type="hidden" name="([^"]*)" value="([^"]*)"`).FindAllStringSubmatch(text, -1) {
			form.Set(m[1], html.UnescapeString(m[2]))
		}
		secret := regexp.MustCompile(`data-testid="secret"[^>]*>([^<]*)<`)
		seen := map[string]bool{}
		for n := range 6 { // a reload may meet another replica
			code, text, _ := c.replicas[n%3].visit(t, "/new", session, form)
			m := secret.FindStringSubmatch(text)
			if code != http.StatusOK || m == nil {
				t.Fatalf("the form is answered with %d\n%s", code, text)
			}
			seen[m[1]] = true
		}
		if len(seen) != 1 {
			t.Errorf("a form that was sent six times made %d tokens", len(seen))
		}
		if code, _, _ := c.replicas[2].visit(t, "/signout", session, url.Values{}); code != http.StatusOK {
			t.Errorf("signing out is answered with %d", code)
		}
		for _, r := range c.replicas {
			if code, text, _ := r.visit(
				t,
				"/",
				session,
				nil,
			); code != http.StatusUnauthorized ||
				strings.Contains(text, user) {
				t.Errorf("%s: signed out elsewhere, and %d", r.name, code)
			}
		}
	}
}
