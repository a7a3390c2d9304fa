package server_test

import (
	"net/http"
	"strings"
	"testing"
)

func TestMistypedQueryParametersAreRefused(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
	r := newRig(t)
	tried := 0
	for _, b := range bindings(t, r) {
		if b.body == "" {
			continue
		}
		tried++
		got := r.rest(b.verb, b.path+"?ttl=60s", r.admin, "{}")
		if reason, field := got.reason(); got.code != http.StatusBadRequest || reason != "QUERY_UNKNOWN" ||
			field != "ttl" {
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
	t.Parallel()
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
	t.Parallel()
	r := newRig(t)
	for _, c := range [][3]string{{"POST", "/v1/users/u/tokens", "{"}, {"POST", "/v1/introspect", `{"x":1}`}, {"GET", "/v1/events?usr=1", ""}} {
		if got := r.rest(
			c[0],
			c[1],
			"",
			c[2],
		); got.code != http.StatusUnauthorized ||
			got.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%v: %d %s", c, got.code, got.body)
		}
	}
}

func TestAnswersAreOneCompactLine(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	got := r.rest("PUT", "/v1/users/u/features", r.admin, `{"features":["a","b"]}`)
	if want := `{"features":[{"name":"a",`; !strings.HasPrefix(got.body, want) || strings.Contains(got.body, ", ") ||
		!strings.HasSuffix(got.body, "}\n") {
		t.Errorf("%q, want %q", got.body, want)
	}
}

// TestWrongFiltersSayWhich and what there is: a mistyped filter of the audit log would look like a clean record.
func TestWrongFiltersSayWhich(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, c := range []struct{ path, reason, field, says string }{
		{"/v1/users/u/tokens?stat=ACTIVE", "QUERY_UNKNOWN", "stat", "no query parameter stat; the query parameters here are audience, page_size, page_token, q, state"},
		{"/v1/users/u/tokens?state=LIVE", "QUERY_INVALID", "state", "state must be one of ACTIVE, EXPIRED, REVOKED, in capitals"},
		{"/v1/users?state=EXPIRED", "QUERY_INVALID", "state", "state must be one of ACTIVE, SUSPENDED, in capitals"},
		{"/v1/users?state=ACTIVE&state=ACTIVE", "QUERY_INVALID", "state", "state is given more than once"},
		{"/v1/users?page_size=many", "QUERY_INVALID", "page_size", "page_size must be a whole number"},
		{"/v1/features?filter=consent", "FILTER_INVALID", "filter", "conditions such as"},
		{"/v1/events?action=token.creat", "FILTER_INVALID", "action", "there are token.create, "},
		{"/v1/events?action=mint", "FILTER_INVALID", "action", "user.suspend"},
		{"/v1/events?actor=alice", "FILTER_INVALID", "actor", "service:NAME, user:ID"},
		{"/v1/events?token_id=laptop", "TOKEN_ID_INVALID", "token_id", "11 base62"},
	} {
		got := r.rest("GET", c.path, r.admin, "")
		if reason, field := got.reason(); got.code != 400 || reason != c.reason || field != c.field ||
			!strings.Contains(got.body, c.says) {
			t.Errorf("%s: %d %s; want %s, %s, %s", c.path, got.code, got.body, c.reason, c.field, c.says)
		}
	}
	for _, path := range []string{"/v1/events?action=token.create&actor=operator", "/v1/events?actor=service:admin", "/v1/events?actor=user:u"} {
		if got := r.rest("GET", path, r.admin, ""); got.code != 200 {
			t.Errorf("%s: %d %s", path, got.code, got.body)
		}
	}
}
