package server_test

import (
	"net/http"
	"strings"
	"testing"

	"patd/server"
)

// TestSCIMSaysWhatItSupports by its three descriptions (RFC 7644 section 4), each of which is found where the others
// say that it is.
func TestSCIMSaysWhatItSupports(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	provider := r.service("provider", "users")
	const schema = "urn:ietf:params:scim:schemas:core:2.0:User"
	for path, members := range map[string]map[string]string{
		"/ServiceProviderConfig": {
			"patch.supported": "true", "bulk.supported": "false", "filter.supported": "true", "sort.supported": "false",
			"etag.supported": "false", "changePassword.supported": "false",
			"authenticationSchemes.0.type": "oauthbearertoken", "meta.resourceType": "ServiceProviderConfig",
		},
		"/ResourceTypes":      {"totalResults": "1", "Resources.0.endpoint": "/Users", "Resources.0.schema": schema},
		"/ResourceTypes/User": {"endpoint": "/Users", "schema": schema, "meta.resourceType": "ResourceType"},
		"/Schemas":            {"totalResults": "1", "Resources.0.id": schema},
		"/Schemas/" + schema:  {"id": schema, "attributes.0.name": "userName", "attributes.0.mutability": "readWrite"},
	} {
		got, o := r.scim(http.MethodGet, path, provider, "")
		if got.code != http.StatusOK {
			t.Errorf("%s: %d %s", path, got.code, got.body)
		}
		for name, want := range members {
			if have := member(o, name); have != want {
				t.Errorf("%s: %s is %q, want %q", path, name, have, want)
			}
		}
		if at := member(o, "meta.location"); at != "" && at != r.srv.Issuer()+"/scim/v2"+path {
			t.Errorf("%s says that it is at %s", path, at)
		}
		if got, _ := r.scim(http.MethodGet, path, r.service("other", "tokens"), ""); got.code != http.StatusForbidden {
			t.Errorf("%s without the permission: %d", path, got.code)
		}
		r.endService("other")
		if got, _ := r.scim(http.MethodPost, path, provider, `{}`); got.code != http.StatusMethodNotAllowed ||
			got.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("POST %s: %d, Allow %q", path, got.code, got.header.Get("Allow"))
		}
	}
	for _, path := range []string{"/Schemas/urn:other", "/ResourceTypes/Group", "/ServiceProviderConfig/x", "/Users/%00", "/"} {
		if got, _ := r.scim(http.MethodGet, path, provider, ""); got.code != http.StatusNotFound &&
			got.code != http.StatusBadRequest {
			t.Errorf("%s: %d %s", path, got.code, got.body)
		}
	}
	byName := newRig(t, func(c *server.Config) { c.SCIMUserID = "userName" })
	_, o := byName.scim(http.MethodGet, "/Schemas/"+schema, byName.service("provider", "users"), "")
	if have := member(o, "attributes.0.mutability"); have != "immutable" {
		t.Errorf("where the user name is the id it is %q", have)
	}
}

// TestOddSCIMIsTakenOrRefusedAsTheRFCsSay has what few providers send.
func TestOddSCIMIsTakenOrRefusedAsTheRFCsSay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	provider := r.service("provider", "users")
	id := r.provision(provider, "alice")
	user := "/Users/" + id
	ops := func(ops string) string { return `{"Operations": [` + ops + `]}` }
	for _, c := range []struct {
		method, path, body string
		code               int
		kind, is           string // scimType of a fault, or a member of the answer and its value
	}{
		{"PATCH", user, ops(`{"op": "replace", "path": "active", "value": [{"value": "False"}]}`), 200, "", "active=false"},
		{"PATCH", user, ops(`{"op": "replace", "value": {"urn:ietf:params:scim:schemas:core:2.0:User": {"active": true}}}`), 200, "", "active=true"},
		{"PATCH", user, ops(`{"op": "replace", "value": {"urn:ietf:params:scim:schemas:core:2.0:User": {"actve": true}}}`), 400, "invalidPath", ""},
		{"PATCH", user, ops(`{"op": "add", "path": "urn:ietf:params:scim:schemas:core:2.0:User:displayName", "value": "Al"}`), 200, "", "displayName=Al"},
		{"PATCH", user, ops(`{"op": "replace", "path": "displayName", "value": null}`), 200, "", "displayName="},
		{"PATCH", user, ops(`{"op": "remove", "path": "externalId"}`), 400, "mutability", ""},
		{"PATCH", user, ops(`{"op": "remove", "path": "displayName[x"}`), 400, "invalidPath", ""},
		{"PATCH", user, ops(`{"op": "remove", "path": "name.familyName"}`), 200, "", "active=true"},
		{"PATCH", user, ops(`{"op": 7, "path": "active", "value": false}`), 400, "invalidSyntax", ""},
		{"PATCH", user, ops(`{"op": "replace", "path": 7, "value": false}`), 400, "invalidPath", ""},
		{"PATCH", user, ops(`7`), 400, "invalidSyntax", ""},
		{"PATCH", user, ops(strings.TrimSuffix(strings.Repeat(`{"op": "add", "path": "title", "value": "x"},`, 1001), ",")), 400, "invalidValue", ""},
		{"PATCH", user, `{"Operations": `, 400, "invalidSyntax", ""},
		{"PATCH", user, `{7: 1}`, 400, "invalidSyntax", ""},
		{"PATCH", user, `{"Operations": []`, 400, "invalidSyntax", ""},
		{"PUT", user + "?attributes=userName&excludedAttributes=active", `{"userName": "a", "externalId": "alice"}`, 400, "invalidValue", ""},
		{"GET", user + "?attributes=userName&excludedAttributes=active", "", 400, "invalidValue", ""},
		{"GET", "/Users?attributes=userName&excludedAttributes=active", "", 400, "invalidValue", ""},
		{"POST", "/Users?attributes=userName&excludedAttributes=active", `{"userName": "b", "externalId": "b"}`, 400, "invalidValue", ""},
		{"POST", "/Users", `{"externalId": "b"}`, 400, "invalidValue", ""},
		{"POST", "/Users", `{"userName": "", "externalId": "b"}`, 400, "invalidValue", ""},
		{"GET", user + "?attributes=,%20,userName", "", 200, "", "userName=alice@example.com"},
		{"GET", "/Users?filter=id+eq+%22" + id + "%22", "", 200, "", "totalResults=1"},
		{"GET", "/Users?filter=id+eq+%22%22", "", 400, "invalidFilter", ""},
		{"GET", "/Users?filter=id+eq+5", "", 400, "invalidFilter", ""},
		{"GET", "/Users?filter=%zz", "", 400, "invalidValue", ""},
		{"POST", "/Users/.search", `{"filter": "id eq \"` + id + `\"", "attributes": ["userName"], "startIndex": 1, "count": 5}`, 200, "", "totalResults=1"},
		{"POST", "/.search", `{"count": true}`, 400, "invalidValue", ""},
		{"POST", "/.search", `[]`, 400, "invalidSyntax", ""},
		{"POST", "/Users", `{"userName": "` + strings.Repeat("b", 1<<20) + `"}`, 413, "", ""},
	} {
		got, o := r.scim(c.method, c.path, provider, c.body)
		kind, _ := o["scimType"].(string)
		name, want, _ := strings.Cut(c.is, "=")
		if got.code != c.code || kind != c.kind || c.is != "" && member(o, name) != want {
			t.Errorf("%s %s %.120s: %d %.300s", c.method, c.path, c.body, got.code, got.body)
		}
	}
	for _, headers := range [][]string{
		{}, {"Content-Type", "application/scim+json", "Content-Type", "application/json"}, {"Content-Type", "a/b/c;=;"},
	} {
		for _, path := range []string{"/Users", "/Users/.search"} {
			if got := r.rest(
				http.MethodPost,
				"/scim/v2"+path,
				provider,
				`{"userName": "x", "externalId": "x"}`,
				headers...); got.code != http.StatusUnsupportedMediaType {
				t.Errorf("%s with %v: %d %s", path, headers, got.code, got.body)
			}
		}
	}
	if r.state("x") != "-" || r.state("alice") != "ACTIVE" {
		t.Error("a refused call changed something")
	}
}
