package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/tokens"
)

// TestACallShowsStateAsOfTheInstantItDecidedAt moves the clock by an hour with each reading of it. A token that was
// active when a call changed or selected it is active in the response, wherever between two readings it expires.
func TestACallShowsStateAsOfTheInstantItDecidedAt(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r := newRig(t)
	const readings = 8 // of one call, at most; its decision is after one of them
	ends := func(i int) time.Duration {
		if i == readings-1 {
			return 300 * 24 * time.Hour // however often the clock is read
		}
		return 30*time.Minute + time.Duration(i)*time.Hour
	}
	type shown struct {
		ID    string `json:"token_id"`
		State string
		Until string `json:"previous_secret_expire_time"`
	}
	// call makes a call while the clock moves, and returns what it shows.
	call := func(t *testing.T, method, path, secret, body string) (code int, list []shown) {
		t.Helper()
		var got answerOf
		r.stepping(time.Hour, func() { got = r.rest(method, path, secret, body) })
		var v struct {
			Token, Service shown
			Tokens         []shown
		}
		must(t, json.Unmarshal([]byte(got.body), &v))
		for _, s := range append(v.Tokens, v.Token, v.Service) {
			if s.ID != "" {
				list = append(list, s)
			}
		}
		return got.code, list
	}
	n := 0
	mint := func(t *testing.T, life time.Duration) (path, secret string) {
		n++
		user := "u" + strconv.Itoa(n)
		tok, secret := r.pat(
			tokens.MintRequest{User: user, Name: "n", Lifetime: tokens.Lifetime{TTL: &life}, SelfRotate: true},
			"a",
			"b",
		)
		return fmt.Sprintf("/v1/users/%s/tokens/%s", user, tok.ID), secret
	}
	admin := func(method, after, body string) func(*testing.T, string, string) (int, []shown) {
		return func(t *testing.T, path, _ string) (int, []shown) { return call(t, method, path+after, r.admin, body) }
	}
	quiet := func(t *testing.T, path, body string) {
		t.Helper()
		if got := r.rest("POST", path, r.admin, body); got.code != http.StatusOK {
			t.Fatalf("%s: %d %s", path, got.code, got.body)
		}
	}
	for name, c := range map[string]struct {
		before func(t *testing.T, path string)
		do     func(t *testing.T, path, secret string) (int, []shown)
	}{
		"UpdateToken": {do: admin("PATCH", "", `{"token":{"name":"other"},"update_mask":"name"}`)},
		"RotateToken": {do: admin("POST", ":rotate", `{}`)},
		"NarrowToken": {do: admin("POST", ":narrow", `{"scopes":["a"]}`)},
		"a dry run":   {do: admin("POST", ":narrow", `{"scopes":["a"],"dry_run":true}`)},
		"ResumeToken": {do: admin("POST", ":resume", `{}`)},
		"ResumeScopes": {
			before: func(t *testing.T, path string) { quiet(t, path+":narrow", `{"scopes":["a"]}`) },
			do:     admin("POST", ":resumeScopes", `{}`),
		},
		"CancelRotation": {
			before: func(t *testing.T, path string) { quiet(t, path+":rotate", `{}`) },
			do:     admin("POST", ":cancelRotation", `{}`),
		},
		"RotateSelf": {do: func(t *testing.T, _, secret string) (int, []shown) {
			return call(t, "POST", "/v1/self:rotate", secret, `{}`)
		}},
		"GetSelf": {do: func(t *testing.T, _, secret string) (int, []shown) {
			return call(t, "GET", "/v1/self", secret, "")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			made := 0
			for i := range readings {
				path, secret := mint(t, ends(i))
				if c.before != nil {
					c.before(t, path)
				}
				code, list := c.do(t, path, secret)
				if code != http.StatusOK {
					continue // it had expired when the call decided
				}
				if made++; len(list) != 1 || list[0].State != "ACTIVE" {
					t.Errorf("with the end after %s: %v", ends(i), list)
				}
			}
			if made == 0 {
				t.Error("each call was refused")
			}
		})
	}
	t.Run("CreateToken", func(t *testing.T) {
		r.features("minter", "a")
		for i := range 3 {
			body := fmt.Sprintf(`{"name":"n%d","scopes":["a"],"ttl":"%ds"}`, i, int(ends(i).Seconds()))
			if code, list := call(
				t,
				"POST",
				"/v1/users/minter/tokens",
				r.admin,
				body,
			); code != http.StatusOK ||
				list[0].State != "ACTIVE" {
				t.Errorf("%s: %d %v", body, code, list)
			}
		}
	})
	t.Run("services", func(t *testing.T) {
		for i := range 3 {
			body := fmt.Sprintf(`{"name":"s%d","permissions":["introspect"],"ttl":"%ds"}`, i, int(ends(i).Seconds()))
			if code, list := call(
				t,
				"POST",
				"/v1/services",
				r.admin,
				body,
			); code != http.StatusOK ||
				list[0].State != "ACTIVE" {
				t.Errorf("%s: %d %v", body, code, list)
			}
			_, err := r.svc.CreateService(
				context.Background(),
				tokens.Operator(),
				tokens.ServiceRequest{Name: "r" + strconv.Itoa(i), Permissions: []string{"introspect"}},
			)
			must(t, err)
			path := fmt.Sprintf("/v1/services/r%d:rotate", i)
			body = fmt.Sprintf(`{"grace":"1800s","ttl":"%ds"}`, int(ends(i).Seconds()))
			if code, list := call(
				t,
				"POST",
				path,
				r.admin,
				body,
			); code != http.StatusOK || list[0].State != "ACTIVE" ||
				list[0].Until == "" {
				t.Errorf("%s: %d %v", path, code, list)
			}
		}
	})
	for name, path := range map[string]string{"ListTokens": "/v1/users/many/tokens?state=ACTIVE", "SearchTokens": "/v1/tokens?user=many&state=ACTIVE"} {
		t.Run(name, func(t *testing.T) {
			r.features("many", "a")
			quiet(t, "/v1/users/many/tokens:revoke", `{}`)
			for i := range readings {
				life := ends(i)
				r.pat(
					tokens.MintRequest{
						User:     "many",
						Name:     "n" + strconv.Itoa(i),
						Lifetime: tokens.Lifetime{TTL: &life},
					},
					"a",
				)
			}
			code, list := call(t, "GET", path, r.admin, "")
			if code != http.StatusOK || len(list) == 0 {
				t.Fatalf("%d: %v", code, list)
			}
			for _, s := range list {
				if s.State != "ACTIVE" {
					t.Errorf("a list of active tokens shows %v", s)
				}
			}
		})
	}
	t.Run("GetToken", func(t *testing.T) {
		path, _ := mint(t, time.Hour)
		r.wait(2 * time.Hour)
		if _, list := call(t, "GET", path, r.admin, ""); len(list) != 1 || list[0].State != "EXPIRED" {
			t.Errorf("an expired token: %v", list)
		}
	})
	t.Run("ListServices", func(t *testing.T) {
		r.wait(365 * 24 * time.Hour)
		got := r.rest("GET", "/v1/services", r.service("now", "admin"), "")
		var v struct{ Services []shown }
		must(t, json.Unmarshal([]byte(got.body), &v))
		states := map[string]int{}
		for _, s := range v.Services {
			states[s.State]++
		}
		if states["ACTIVE"] != 1 || states["EXPIRED"] != len(v.Services)-1 || len(v.Services) < 2 {
			t.Errorf("after a year: %v", states)
		}
	})
}

// TestTheSecretBeforeSignsAlongAsOfTheInstantOfTheCall rotates a webhook's secret while each reading of the clock moves
// it by more than the time for which the one before signs along.
func TestTheSecretBeforeSignsAlongAsOfTheInstantOfTheCall(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	made := r.rest("POST", "/v1/webhooks", r.admin, `{"webhook_id":"chat","url":"https://hooks.example.com/patd"}`)
	if made.code != http.StatusCreated {
		t.Fatalf("%d %s", made.code, made.body)
	}
	webhook := func(step time.Duration, method, path string) (until string) {
		t.Helper()
		body := ""
		if method == "POST" {
			body = "{}"
		}
		var got answerOf
		r.stepping(step, func() { got = r.rest(method, path, r.admin, body) })
		type shown struct {
			Until string `json:"previous_secret_expire_time"`
		}
		var v struct {
			shown
			Webhooks []shown
		}
		must(t, json.Unmarshal([]byte(got.body), &v))
		if got.code != http.StatusOK {
			t.Fatalf("%s: %d %s", path, got.code, got.body)
		}
		for _, w := range append(v.Webhooks, v.shown) {
			if w.Until != "" {
				until = w.Until
			}
		}
		return until
	}
	if until := webhook(25*time.Hour, "POST", "/v1/webhooks/chat:rotateSecret"); until == "" {
		t.Error("the rotation shows no secret that signs along")
	}
	r.wait(48 * time.Hour)
	for _, path := range []string{"/v1/webhooks/chat", "/v1/webhooks"} {
		if until := webhook(0, "GET", path); until != "" {
			t.Errorf("%s shows a secret that ended: %s", path, until)
		}
	}
}
