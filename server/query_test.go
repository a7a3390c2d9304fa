package server_test

import (
	"net/http"
	"strings"
	"testing"
)

func TestMistypedQueryParametersAreRefused(t *testing.T) {
	r := newRig(t)
	for path, want := range map[string]string{
		"/v1/events?usr=alice": "usr", "/v1/users/u/tokens?pagesize=1": "pagesize", "/v1/users/u/tokens?user=v": "user",
		"/v1/users?state=active": "state", "/v1/users/u/tokens?page_size=x": "page_size",
	} {
		got := r.rest("GET", path, r.admin, "")
		if _, field := got.reason(); got.code != http.StatusBadRequest || field != want {
			t.Errorf("%s: %d, field %q, %s", path, got.code, field, got.body)
		}
	}
}

// TestQueryBesideABodyIsRefused sends one to every method that takes a body, which is the whole request.
func TestQueryBesideABodyIsRefused(t *testing.T) {
	r := newRig(t)
	tried := 0
	for _, b := range bindings(t, r) {
		if b.body == "" {
			continue
		}
		tried++
		got := r.rest(b.verb, b.path+"?ttl=60s", r.admin, "{}")
		if reason, field := got.reason(); got.code != http.StatusBadRequest || reason != "QUERY_UNKNOWN" || field != "ttl" {
			t.Errorf("%s %s?ttl=60s: %d %s", b.verb, b.path, got.code, got.body)
		}
	}
	if tried < 10 {
		t.Errorf("only %d methods were tried", tried)
	}
	if got := r.rest("POST", "/v1/introspect?token=x", "", "{}"); got.code != http.StatusUnauthorized {
		t.Errorf("by nobody: %d %s", got.code, got.body)
	}
}

func TestUnreadableBodiesSayWhatIsExpected(t *testing.T) {
	r := newRig(t)
	for body, want := range map[string]string{
		`{"name":"n","ttl":"90y"}`:              "7776000s",
		`{"name":"n","ttl":7776000}`:            "7776000s",
		`{"name":"n","expire_time":"tomorrow"}`: "RFC 3339",
		`{"name":"n","scopes":["a"`:             "ends too early",
	} {
		got := r.rest("POST", "/v1/users/u/tokens", r.admin, body)
		if got.code != http.StatusBadRequest || !strings.Contains(got.body, want) {
			t.Errorf("%s: %d %s", body, got.code, got.body)
		}
	}
}

func TestNobodyIsToldWhatIsWrongWithARequest(t *testing.T) {
	r := newRig(t)
	for _, c := range [][3]string{{"POST", "/v1/users/u/tokens", "{"}, {"POST", "/v1/introspect", `{"x":1}`}, {"GET", "/v1/events?usr=1", ""}} {
		if got := r.rest(c[0], c[1], "", c[2]); got.code != http.StatusUnauthorized || got.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%v: %d %s", c, got.code, got.body)
		}
	}
}

func TestAnswersAreOneCompactLine(t *testing.T) {
	r := newRig(t)
	got := r.rest("PUT", "/v1/users/u/features", r.admin, `{"features":["a","b"]}`)
	if want := `{"features":[{"name":"a",`; !strings.HasPrefix(got.body, want) || strings.Contains(got.body, ", ") || !strings.HasSuffix(got.body, "}\n") {
		t.Errorf("%q, want %q", got.body, want)
	}
}
