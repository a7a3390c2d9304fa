package server_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	patdv1 "patd/gen/patd/v1"
	"patd/server"
	"patd/tokens"
)

// TestProvidersProvisionAsTheySay plays what Okta and Entra send, as their documentation has it.
func TestProvidersProvisionAsTheySay(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"okta", "entra"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			provider := r.service(name, "users")
			text, err := os.ReadFile("testdata/scim/" + name + ".txt")
			must(t, err)
			kept := map[string]string{}
			var method, path, body string
			for n, line := range strings.Split(string(text), "\n") {
				for k, v := range kept {
					line = strings.ReplaceAll(line, "{"+k+"}", v)
				}
				kind, rest, _ := strings.Cut(line, " ")
				switch kind {
				case "#":
				case ">":
					method, path, _ = strings.Cut(rest, " ")
					body = ""
				case "<":
					got, o := r.scim(method, path, provider, strings.TrimSpace(body))
					want := strings.Fields(rest)
					if strconv.Itoa(got.code) != want[0] {
						t.Fatalf("line %d: %s %s: %d %s", n+1, method, path, got.code, got.body)
					}
					for _, w := range want[1:] {
						name, value, _ := strings.Cut(w, "=")
						if key, ok := strings.CutPrefix(name, "{"); ok {
							kept[strings.TrimSuffix(key, "}")] = member(o, value)
							continue
						}
						value, err := url.QueryUnescape(value)
						must(t, err)
						if has := member(o, name); has != value {
							t.Errorf("line %d: %s is %q, want %q", n+1, name, has, value)
						}
					}
					body = ""
				case "state":
					user, want, _ := strings.Cut(rest, " ")
					if state := r.state(user); state != want {
						t.Errorf("line %d: %s is %s, want %s", n+1, user, state, want)
					}
				default:
					body += line + "\n"
				}
			}
		})
	}
}

// TestTheUserIDOfSCIMIsThereAndNeverChanges holds for each attribute that can be it.
func TestTheUserIDOfSCIMIsThereAndNeverChanges(t *testing.T) {
	t.Parallel()
	for attribute, of := range map[string]struct{ without, with, user, changed string }{
		"externalId": {`{"userName": "a"}`, `{"userName": "a", "externalId": "u1"}`, "u1", `{"userName": "a", "externalId": "u2"}`},
		"userName":   {`{"externalId": "u1"}`, `{"userName": "a"}`, "a", `{"userName": "A"}`},
		"id":         {`{"userName": "a", "externalId": "u1"}`, `{"userName": "a", "id": "u/1"}`, "u/1", `{"userName": "a", "id": "u2"}`},
	} {
		t.Run(attribute, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(c *server.Config) { c.SCIMUserID = attribute })
			provider := r.service("provider", "users")
			for _, body := range []string{of.without, strings.Replace(of.with, `"`+of.user+`"`, `""`, 1), strings.Replace(of.with, `"`+of.user+`"`, `null`, 1)} {
				if got, o := r.scim(
					http.MethodPost,
					"/Users",
					provider,
					body,
				); got.code != 400 ||
					o["scimType"] != "invalidValue" {
					t.Errorf("%s: %d %s", body, got.code, got.body)
				}
			}
			_, secret := r.mint(of.user, "laptop") // the user was there before
			got, o := r.scim(http.MethodPost, "/Users", provider, of.with)
			if got.code != 201 || o["active"] != true {
				t.Fatalf("%d %s", got.code, got.body)
			}
			path := "/Users/" + url.PathEscape(o["id"].(string))
			if attribute == "id" && o["id"] != of.user {
				t.Errorf("the id is %v", o["id"])
			}
			for _, c := range []struct{ method, body string }{
				{http.MethodPut, of.changed},
				{http.MethodPatch, `{"Operations": [{"op": "replace", "value": ` + of.changed + `}]}`},
				{http.MethodPatch, `{"Operations": [{"op": "add", "path": "id", "value": "other"}]}`},
				{http.MethodPatch, `{"Operations": [{"op": "remove", "path": "id"}]}`},
			} {
				if got, o := r.scim(
					c.method,
					path,
					provider,
					c.body,
				); got.code != 400 ||
					o["scimType"] != "mutability" {
					t.Errorf("%s %s: %d %s", c.method, c.body, got.code, got.body)
				}
			}
			if got, _ := r.scim(http.MethodPost, "/Users", provider, of.with); got.code != 409 {
				t.Errorf("a second time: %d %s", got.code, got.body)
			}
			if d := r.introspect(secret); d != patdv1.IntrospectResponse_ALLOW {
				t.Errorf("before: %s", d)
			}
			r.scim(
				http.MethodPatch,
				path,
				provider,
				`{"Operations": [{"op": "replace", "path": "active", "value": false}]}`,
			)
			if d := r.introspect(secret); d != patdv1.IntrospectResponse_USER_SUSPENDED {
				t.Errorf("inactive: %s", d)
			}
			if got, _ := r.scim(http.MethodDelete, path, provider, ""); got.code != 204 {
				t.Errorf("delete: %d %s", got.code, got.body)
			}
			if got, _ := r.scim(http.MethodPost, "/Users", provider, of.with); got.code != 201 {
				t.Errorf("again after the deletion: %d %s", got.code, got.body)
			}
			if d := r.introspect(secret); d != patdv1.IntrospectResponse_REVOKED {
				t.Errorf("deleted and made again: %s", d)
			}
		})
	}
}

// TestSCIMChangesAreEvents holds that what a provider says is in the audit log, under its name, and what changed only.
func TestSCIMChangesAreEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	provider := r.service("okta", "users")
	id := r.provision(provider, "alice")
	patch := func(op string) {
		t.Helper()
		if got, _ := r.scim(http.MethodPatch, "/Users/"+id, provider, `{"Operations": [`+op+`]}`); got.code != 200 {
			t.Errorf("%s: %d %s", op, got.code, got.body)
		}
	}
	suspend := `{"op": "replace", "value": {"active": false}}`
	patch(suspend)
	patch(suspend)                                                                  // nothing changes
	patch(`{"op": "add", "path": "displayName", "value": "private"}`)               // a name, which is not in the event
	patch(`{"op": "replace", "value": {"active": true, "displayName": "private"}}`) // only one of them changes
	if got, _ := r.scim(http.MethodDelete, "/Users/"+id, provider, ""); got.code != 204 {
		t.Errorf("delete: %d %s", got.code, got.body)
	}
	events, _, err := r.svc.Events(
		context.Background(),
		tokens.Operator(),
		tokens.EventFilter{User: "alice"},
		tokens.Page{},
	)
	must(t, err)
	var got []string
	for _, e := range events {
		if e.Actor != "service:okta" || strings.Contains(e.Detail, "private") {
			t.Errorf("%+v", e)
		}
		got = append(got, string(e.Action)+" "+e.Detail)
	}
	slices.Reverse(got)
	want := []string{
		"user.provision added", "user.suspend by SCIM", "user.provision changed displayName", "user.resume by SCIM",
		"user.delete 0 revoked: by SCIM",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the events are %q", got)
	}
}

// TestARoutinePushDoesNotLiftAnOperatorsSuspension holds that a provider which sends the whole user, as it does when a
// name changes, resumes only whom it suspended; a PATCH of active is explicit.
func TestARoutinePushDoesNotLiftAnOperatorsSuspension(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	provider := r.service("okta", "users")
	id := r.provision(provider, "alice")
	push := func(active bool) object {
		t.Helper()
		got, o := r.scim(
			http.MethodPut,
			"/Users/"+id,
			provider,
			fmt.Sprintf(`{"userName": "alice@example.com", "displayName": "A", "active": %t}`, active),
		)
		if got.code != 200 {
			t.Errorf("%d %s", got.code, got.body)
		}
		return o
	}
	_, err := r.svc.SuspendUser(context.Background(), tokens.Operator(), "alice", "an incident")
	must(t, err)
	if o := push(true); o["active"] != false || r.state("alice") != "SUSPENDED" {
		t.Errorf("a push: %v", o)
	}
	push(false)
	if o := push(true); o["active"] != true || r.state("alice") != "ACTIVE" {
		t.Errorf("a deactivation and a reactivation: %v", o)
	}
	_, err = r.svc.SuspendUser(context.Background(), tokens.Operator(), "alice", "an incident")
	must(t, err)
	_, o := r.scim(
		http.MethodPatch,
		"/Users/"+id,
		provider,
		`{"Operations": [{"op": "replace", "path": "active", "value": true}]}`,
	)
	if o["active"] != true || r.state("alice") != "ACTIVE" {
		t.Errorf("a patch: %v", o)
	}
}

// TestSCIMNeedsTheRightUsers tries every call with every credential.
func TestSCIMNeedsTheRightUsers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.provision(r.service("provider", "users"), "alice")
	_, pat := r.mint("alice", "laptop")
	calls := []struct{ method, path, body string }{
		{
			http.MethodGet,
			"/Users",
			"",
		},
		{http.MethodGet, "/Users/" + id, ""},
		{http.MethodGet, "/ServiceProviderConfig", ""},
		{http.MethodGet, "/ResourceTypes", ""},
		{http.MethodGet, "/Schemas", ""},
		{http.MethodGet, "/nothing", ""},
		{http.MethodPost, "/Users", `{"userName": "b", "externalId": "b"}`},
		{http.MethodPost, "/Users/.search", `{}`},
		{http.MethodPut, "/Users/" + id, `{"userName": "b"}`},
		{http.MethodPatch, "/Users/" + id, `{"Operations": [{"op": "replace", "value": {"active": false}}]}`},
		{http.MethodPatch, "/Users/" + id, `{`},
		{http.MethodDelete, "/Users/" + id, ""},
	}
	for name, c := range map[string]struct {
		secret string
		code   int
	}{
		"nobody":           {"", 401},
		"a bad credential": {"pats_15ODq7pq8Hy_0Eoh211G4c8wtVWM00my5rsNSFlKgaWqQ4mb8gdEqno0000000", 401},
		"a token":          {pat, 403},
		"a user":           {r.idp.jwt(t, "alice"), 403},
		"another service":  {r.service("other", "tokens", "introspect", "catalog", "audit"), 403},
	} {
		for _, call := range calls {
			got, o := r.scim(call.method, call.path, c.secret, call.body)
			if got.code != c.code || got.code == 401 && got.header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s: %s %s: %d %v", name, call.method, call.path, got.code, o)
			}
		}
	}
	if r.state("alice") != "ACTIVE" || r.state("b") != "-" {
		t.Error("a refused call changed something")
	}
	refused, _, err := r.svc.Events(
		context.Background(),
		tokens.Operator(),
		tokens.EventFilter{Actor: "service:other"},
		tokens.Page{},
	)
	must(t, err)
	if len(refused) != 5 { // the changes
		t.Errorf("%d refusals are recorded: %+v", len(refused), refused)
	}
}

// TestMalformedSCIMIsRefused holds for what would be lost, or taken in two ways.
func TestMalformedSCIMIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	provider := r.service("provider", "users")
	id := r.provision(provider, "alice")
	user, ops := "/Users/"+id, func(ops string) string { return `{"Operations": [` + ops + `]}` }
	for _, c := range []struct {
		method, path, body string
		code               int
		kind               string
	}{
		{http.MethodPost, "/Users", `{"userName": "b", "externalId": "me"}`, 400, "invalidValue"},
		{http.MethodPost, "/Users", `{"userName": "b", "externalId": "b\u0000"}`, 400, "invalidValue"},
		{http.MethodPost, "/Users", `{"userName": "b", "externalId": 5}`, 400, "invalidValue"},
		{http.MethodPost, "/Users", `{"userName": "b", "externalId": "b", "active": "maybe"}`, 400, "invalidValue"},
		{http.MethodPost, "/Users", `{"userName": "b", "externalId": "b", "active": true, "Active": false}`, 400, "invalidSyntax"},
		{http.MethodPost, "/Users", `{"userName": "b", "externalId": "b", "externalId": "c"}`, 400, "invalidSyntax"},
		{http.MethodPost, "/Users", `{"userName": "` + strings.Repeat("b", 256) + `", "externalId": "b"}`, 400, "invalidValue"},
		{http.MethodPost, "/Users", `{"schemas": ["urn:other"], "userName": "b", "externalId": "b"}`, 400, "invalidValue"},
		{http.MethodPost, "/Users", `[]`, 400, "invalidSyntax"},
		{http.MethodPost, "/Users", `{} {}`, 400, "invalidSyntax"},
		{http.MethodPut, user, `{"externalId": "alice"}`, 400, "invalidValue"},
		{http.MethodPatch, user, ops(``), 400, "invalidSyntax"},
		{http.MethodPatch, user, `{}`, 400, "invalidSyntax"},
		{http.MethodPatch, user, ops(`{"op": "set", "path": "active", "value": false}`), 400, "invalidSyntax"},
		{http.MethodPatch, user, ops(`{"op": "replace", "path": "actve", "value": false}`), 400, "invalidPath"},
		{http.MethodPatch, user, ops(`{"op": "replace", "value": {"actve": false}}`), 400, "invalidPath"},
		{http.MethodPatch, user, ops(`{"op": "replace", "value": false}`), 400, "invalidValue"},
		{http.MethodPatch, user, ops(`{"op": "replace", "path": "active[x eq 1]", "value": false}`), 400, "invalidPath"},
		{http.MethodPatch, user, ops(`{"op": "remove"}`), 400, "noTarget"},
		{http.MethodPatch, user, ops(`{"op": "remove", "path": "active"}`), 400, "invalidValue"},
		{http.MethodPatch, user, ops(`{"op": "remove", "path": "userName"}`), 400, "invalidValue"},
		{http.MethodPatch, user, ops(`{"op": "replace", "path": "active", "value": false}, {"op": "nope"}`), 400, "invalidSyntax"},
		{http.MethodPatch, "/Users/other", ops(`{"op": "replace", "path": "active", "value": false}`), 404, ""},
		{http.MethodGet, "/Users?filter=userName+sw+%22a%22", "", 400, "invalidFilter"},
		{http.MethodGet, "/Users?filter=emails+eq+%22a%22", "", 400, "invalidFilter"},
		{http.MethodGet, "/Users?filter=userName+eq+%22a%22+or+active+eq+true", "", 400, "invalidFilter"},
		{http.MethodGet, "/Users?count=x", "", 400, "invalidValue"},
		{http.MethodGet, "/Schemas?filter=id+eq+%22a%22", "", 403, ""},
		{http.MethodGet, "/Groups", "", 404, ""},
		{http.MethodPost, "/Bulk", `{}`, 404, ""},
		{http.MethodGet, "/Users/" + id + "/more", "", 404, ""},
		{http.MethodDelete, "/Users", "", 405, ""},
	} {
		got, o := r.scim(c.method, c.path, provider, c.body)
		kind, _ := o["scimType"].(string)
		if got.code != c.code || kind != c.kind || o["detail"] == "" {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, got.code, got.body)
		}
	}
	for _, headers := range [][]string{{"Content-Type", "text/plain"}, {"If-Match", `"a"`}, {"Idempotency-Key", "0123456789abcdef"}} {
		if got := r.rest(
			http.MethodPatch,
			"/scim/v2"+user,
			provider,
			`{}`,
			headers...); got.code != 400 &&
			got.code != 415 {
			t.Errorf("%v: %d %s", headers, got.code, got.body)
		}
	}
	if r.state("alice") != "ACTIVE" {
		t.Error("a refused call changed something")
	}
}

// TestSCIMListsInPages holds that all pages have every user once.
func TestSCIMListsInPages(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	provider := r.service("provider", "users")
	for i := range 7 {
		r.provision(provider, fmt.Sprintf("u%d", i))
	}
	for _, c := range []struct {
		query               string
		total, start, items string
		first               string
	}{
		{"", "7", "1", "7", "u0@example.com"},
		{"?startIndex=1&count=3", "7", "1", "3", "u0@example.com"},
		{"?startIndex=4&count=3", "7", "4", "3", "u3@example.com"},
		{"?startIndex=7&count=3", "7", "7", "1", "u6@example.com"},
		{"?startIndex=8", "7", "8", "0", ""},
		{"?startIndex=0&count=-1", "7", "1", "0", ""},
		{"?count=0", "7", "1", "0", ""},
		{"?attributes=userName&count=1", "7", "1", "1", "u0@example.com"},
		{"?excludedAttributes=userName&count=1", "7", "1", "1", ""},
		{"?sortBy=userName&sortOrder=descending&count=1", "7", "1", "1", "u0@example.com"}, // sort is not supported, and ignored
	} {
		_, o := r.scim(http.MethodGet, "/Users"+c.query, provider, "")
		got := []string{
			member(o, "totalResults"),
			member(o, "startIndex"),
			member(o, "itemsPerPage"),
			member(o, "Resources.0.userName"),
		}
		if want := []string{c.total, c.start, c.items, c.first}; !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", c.query, got, want)
		}
	}
}

// TestAnOutageIsNoAnswerOverSCIM holds that a store that does not answer is 503, and never an empty list or a success.
func TestAnOutageIsNoAnswerOverSCIM(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	provider := r.service("provider", "users")
	id := r.provision(provider, "alice")
	outage := func(op string) error {
		if op == "Update" || op == "View" {
			return tokens.StoreUnavailable(op, errors.New("down"))
		}
		return nil
	}
	r.store.set(outage)
	for _, c := range []struct{ method, path, body string }{
		{http.MethodGet, "/Users", ""}, {http.MethodGet, "/Users/" + id, ""},
		{http.MethodPost, "/Users", `{"userName": "b", "externalId": "b"}`},
		{http.MethodPatch, "/Users/" + id, `{"Operations": [{"op": "replace", "value": {"active": false}}]}`},
		{http.MethodDelete, "/Users/" + id, ""},
	} {
		if got, _ := r.scim(
			c.method,
			c.path,
			provider,
			c.body,
		); got.code != 503 ||
			got.header.Get("Retry-After") == "" {
			t.Errorf("%s %s: %d %s", c.method, c.path, got.code, got.body)
		}
	}
	r.store.set(nil)
	if r.state("alice") != "ACTIVE" {
		t.Error("a call that failed changed something")
	}
}

// TestNoFloodOfSCIMKeepsAProviderFromDeactivating holds that suspending and deleting have a budget of their own.
func TestNoFloodOfSCIMKeepsAProviderFromDeactivating(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.ServiceChangeRate, c.ServiceChangeBurst = 0.001, 3 })
	provider := r.service("provider", "users")
	id := r.provision(provider, "alice")
	rename := `{"Operations": [{"op": "replace", "path": "displayName", "value": "A"}]}`
	for range 2 {
		r.scim(http.MethodPatch, "/Users/"+id, provider, rename)
	}
	for _, c := range []struct{ method, path, body string }{
		{http.MethodPatch, "/Users/" + id, rename},
		{http.MethodPut, "/Users/" + id, `{"userName": "alice", "active": true}`},
		{http.MethodPost, "/Users", `{"userName": "b", "externalId": "b"}`},
	} {
		if got, _ := r.scim(
			c.method,
			c.path,
			provider,
			c.body,
		); got.code != 429 ||
			got.header.Get("Retry-After") == "" {
			t.Errorf("%s %s: %d %s", c.method, c.path, got.code, got.body)
		}
	}
	if got, _ := r.scim(
		http.MethodPatch,
		"/Users/"+id,
		provider,
		`{"Operations": [{"op": "replace", "path": "active", "value": "False"}]}`,
	); got.code != 200 {
		t.Errorf("deactivate: %d %s", got.code, got.body)
	}
	if got, _ := r.scim(http.MethodDelete, "/Users/"+id, provider, ""); got.code != 204 {
		t.Errorf("delete: %d %s", got.code, got.body)
	}
}
