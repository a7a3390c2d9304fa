package server_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/server"
	"patd/tokens"
)

// TestDirectAnswersAreThoseOfTheGateway sends each request twice: as it is, and with a query that means nothing and
// keeps it off the direct way.
func TestDirectAnswersAreThoseOfTheGateway(t *testing.T) {
	t.Parallel()
	longtest.Slow(t)
	r := newRig(t)
	ctx, op := context.Background(), tokens.Operator()
	r.features("u1", "reports.read", "reports.write")
	mint := func(m tokens.MintRequest) (id, secret string) {
		m.User = "u1"
		made, err := r.svc.Mint(ctx, op, m)
		must(t, err)
		return made.Token.ID.String(), made.Secret.Reveal()
	}
	both := []string{"reports.read", "reports.write"}
	_, full := mint(tokens.MintRequest{Name: "full", Scopes: both, Labels: map[string]string{"team": "a", "env": "b"}})
	_, odd := mint(tokens.MintRequest{Name: `größer "x" \ <y>`, Scopes: both})
	_, bound := mint(tokens.MintRequest{Name: "bound", Scopes: both, CIDRs: []string{"192.0.2.0/24"}})
	revokedID, revoked := mint(tokens.MintRequest{Name: "revoked", Scopes: both})
	_, err := r.svc.Revoke(ctx, op, "u1", revokedID, "")
	must(t, err)
	r.features("u1", "reports.read") // the other is suspended from now on

	var bodies []string
	for _, secret := range []string{full, odd, bound, revoked, full[:len(full)-1] + "!", "garbage", ""} {
		for _, rest := range []string{
			``, `,"required_scopes":["reports.write","a","reports.read"]`, `,"required_scopes":[]`, `,"audience":"api"`, `,"client_ip":"192.0.2.9"`,
			`,"client_ip":"x"`, `,"client_ip":""`, `,"client_ip":null`, `,"unknown":1`, `,"requiredScopes":["a"]`, `,"token":"x"`, `,"audience":"gr\u00f6\u00dfer"`, `,"audience":5`,
		} {
			one := `{"token":"` + secret + `"` + rest + `}`
			bodies = append(bodies, one, `{"requests":[`+one+`,{"token":"`+full+`"}]}`)
		}
	}
	bodies = append(
		bodies,
		``,
		` `,
		`{}`,
		`[]`,
		`{`,
		`null`,
		`{"requests":[]}`,
		`{"requests":[{}]}`,
		`{"requests":{}}`,
		`{"token":"a"} x`,
		" {\n\t\"token\" : \"a\" }\r\n ",
		`{"requests":[`+strings.Repeat(
			`{"token":"x"},`,
			1000,
		)+`{"token":"x"}]}`,
		`{"token":"`+strings.Repeat("x", 1<<20)+`"}`,
		`{"token":"`+strings.Repeat("x", 1<<20-100)+`"}`,
	)
	_, pat := r.mint("u2", "a")
	credentials := []string{
		r.admin,
		r.service("gw", "introspect"),
		r.service("tok", "tokens"),
		pat,
		"garbage",
		"",
		r.idp.jwt(t, "u1"),
	}
	for i, body := range bodies {
		for j, credential := range credentials {
			if j > 0 && i%7 != 0 {
				continue
			}
			for _, path := range []string{"/v1/introspect", "/v1/introspect:batch"} {
				got := r.rest("POST", path, credential, body, "X-Request-Id", "same")
				want := r.rest("POST", path+"?", credential, body, "X-Request-Id", "same")
				sameAnswer(t, fmt.Sprintf("%s %.200s by %d", path, body, j), got, want)
			}
		}
	}
	for _, headers := range [][]string{
		{"Authorization", "Bearer x"}, {"Authorization", "Basic x"}, {"Authorization", "Bearer \xff"}, {"Accept", "text/plain"}, {"Content-Type", "text/plain"}, {"Grpc-Timeout", "1H"}, {"Grpc-Timeout", "x"},
		{"Idempotency-Key", "\xff"}, {"X-Forwarded-For", "192.0.2.1"}, {"Te", "trailers"}, {"X-Http-Method-Override", "GET"},
	} {
		headers = append(headers, "X-Request-Id", "same")
		got := r.rest("POST", "/v1/introspect", r.admin, `{"token":"`+full+`"}`, headers...)
		want := r.rest("POST", "/v1/introspect?", r.admin, `{"token":"`+full+`"}`, headers...)
		sameAnswer(t, fmt.Sprint(headers), got, want)
	}
	for name, hook := range map[string]func(string) error{
		"an outage": func(op string) error { return tokens.StoreUnavailable(op, errors.New("injected")) },
		"an outage afterwards": func(op string) error {
			if op == "Lookup" {
				return tokens.StoreUnavailable(op, errors.New("injected"))
			}
			return nil
		},
		"a panic": func(string) error { panic("x") },
		"a fault": func(string) error { return errors.New("no error of the domain") },
	} {
		r.store.set(hook)
		for path, body := range map[string]string{"/v1/introspect": `{"token":"` + full + `"}`, "/v1/introspect:batch": `{"requests":[{"token":"` + full + `"}]}`} {
			sameAnswer(
				t,
				name,
				r.rest("POST", path, r.admin, body, "X-Request-Id", "same"),
				r.rest("POST", path+"?", r.admin, body, "X-Request-Id", "same"),
			)
		}
	}
	r.store.set(nil)
}

func sameAnswer(t *testing.T, what string, got, want answerOf) {
	t.Helper()
	for _, a := range []answerOf{got, want} {
		a.header.Del("Date")
	}
	// The clock of the rig stands still, so that expires_in does too.
	if got.code != want.code || got.body != want.body {
		t.Errorf("%s: %d %s, want %d %s", what, got.code, got.body, want.code, want.body)
	}
	if !maps.EqualFunc(got.header, want.header, slices.Equal) {
		t.Errorf("%s: %v, want %v", what, got.header, want.header)
	}
}

// TestDirectCallsAreLimitedLoggedAndCounted as all are.
func TestDirectCallsAreLimitedLoggedAndCounted(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.FailureRate, c.FailureBurst = 1, 3 })
	_, secret := r.mint("u1", "a")
	body := `{"token":"` + secret + `"}`
	if got := r.rest(
		"POST",
		"/v1/introspect",
		r.admin,
		body,
		"X-Request-Id",
		"direct-1",
	); got.code != http.StatusOK || got.header.Get("X-Request-Id") != "direct-1" ||
		got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v", got.code, got.header)
	}
	lines := r.logs.find(map[string]any{"request_id": "direct-1"})
	if len(lines) != 1 || lines[0]["method"] != "patd.v1.IntrospectionService/Introspect" || lines[0]["code"] != "OK" ||
		lines[0]["actor"] != "service:admin" ||
		lines[0]["peer"] != "127.0.0.1" ||
		lines[0]["level"] != "DEBUG" {
		t.Errorf("logged %v", lines)
	}
	wantMetric(t, r, `patd_calls_total{code="OK",method="patd.v1.IntrospectionService/Introspect"} 1`)
	for range 3 {
		if got := r.rest(
			"POST",
			"/v1/introspect",
			"bad",
			body,
		); got.code != http.StatusUnauthorized ||
			got.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%d %v", got.code, got.header)
		}
	}
	if got := r.rest(
		"POST",
		"/v1/introspect",
		"bad",
		body,
	); got.code != http.StatusTooManyRequests ||
		got.header.Get("Retry-After") == "" {
		t.Errorf("past the limit: %d %v %s", got.code, got.header, got.body)
	}
	if got := r.rest("POST", "/v1/introspect", r.admin, body); got.code != http.StatusOK {
		t.Errorf("a good credential past the limit: %d %s", got.code, got.body)
	}
}

// TestDirectCallsHaveADeadline, which comes into being when the store is asked.
func TestDirectCallsHaveADeadline(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.RequestTimeout = 50 * time.Millisecond })
	_, secret := r.mint("u1", "a")
	defer r.store.parking()()
	got := r.rest("POST", "/v1/introspect", r.admin, `{"token":"`+secret+`"}`)
	if reason, _ := got.reason(); got.code != http.StatusGatewayTimeout || reason != "DEADLINE_EXCEEDED" {
		t.Errorf("%d %s", got.code, got.body)
	}
}
