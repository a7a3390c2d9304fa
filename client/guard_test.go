package client_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"patd/client"
	"patd/client/clienttest"
	"patd/client/routes"
)

// get makes a request with some Authorization headers.
func get(h http.Handler, authorization ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "192.0.2.7:1234"
	r.Header.Set("X-Forwarded-For", "198.51.100.1")
	r.Header.Set("Forwarded", "for=198.51.100.1")
	for _, a := range authorization {
		r.Header.Add("Authorization", a)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestGuardAnswersAsRFC6750Says(t *testing.T) {
	fake := clienttest.NewFake()
	fake.Allow("good", client.Token{ID: "id", User: "u", Scopes: []string{"read"}})
	fake.Refuse("suspended", client.UserSuspended)
	reached := 0
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached++
		got, ok := client.FromContext(r.Context())
		if !ok || !got.Allowed() || got.Token.User != "u" {
			t.Errorf("the handler learns %+v, %v", got, ok)
		}
	})
	plain := client.NewGuard(fake, client.HTTPConfig{})
	named := client.NewGuard(fake, client.HTTPConfig{Realm: "re\"ports\r\nX: y"})
	for name, c := range map[string]struct {
		handler       http.Handler
		authorization []string
		code          int
		challenge     string
	}{
		"good":              {plain.Require("read")(handler), []string{"Bearer good"}, 200, ""},
		"any":               {plain.Middleware(handler), []string{"bEARER   good"}, 200, ""},
		"nothing":           {plain.Require("read")(handler), nil, 401, `Bearer`},
		"nothing, realm":    {named.Require("read")(handler), nil, 401, `Bearer realm="reportsX: y"`},
		"other scheme":      {plain.Middleware(handler), []string{"Basic good"}, 401, `Bearer`},
		"no scheme":         {plain.Middleware(handler), []string{"good"}, 401, `Bearer`},
		"no token":          {plain.Middleware(handler), []string{"Bearer"}, 401, `Bearer error="invalid_token"`},
		"empty":             {plain.Middleware(handler), []string{""}, 401, `Bearer`},
		"two":               {plain.Middleware(handler), []string{"Bearer good", "Bearer good"}, 400, `Bearer error="invalid_request"`},
		"two, one other":    {plain.Middleware(handler), []string{"Bearer good", "Basic x"}, 400, `Bearer error="invalid_request"`},
		"unknown":           {named.Middleware(handler), []string{"Bearer bad"}, 401, `Bearer realm="reportsX: y", error="invalid_token"`},
		"space behind":      {plain.Middleware(handler), []string{"Bearer good "}, 401, `Bearer error="invalid_token"`},
		"suspended":         {plain.Require("read")(handler), []string{"Bearer suspended"}, 401, `Bearer error="invalid_token"`},
		"not all scopes":    {plain.Require("read", "write")(handler), []string{"Bearer good"}, 403, `Bearer error="insufficient_scope", scope="read write"`},
		"scopes of unknown": {plain.Require("write")(handler), []string{"Bearer bad"}, 401, `Bearer error="invalid_token"`},
	} {
		before := reached
		w := get(c.handler, c.authorization...)
		if w.Code != c.code || undescribed(w.Header().Get("WWW-Authenticate")) != c.challenge {
			t.Errorf("%s: %d %q, want %d %q", name, w.Code, w.Header().Get("WWW-Authenticate"), c.code, c.challenge)
		}
		if got := reached > before; got != (c.code == 200) {
			t.Errorf("%s: handler reached: %v", name, got)
		}
		if c.code != 200 && w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: the refusal may be stored", name)
		}
	}
	fake.Fail(errors.New("secret cause"))
	w := get(plain.Middleware(handler), "Bearer good")
	if w.Code != 503 || w.Header().Get("Retry-After") == "" || w.Header().Get("WWW-Authenticate") != "" ||
		strings.Contains(w.Body.String(), "secret") {
		t.Errorf("in an outage: %d %v %s", w.Code, w.Header(), w.Body)
	}
}

// TestGuardOpensTheRoutesOfATable guards a whole program.
func TestGuardOpensTheRoutesOfATable(t *testing.T) {
	fake := clienttest.NewFake()
	fake.Allow("reader", client.Token{ID: "id", User: "alice", Scopes: []string{"reports.read"}})
	table, err := routes.New([]routes.Route{
		{Method: "GET", Path: "/reports/{id}", Scopes: []string{"reports.read"}},
		{Method: "PUT", Path: "/reports/{id}", Scopes: []string{"reports.read", "reports.write"}},
		{Method: "GET", Path: "/reports/secret"},
	})
	if err != nil {
		t.Fatal(err)
	}
	reached := 0
	h := client.NewGuard(fake, client.HTTPConfig{}).
		Routes(table)(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if out, ok := client.FromContext(r.Context()); !ok || out.Token.User != "alice" {
				t.Errorf("the handler is told %v, %v", out, ok)
			}
			reached++
		}),
	)
	for _, c := range []struct {
		method, path, token string
		code                int
		reason              string
	}{
		{"GET", "/reports/7?x=/reports/secret", "reader", 200, ""},
		{"PUT", "/reports/7", "reader", 403, "SCOPE_INSUFFICIENT"},
		{"GET", "/reports/7", "", 401, "CREDENTIAL_REQUIRED"},
		{"GET", "/reports/7", "unknown", 401, "CREDENTIAL_INVALID"},
		{"GET", "/reports/secret", "reader", 403, "ROUTE_CLOSED"},
		{"GET", "/reports/%73ecret", "reader", 403, "ROUTE_CLOSED"},
		{"GET", "/reports/a%2fb", "reader", 403, "ROUTE_CLOSED"},
		{"DELETE", "/reports/7", "reader", 403, "ROUTE_CLOSED"},
		{"GET", "/other", "", 403, "ROUTE_CLOSED"},
	} {
		before := reached
		r := httptest.NewRequest(c.method, c.path, nil)
		if c.token != "" {
			r.Header.Set("Authorization", "Bearer "+c.token)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.reason) || (reached > before) != (c.code == 200) {
			t.Errorf("%s %s with %q: %d %s, want %d %s", c.method, c.path, c.token, w.Code, w.Body, c.code, c.reason)
		}
	}
}

// undescribed returns a challenge without its description, which TestGuardsSayWhy compares.
func undescribed(challenge string) string {
	return regexp.MustCompile(`,? error_description="[^"]*"`).ReplaceAllString(challenge, "")
}

func TestGuardBelievesNoHeader(t *testing.T) {
	fake := clienttest.NewFake()
	open := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	get(client.NewGuard(fake, client.HTTPConfig{Audience: "reports"}).Require("a", "b")(open), "Bearer x")
	get(client.NewGuard(fake, client.HTTPConfig{ClientIP: func(r *http.Request) netip.Addr {
		return netip.MustParseAddr(r.Header.Get("X-Forwarded-For"))
	}}).Middleware(open), "Bearer x")
	want := []client.Call{
		{Audience: "reports", Scopes: []string{"a", "b"}, ClientIP: netip.MustParseAddr("192.0.2.7")},
		{ClientIP: netip.MustParseAddr("198.51.100.1")},
	}
	if diff := cmp.Diff(want, fake.Calls(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}
