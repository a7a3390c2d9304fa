package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"patd/tokens"
)

// TestDurationsOverRESTAreThoseOfTheCommandLine sends each duration in three forms, to every field that takes one.
func TestDurationsOverRESTAreThoseOfTheCommandLine(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, _ := r.mint("u1", "rotated")
	for i, given := range []string{"36h", "1d12h", "129600s", "129600.000s", "2160m"} {
		audience := fmt.Sprintf("api-%d", i)
		for _, c := range []struct{ method, path, body, says string }{
			{"POST", "/v1/users/u1/tokens", fmt.Sprintf(`{"name":"n%d","scopes":["reports.read"],"ttl":%q}`, i, given),
				`"expire_time":"` + r.now().Add(36*time.Hour).UTC().Truncate(time.Microsecond).Format("2006-01-02T15:04:05")},
			{"POST", "/v1/users/u1/tokens/" + id + ":rotate", fmt.Sprintf(`{"grace":%q, "ttl" : %q, "force": true}`, given, "90d"),
				`"previous_secret_expire_time":"` + r.now().Add(36*time.Hour).UTC().Format("2006-01-02T15:04:05")},
			{"POST", "/v1/audiences", fmt.Sprintf(`{"id":%q,"max_ttl":%q,"default_ttl":"1h"}`, audience, given), `"max_ttl":"129600s"`},
			{"PUT", "/v1/audiences/" + audience, fmt.Sprintf(`{"defaultTtl":%q}`, given), `"default_ttl":"129600s"`},
			{"POST", "/v1/audiences/" + audience + ":check", fmt.Sprintf(`{"max_ttl":%q}`, given), `"exceeding_count":"0"`},
			{"POST", "/v1/services", fmt.Sprintf(`{"name":"s%d","permissions":["audit"],"ttl":%q}`, i, given),
				`"expire_time":"` + r.now().Add(36*time.Hour).UTC().Format("2006-01-02T15:04:05")},
		} {
			if got := r.rest(
				c.method,
				c.path,
				r.admin,
				c.body,
			); got.code/100 != 2 ||
				!strings.Contains(got.body, c.says) {
				t.Errorf("%s %s %s: %d %s, want %s", c.method, c.path, c.body, got.code, got.body, c.says)
			}
		}
	}
	for _, given := range []string{`"90"`, `"1w"`, `"d"`, `"-1d"`, `"1d-1h"`, `"180 d"`, `180`, `{"seconds":5}`, `["1d"]`, `""`, `"106752d"`} {
		got := r.rest(
			"POST",
			"/v1/users/u1/tokens",
			r.admin,
			`{"name":"bad","scopes":["reports.read"],"ttl":`+given+`}`,
		)
		if reason, field := got.reason(); got.code != http.StatusBadRequest || reason != "JSON_INVALID" ||
			field != "ttl" ||
			!strings.Contains(got.body, `90d`) {
			t.Errorf("%s: %d %s", given, got.code, got.body)
		}
	}
	// A duration beside another fault does not hide it, and a text that only looks like one stays as it is.
	got := r.rest(
		"POST",
		"/v1/users/u1/tokens",
		r.admin,
		`{"name":"90d","scopes":["reports.read"],"ttl":"90d","labels":{"ttl":"90d"},"nope":1}`,
	)
	if reason, field := got.reason(); reason != "FIELD_UNKNOWN" || field != "nope" {
		t.Errorf("%d %s", got.code, got.body)
	}
	got = r.rest(
		"POST",
		"/v1/users/u1/tokens",
		r.admin,
		`{"name":"90d","scopes":["reports.read"],"ttl":"90d","labels":{"ttl":"90d"}}`,
	)
	if got.code != http.StatusOK || !strings.Contains(got.body, `"name":"90d"`) ||
		!strings.Contains(got.body, `"labels":{"ttl":"90d"}`) {
		t.Errorf("%d %s", got.code, got.body)
	}
}

// TestExpiresInIsWholeSeconds in every answer that says it, whatever the clock shows.
func TestExpiresInIsWholeSeconds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.features("u1", "a")
	m, err := r.svc.Mint(
		t.Context(),
		tokens.Operator(),
		tokens.MintRequest{User: "u1", Name: "n", Scopes: []string{"a"}, Audiences: []string{"api"}},
	)
	must(t, err)
	if got := r.rest("POST", "/v1/audiences", r.admin, `{"id":"api","max_ttl":"1h"}`); got.code != http.StatusCreated {
		t.Fatal(got.body)
	}
	r.wait(1234567 * time.Microsecond)
	one := `{"token":"` + m.Secret.Reveal() + `"}`
	for path, body := range map[string]string{
		"/v1/introspect": one, "/v1/introspect?": one, "/v1/introspect:batch": `{"requests":[` + one + `]}`,
		"/v1/introspect:batch?": `{"requests":[` + one + `]}`, "/v1/audiences/api:check": `{}`,
	} {
		got := r.rest("POST", path, r.admin, body)
		var said any
		must(t, json.Unmarshal([]byte(got.body), &said))
		if want := fmt.Sprintf(
			`"expires_in":"%ds"`,
			int((180*tokens.Day-2*time.Second)/time.Second),
		); !strings.Contains(
			got.body,
			want,
		) {
			t.Errorf("%s: %s, want %s", path, got.body, want)
		}
	}
}
