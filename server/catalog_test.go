package server_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	patdv1 "patd/gen/patd/v1"
	"patd/server"
)

// step is one REST call and what it must answer: the code, the reason and the field of an error.
type step struct {
	verb, path, body string
	code             int
	reason, field    string
}

func (r *rig) steps(t *testing.T, credential string, all []step) {
	t.Helper()
	for _, s := range all {
		got := r.rest(s.verb, s.path, credential, s.body)
		if reason, field := got.reason(); got.code != s.code || reason != s.reason || field != s.field {
			t.Errorf(
				"%s %s %s: got %d %s %s, want %d %s %s: %s",
				s.verb,
				s.path,
				s.body,
				got.code,
				reason,
				field,
				s.code,
				s.reason,
				s.field,
				got.body,
			)
		}
	}
}

func TestFeaturesOfTheCatalogueOverREST(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	catalog := r.service("cat", "catalog")
	r.steps(t, catalog, []step{
		{
			"POST",
			"/v1/features",
			`{"name":"a","display_name":"A","consent":"REQUIRED","default":true,"metadata_publish":"ALL_CLIENTS"}`,
			201,
			"",
			"",
		},
		{"POST", "/v1/features", `{"name":"a"}`, 409, "FEATURE_EXISTS", ""},
		{"POST", "/v1/features", `{}`, 400, "SCOPE_INVALID", "name"},
		{"POST", "/v1/features", ``, 400, "ENTRY_REQUIRED", "feature"},
		{"POST", "/v1/features", `{"feature":{"name":"a"}}`, 400, "FIELD_UNKNOWN", "feature"},
		{"POST", "/v1/features", `{"name":"b","consent":"MAYBE"}`, 400, "JSON_INVALID", "consent"},
		{"POST", "/v1/features", `{"name":"b","consent":9}`, 400, "CONSENT_UNKNOWN", "consent"},
		{
			"POST",
			"/v1/features",
			`{"name":"b","metadata_publish":-1}`,
			400,
			"METADATA_PUBLISH_UNKNOWN",
			"metadata_publish",
		},
		{"POST", "/v1/features", `{"name":"sys","system":true}`, 201, "", ""},
		{"GET", "/v1/features/a", "", 200, "", ""},
		{"GET", "/v1/features/b", "", 404, "NOT_FOUND", ""},
		{"PUT", "/v1/features/a", `{"name":"b"}`, 400, "NAME_MISMATCH", "name"},
		{"PUT", "/v1/features/a", ``, 400, "ENTRY_REQUIRED", "feature"},
		{"PUT", "/v1/features/a", `{"name":"a","description":"d"}`, 200, "", ""},
		{"PUT", "/v1/features/b", `{}`, 404, "NOT_FOUND", ""},
		{"PUT", "/v1/features/sys", `{}`, 403, "FEATURE_SYSTEM", ""},
		{"DELETE", "/v1/features/sys", ``, 403, "FEATURE_SYSTEM", ""},
		{"GET", "/v1/features?limit=-1", "", 400, "PAGE_SIZE_INVALID", "limit"},
		{"GET", "/v1/features?after=nonsense", "", 400, "PAGE_TOKEN_INVALID", "after"},
		{"GET", "/v1/features?filter=" + url.QueryEscape(`consent eq REQUIRED`), "", 400, "FILTER_INVALID", "filter"},
		{
			"GET",
			"/v1/features?filter=" + url.QueryEscape(`system eq true and system eq true`),
			"",
			400,
			"FILTER_INVALID",
			"filter",
		},
	})
	var entry map[string]any
	must(t, json.Unmarshal([]byte(r.rest("GET", "/v1/features/a", catalog, "").body), &entry))
	want := map[string]any{
		"etag":             entry["etag"],
		"name":             "a",
		"display_name":     "",
		"description":      "d",
		"consent":          "IMPLICIT",
		"default":          false,
		"optional":         false,
		"metadata_publish": "NO_CLIENTS",
		"system":           false,
	}
	if diff := cmp.Diff(want, entry); diff != "" {
		t.Errorf("the entry after it was replaced: %s", diff)
	}
	got := r.rest("DELETE", "/v1/features/a", catalog, "")
	if got.code != http.StatusNoContent || got.body != "" || got.header.Get("Content-Type") != "" ||
		got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("delete: %d %q %v", got.code, got.body, got.header)
	}
	r.steps(
		t,
		catalog,
		[]step{
			{"DELETE", "/v1/features/a", "", 404, "NOT_FOUND", ""},
			{"GET", "/v1/features/a", "", 404, "NOT_FOUND", ""},
		},
	)
}

// TestCatalogueNamesInPathsAreDecodedOnce goes through the life of entries whose names are hard to write in a path.
func TestCatalogueNamesInPathsAreDecodedOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, id := range []string{
		"https://api.example.com/v1/", "a/b", "a:b", "a?b", "a#b", "100%", "a%2Fb", "urn:x:check", "x:block", "a//b", "/", "%", "a+b", "a;b", "a&b=c",
	} {
		for _, escaped := range []string{url.PathEscape(id), strings.ReplaceAll(url.QueryEscape(id), "+", "%20")} {
			f, a, text := "/v1/features/"+escaped, "/v1/audiences/"+escaped, quoted(t, id)
			r.steps(t, r.admin, []step{
				{"POST", "/v1/features", `{"name":` + text + `}`, 201, "", ""},
				{"PUT", f, `{"display_name":"x"}`, 200, "", ""},
				{"PUT", f, `{"name":` + text + `,"display_name":"y"}`, 200, "", ""},
				{"POST", "/v1/audiences", `{"id":` + text + `}`, 201, "", ""},
				{"PUT", a, `{"id":` + text + `,"max_ttl":"60s"}`, 200, "", ""},
				{"POST", a + ":check", "", 200, "", ""},
				{"POST", a + ":block", `{"reason":"r"}`, 200, "", ""},
				{"POST", a + ":unblock", "", 200, "", ""},
			})
			if got := r.rest("GET", f, r.admin, ""); !strings.Contains(got.body, `"name":`+text) {
				t.Errorf("%s: %d %s", f, got.code, got.body)
			}
			if got := r.rest("GET", a, r.admin, ""); !strings.Contains(got.body, `"id":`+text) {
				t.Errorf("%s: %d %s", a, got.code, got.body)
			}
			r.steps(
				t,
				r.admin,
				[]step{
					{"DELETE", f, "", 204, "", ""},
					{"DELETE", a, "", 204, "", ""},
					{"GET", f, "", 404, "NOT_FOUND", ""},
					{"GET", a, "", 404, "NOT_FOUND", ""},
				},
			)
		}
	}
}

// compact is a body without the white space that separates its parts.
func compact(a answerOf) string { return strings.TrimSpace(strings.ReplaceAll(a.body, ", ", ",")) }

func quoted(t *testing.T, s string) string {
	t.Helper()
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	must(t, e.Encode(s))
	return strings.TrimSpace(b.String())
}

// TestCatalogueListsHaveALink follows the Link headers through the lists, whose next page is named by `after`.
func TestCatalogueListsHaveALink(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.Issuer = "https://patd.example/base" })
	for _, n := range []string{"a.1", "a.2", "a.3", "b"} {
		r.steps(t, r.admin, []step{
			{"POST", "/v1/features", `{"name":"` + n + `","optional":true}`, 201, "", ""},
			{"POST", "/v1/audiences", `{"id":"` + n + `"}`, 201, "", ""},
		})
	}
	for start, item := range map[string]string{
		"/v1/features?limit=1&q=A.&filter=" + url.QueryEscape(`optional eq true and consent eq "IMPLICIT"`): `"name"`,
		"/v1/audiences?limit=1&q=A.": `"id"`,
	} {
		path, seen := start, 0
		for path != "" {
			got := r.rest("GET", path, r.admin, "")
			if got.code != 200 || seen > 3 {
				t.Fatalf("GET %s: %d %s", path, got.code, got.body)
			}
			var body struct{ After string }
			must(t, json.Unmarshal([]byte(got.body), &body))
			seen += strings.Count(got.body, item)
			link, isLast := got.header.Get("Link"), body.After == ""
			if path = ""; isLast != (link == "") || !isLast && !strings.Contains(link, "after="+body.After) {
				t.Fatalf("Link: %q of %s", link, got.body)
			}
			if link != "" {
				path, _ = strings.CutPrefix(strings.TrimSuffix(link, `>; rel="next"`), "<https://patd.example/base")
			}
		}
		if seen != 3 {
			t.Errorf("GET %s: saw %d of 3", start, seen)
		}
	}
	got := r.rest("GET", "/v1/features?limit=1&q=eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbGljZSJ9.c2ln", r.admin, "")
	if got.code != 200 || strings.Contains(got.header.Get("Link"), "eyJ") {
		t.Errorf("a JWT in the query: %d %s", got.code, got.header.Get("Link"))
	}
	first := r.rest("GET", "/v1/features?limit=1", r.admin, "")
	var body struct{ After string }
	must(t, json.Unmarshal([]byte(first.body), &body))
	r.steps(
		t,
		r.admin,
		[]step{{"GET", "/v1/features?limit=1&q=a&after=" + body.After, "", 400, "PAGE_TOKEN_INVALID", "after"}},
	)
	r.features("u1", "a.1")
	for _, n := range []string{"x", "y"} {
		r.wait(time.Millisecond) // so that ids sort by age
		r.steps(
			t,
			r.admin,
			[]step{
				{
					"POST",
					"/v1/users/u1/tokens",
					`{"name":"` + n + `","scopes":["a.1"],"audiences":["a.1"]}`,
					200,
					"",
					"",
				},
			},
		)
	}
	got = r.rest("POST", "/v1/audiences/a.1:check", r.admin, `{"max_ttl":"60s","limit":1}`)
	must(t, json.Unmarshal([]byte(got.body), &body))
	if body.After == "" || !strings.Contains(got.body, `"x"`) || got.header.Get("Link") != "" {
		t.Errorf("the first page of a check, which as a POST has no Link: %s %v", got.body, got.header)
	}
	got = r.rest("POST", "/v1/audiences/a.1:check", r.admin, `{"max_ttl":"60s","limit":1,"after":"`+body.After+`"}`)
	if !strings.Contains(got.body, `"y"`) || !strings.Contains(got.body, `"after":""`) {
		t.Errorf("the second page of a check: %s", got.body)
	}
}

func TestAudiencesOverREST(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.steps(t, r.service("cat", "catalog"), []step{
		{"POST", "/v1/audiences", `{"id":"api","max_ttl":"3600s","resource":"https://api.example"}`, 201, "", ""},
		{"POST", "/v1/audiences", `{"id":"api"}`, 409, "AUDIENCE_EXISTS", ""},
		{"POST", "/v1/audiences", ``, 400, "ENTRY_REQUIRED", "audience"},
		{"POST", "/v1/audiences", `{"id":"a b"}`, 400, "AUDIENCE_INVALID", "id"},
		{"POST", "/v1/audiences", `{"id":"x","max_ttl":"0s"}`, 400, "TTL_OUT_OF_RANGE", "max_ttl"},
		{"POST", "/v1/audiences", `{"id":"x","default_ttl":"-1s"}`, 400, "TTL_OUT_OF_RANGE", "default_ttl"},
		{
			"POST",
			"/v1/audiences",
			`{"id":"x","access_token_ttl":"2592001s"}`,
			400,
			"TTL_OUT_OF_RANGE",
			"access_token_ttl",
		},
		{"POST", "/v1/audiences", `{"id":"x","max_ttl":"315576000000s"}`, 400, "TTL_OUT_OF_RANGE", "max_ttl"},
		{"POST", "/v1/audiences", `{"id":"x","max_ttl":"1 day"}`, 400, "JSON_INVALID", "max_ttl"},
		{
			"POST",
			"/v1/audiences",
			`{"id":"x","access_token_format":7}`,
			400,
			"ACCESS_TOKEN_FORMAT_UNKNOWN",
			"access_token_format",
		},
		{"POST", "/v1/audiences", `{"id":"x","resource":"/relative"}`, 400, "RESOURCE_INVALID", "resource"},
		{"PUT", "/v1/audiences/api", `{"id":"other"}`, 400, "NAME_MISMATCH", "id"},
		{"PUT", "/v1/audiences/nope", `{}`, 404, "NOT_FOUND", ""},
		{"GET", "/v1/audiences/nope", ``, 404, "NOT_FOUND", ""},
		{"POST", "/v1/audiences/nope:check", ``, 404, "NOT_FOUND", ""},
		{"POST", "/v1/audiences/nope:block", ``, 404, "NOT_FOUND", ""},
		{"POST", "/v1/audiences/api:check", `{"max_ttl":"0s"}`, 400, "TTL_OUT_OF_RANGE", "max_ttl"},
		{"POST", "/v1/audiences/api:check", `{"limit":-1}`, 400, "PAGE_SIZE_INVALID", "limit"},
		{"POST", "/v1/audiences/api:check", `{"after":"x"}`, 400, "PAGE_TOKEN_INVALID", "after"},
		{"GET", "/v1/audiences?limit=-1", ``, 400, "PAGE_SIZE_INVALID", "limit"},
	})
	var entry map[string]any
	must(t, json.Unmarshal([]byte(r.rest("GET", "/v1/audiences/api", r.admin, "").body), &entry))
	want := map[string]any{
		"etag":                 entry["etag"],
		"require_named":        false,
		"id":                   "api",
		"display_name":         "",
		"resource":             "https://api.example",
		"max_ttl":              "3600s",
		"allow_never":          false,
		"allow_offline_access": false,
		"access_token_ttl":     "86400s",
		"access_token_format":  "OPAQUE",
	}
	if diff := cmp.Diff(want, entry); diff != "" {
		t.Errorf("the audience: %s", diff)
	}
}

// untagged leaves out what the server adds.
var untagged = protocmp.FilterField(&patdv1.Feature{}, "etag", cmp.Ignore())

// TestCatalogueOverGRPC reads back what was written, and wants the codes that REST gives for the same.
func TestCatalogueOverGRPC(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c, ctx := patdv1.NewCatalogServiceClient(r.conn), as(r.admin)
	feature := &patdv1.Feature{
		Name: "f", DisplayName: "F", Description: "d", Consent: patdv1.Feature_FLEXIBLE, Default: true, Optional: true,
		MetadataPublish: patdv1.Feature_ALL_CLIENTS,
	}
	made, err := c.CreateFeature(ctx, &patdv1.CreateFeatureRequest{Feature: feature})
	must(t, err)
	got, err := c.GetFeature(ctx, &patdv1.GetFeatureRequest{Name: "f"})
	must(t, err)
	audience := &patdv1.Audience{
		Id:                 "a",
		DisplayName:        "A",
		Resource:           "urn:a",
		DefaultTtl:         durationpb.New(time.Hour),
		MaxTtl:             durationpb.New(2 * time.Hour),
		AllowNever:         true,
		AllowOfflineAccess: true,
		AccessTokenTtl:     durationpb.New(time.Minute),
		AccessTokenFormat:  patdv1.Audience_JWT,
	}
	_, err = c.CreateAudience(ctx, &patdv1.CreateAudienceRequest{Audience: audience})
	must(t, err)
	read, err := c.GetAudience(ctx, &patdv1.GetAudienceRequest{Id: "a"})
	must(t, err)
	for _, d := range []string{
		cmp.Diff(feature, made.GetFeature(), protocmp.Transform(), untagged), cmp.Diff(feature, got.GetFeature(), protocmp.Transform(), untagged),
		cmp.Diff(audience, read.GetAudience(), protocmp.Transform(), protocmp.IgnoreFields(&patdv1.Audience{}, "etag")),
	} {
		if d != "" {
			t.Error(d)
		}
	}
	for what, err := range map[string]error{
		"ALREADY_EXISTS FEATURE_EXISTS":       second(c.CreateFeature(ctx, &patdv1.CreateFeatureRequest{Feature: feature})),
		"INVALID_ARGUMENT NAME_MISMATCH":      second(c.ReplaceFeature(ctx, &patdv1.ReplaceFeatureRequest{Name: "f", Feature: &patdv1.Feature{Name: "g"}})),
		"INVALID_ARGUMENT ENTRY_REQUIRED":     second(c.ReplaceAudience(ctx, &patdv1.ReplaceAudienceRequest{Id: "a"})),
		"NOT_FOUND NOT_FOUND":                 second(c.DeleteFeature(ctx, &patdv1.DeleteFeatureRequest{Name: "g"})),
		"PERMISSION_DENIED PERMISSION_DENIED": second(c.ListFeatures(as(r.service("tok", "tokens")), &patdv1.ListFeaturesRequest{})),
		"INVALID_ARGUMENT DURATION_INVALID":   second(c.CreateAudience(ctx, &patdv1.CreateAudienceRequest{Audience: &patdv1.Audience{Id: "b", MaxTtl: &durationpb.Duration{Seconds: 1, Nanos: -1}}})),
		"INVALID_ARGUMENT PAGE_SIZE_INVALID":  second(c.ListAudiences(ctx, &patdv1.ListAudiencesRequest{Limit: -1})),
		"INVALID_ARGUMENT FILTER_INVALID":     second(c.ListFeatures(ctx, &patdv1.ListFeaturesRequest{Filter: "x"})),
		"INVALID_ARGUMENT CONSENT_UNKNOWN":    second(c.CreateFeature(ctx, &patdv1.CreateFeatureRequest{Feature: &patdv1.Feature{Name: "h", Consent: 4}})),
		"INVALID_ARGUMENT PAGE_TOKEN_INVALID": second(c.ListFeatures(ctx, &patdv1.ListFeaturesRequest{After: "x"})),
		"ALREADY_EXISTS AUDIENCE_EXISTS":      second(c.CreateAudience(ctx, &patdv1.CreateAudienceRequest{Audience: audience})),
		"INVALID_ARGUMENT TTL_OUT_OF_RANGE":   second(c.CheckAudience(ctx, &patdv1.CheckAudienceRequest{Id: "a", MaxTtl: durationpb.New(0)})),
	} {
		reason, _ := grpcReason(err)
		if got := codeName(err) + " " + reason; got != what {
			t.Errorf("got %s (%v), want %s", got, err, what)
		}
	}
	r.features("u1", "f", "plain")
	held, err := patdv1.NewUserServiceClient(r.conn).GetUserFeatures(ctx, &patdv1.GetUserFeaturesRequest{User: "u1"})
	must(t, err)
	plain := &patdv1.Feature{
		Name:            "plain",
		Consent:         patdv1.Feature_IMPLICIT,
		MetadataPublish: patdv1.Feature_NO_CLIENTS,
	}
	if diff := cmp.Diff(
		[]*patdv1.Feature{feature, plain},
		held.GetFeatures(),
		protocmp.Transform(),
		untagged,
	); diff != "" ||
		held.GetStale() {
		t.Errorf("the user's features: stale %v %s", held.GetStale(), diff)
	}
	_, err = patdv1.NewUserServiceClient(r.conn).RefreshUser(ctx, &patdv1.RefreshUserRequest{User: "u1"})
	must(t, err)
}

func second[T any](_ T, err error) error { return err }

// codeName is a code as the JSON errors have it.
func codeName(err error) string {
	return map[codes.Code]string{
		codes.AlreadyExists: "ALREADY_EXISTS", codes.InvalidArgument: "INVALID_ARGUMENT", codes.NotFound: "NOT_FOUND", codes.PermissionDenied: "PERMISSION_DENIED",
	}[status.Code(err)]
}

// TestBlockedTokensShowOverTheWire makes a policy stricter, looks what exceeds it, blocks and unblocks.
func TestBlockedTokensShowOverTheWire(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.features("u1", "a")
	r.steps(t, r.admin, []step{{"POST", "/v1/audiences", `{"id":"https://api"}`, 201, "", ""}})
	made := r.rest(
		"POST",
		"/v1/users/u1/tokens",
		r.admin,
		`{"name":"n","scopes":["a"],"audiences":["https://api"],"ttl":"7200s"}`,
	)
	other := r.rest("POST", "/v1/users/u1/tokens", r.admin, `{"name":"m","scopes":["a"],"ttl":"7200s"}`)
	secret := secretIn(t, made)
	const api = "/v1/audiences/https%3A%2F%2Fapi"
	check := func(body, count string) {
		t.Helper()
		got := r.rest("POST", api+":check", r.admin, body)
		if got.code != 200 || !strings.Contains(got.body, `"exceeding_count":"`+count+`"`) {
			t.Errorf("check %s: %d %s, want %s", body, got.code, got.body, count)
		}
	}
	check("", "0")
	check(`{"max_ttl":"3600s"}`, "1")
	r.steps(t, r.admin, []step{{"PUT", api, `{"max_ttl":"3600s"}`, 200, "", ""}})
	got := r.rest("POST", api+":check", r.admin, "")
	for _, want := range []string{`"exceeding_count":"1"`, `"expires_in":"7200s"`, `"user":"u1"`, `"name":"n"`, `"blocked":false`} {
		if !strings.Contains(got.body, want) {
			t.Errorf("the check lacks %s: %s", want, got.body)
		}
	}
	if d := restDecision(r, secret); d != "ALLOW" {
		t.Errorf("before the block: %s", d)
	}
	got = r.rest("POST", api+":block", r.admin, `{"reason":"too long"}`)
	if compact(got) != `{"blocked_count":1,"remaining_count":"0"}` {
		t.Errorf("block: %d %s", got.code, got.body)
	}
	if d, e := restDecision(
		r,
		secret,
	), r.introspect(
		secret,
	); d != "POLICY_BLOCKED" ||
		e != patdv1.IntrospectResponse_POLICY_BLOCKED {
		t.Errorf("blocked: %s over REST, %s over gRPC", d, e)
	}
	if got := r.rest(
		"POST",
		"/v1/introspect",
		r.admin,
		`{"token":"`+secret+`"}`,
	); strings.Contains(got.body, "u1") ||
		!strings.Contains(got.body, `"active":false`) {
		t.Errorf("an inactive answer tells more: %s", got.body)
	}
	if got := r.rest("GET", "/v1/self", secret, ""); got.code != http.StatusUnauthorized {
		t.Errorf("a blocked PAT describes itself: %d", got.code)
	}
	if got := r.rest(
		"GET",
		"/v1/users/u1/tokens?q=n",
		r.admin,
		"",
	); !strings.Contains(
		got.body,
		`"policy_blocked":true`,
	) {
		t.Errorf("the token does not show its block: %s", got.body)
	}
	if d := restDecision(r, secretIn(t, other)); d != "ALLOW" {
		t.Errorf("a token that does not name the audience: %s", d)
	}
	if got := r.rest("POST", api+":check", r.admin, ""); !strings.Contains(got.body, `"blocked":true`) {
		t.Errorf("the check does not show the block: %s", got.body)
	}
	got = r.rest("POST", api+":unblock", r.admin, "")
	if compact(got) != `{"unblocked_count":1,"remaining_count":"0"}` || restDecision(r, secret) != "ALLOW" {
		t.Errorf("unblock: %d %s", got.code, got.body)
	}
}
