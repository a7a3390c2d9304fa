package openapi_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"patd/client/routes"
	"patd/cmd/patd/internal/cli/openapi"
)

const schemes = `
components:
  securitySchemes:
    oauth: {type: oauth2, flows: {implicit: {scopes: {a: From OAuth, b: ""}}, x-more: 1, password: {scopes: {b: Second}}}}
    oidc: {type: openIdConnect, openIdConnectUrl: "https://example.com"}
    bearer: {type: http, scheme: Bearer}
    basic: {type: http, scheme: basic}
    key: {type: apiKey, in: header, name: X}
    ref: {$ref: "#/components/securitySchemes/oauth"}
`

// TestSecurityDecidesWhichScopesARouteNeeds reads one operation with a security, and one of the whole document.
func TestSecurityDecidesWhichScopesARouteNeeds(t *testing.T) {
	for _, c := range []struct{ security, scopes, why string }{
		{`[{oauth: [b, a]}]`, "a b", ""},
		{`[{oidc: [a]}]`, "a", ""},
		{`[{bearer: [a]}]`, "a", ""},
		{`[{ref: [a]}]`, "a", ""},
		{`[{oauth: [a], bearer: [b]}]`, "a b", ""},
		{`[{oauth: [a]}, {oidc: [a]}]`, "a", ""},
		{`[{oauth: [a]}, {key: []}]`, "a", ""},
		{`[{oauth: [a]}, {}]`, "a", ""},
		{`[{oauth: [a]}, {oauth: [b]}]`, "", "choose"},
		{`[{oauth: [a]}, {oauth: []}]`, "", "choose"},
		{`[{bearer: []}]`, "", "no scope"},
		{`[{key: [a]}]`, "", "apiKey"},
		{`[{basic: [a]}]`, "", "http basic"},
		{`[{}]`, "", "everyone"},
		{`[]`, "", "everyone"},
	} {
		own := "openapi: 3.0.3\nsecurity: [{oauth: [wrong]}]\npaths: {/x: {get: {security: " + c.security + "}}}" + schemes
		global := "openapi: 3.1.1\nsecurity: " + c.security + "\npaths: {/x: {get: {}}}" + schemes
		for _, text := range []string{own, global} {
			d, err := openapi.Read([]byte(text), nil)
			if err != nil {
				t.Errorf("%s: %v", c.security, err)
				continue
			}
			scopes, _ := d.Table.Find("GET", "/x")
			if got := strings.Join(scopes, " "); got != c.scopes {
				t.Errorf("%s: needs %q, want %q", c.security, got, c.scopes)
			}
			if (c.why != "") != (len(d.Closed) == 1) || c.why != "" && !strings.Contains(d.Closed[0].Why, c.why) {
				t.Errorf("%s: closed are %v, want one because of %q", c.security, d.Closed, c.why)
			}
		}
	}
}

func TestTheExtensionIsMoreThanSecurity(t *testing.T) {
	d, err := openapi.Read([]byte(`
openapi: 3.0.0
x-note: &scopes [c, b, c]
security: [{oauth: [a]}]
paths:
  x-internal: {get: {}}
  /x:
    x-patd-scope: *scopes
    get: {}
    put: {x-patd-scope: d}
    patch: {x-patd-scope: []}
    summary: not an operation
    parameters: []
  /y/{id}: {get: {}}
  /z: {trace: {security: [{key: []}]}}`+schemes), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []routes.Route{
		{Method: "GET", Path: "/x", Scopes: []string{"b", "c"}}, {Method: "PATCH", Path: "/x"},
		{Method: "PUT", Path: "/x", Scopes: []string{"d"}}, {Method: "GET", Path: "/y/{id}", Scopes: []string{"a"}},
		{Method: "TRACE", Path: "/z"},
	}
	if diff := cmp.Diff(
		want,
		d.Table.Routes(),
		cmp.Transformer("list", func(s []string) string { return strings.Join(s, " ") }),
	); diff != "" {
		t.Error(diff)
	}
	if d.Scopes[0].Description != "From OAuth" || d.Scopes[1].Name != "b" || d.Scopes[1].Description != "Second" {
		t.Errorf("scopes: %+v", d.Scopes)
	}
}

func TestADocumentThatIsNotUnderstoodIsRefused(t *testing.T) {
	const head = "openapi: 3.0.0\n"
	for text, why := range map[string]string{
		"":                                       "empty",
		"a: b: c":                                "not a document",
		"[]":                                     "not an object",
		"openapi: 3.2.0":                         `OpenAPI "3.2.0"`,
		"openapi: 3.0.0\n---\nopenapi: 3.0.0":    "more than one document",
		head + "paths: {}":                       "no operations",
		head + "paths: []":                       "paths is not an object",
		head + "paths: {/x: {get: {}, get: {}}}": "twice",
		head + "paths: {/x: {get: {x-patd-scope: {a: b}}}}":                          "not a list",
		head + "paths: {/x: {get: {x-patd-scope: }}}":                                "not a",
		head + "paths: {/x: {get: {x-patd-scope: [[a]]}}}":                           "not a text",
		head + "paths: {/x: {get: {x-patd-scope: ''}}}":                              "no scopes such as",
		head + "paths: {/x: {get: {security: {a: []}}}}":                             "not a list",
		head + "paths: {/x: {get: {security: [{a: []}]}}}":                           `no security scheme "a"`,
		head + "paths: {/x: {get: {security: [{a: b}]}}}":                            "not a list",
		head + "paths: {/x: {get: text}}":                                            "GET /x is not an object",
		head + "paths: {/x: &a {<<: *a}}":                                            "",
		head + "b: &b {get: {}}\npaths: {/x: {<<: *b}}":                              "merge key",
		head + "paths: {/x: {$ref: '#/paths/~1x'}}":                                  "without end",
		head + "paths: {/x: {$ref: '#/paths/~1y'}}":                                  "leads nowhere",
		head + "paths: {/x: {$ref: 'other.yaml#/x'}}":                                "leads out of the document",
		head + "paths: {/x: {$ref: '#/a', get: {}}}":                                 "beside $ref",
		head + "paths: {/x: {get: {x-patd-scope: a}}, /X: {put: {x-patd-scope: a}}}": "are the same path",
		head + "paths: {/{a}: {get: {x-patd-scope: a}}, '/{b}': {get: {}}}":          "",
		head + "paths: {'/{a}': {get: {}}, '/{b}': {get: {}}}":                       "are the same path",
		head + "servers: [{url: 'https://{host}/v1'}]\npaths: {/x: {get: {}}}":       "--base-path",
		head + "servers: [{url: v1}]\npaths: {/x: {get: {}}}":                        "--base-path",
		head + "paths: {/x\"y: {get: {}}}":                                           "a path has letters",
		head + "paths: {'/x;return 200': {get: {}}}":                                 "a path has letters",
		head + "paths: {\"/x\\n\": {get: {}}}":                                       "a path has letters",
		head + "paths: {/x: {get: {x-patd-scope: \"a\\nb\"}}}":                       "no scopes such as",
		head + "components: {securitySchemes: {a: {}}}\npaths: {/x: {get: {}}}":      "not a text",
		`{"openapi": "3.0.0", "paths": {"/x": {"get": {}}}, "paths": {}}`:            "twice",
		strings.Repeat(" ", openapi.MaxSize+1):                                       "more than 16 MiB",
	} {
		if _, err := openapi.Read([]byte(text), nil); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%.80s: %v, want an error about %q", text, err, why)
		}
	}
}

// TestAliasesDoNotGrow: each path stands for a list of as many scopes.
func TestAliasesDoNotGrow(t *testing.T) {
	var text strings.Builder
	text.WriteString("openapi: 3.0.0\nx-s: &s [" + strings.Repeat("a,", 50_000) + "a]\npaths:\n")
	for i := range 5000 {
		fmt.Fprintf(&text, "  /x%d: {get: {x-patd-scope: *s}}\n", i)
	}
	if _, err := openapi.Read([]byte(text.String()), nil); err == nil || !strings.Contains(err.Error(), "aliases") {
		t.Errorf("it is read: %v", err)
	}
}

// FuzzDocument: whatever is read, each route is either closed and said to be, or needs scopes that are proposed.
func FuzzDocument(f *testing.F) {
	f.Add(
		[]byte(
			"openapi: 3.0.0\nsecurity: [{oauth: [a]}]\npaths: {/x: {get: {}}, '/{y}': {$ref: '#/paths/~1x'}}" + schemes,
		),
	)
	f.Add(
		[]byte(
			`{"openapi": "3.1.0", "servers": [{"url": "/v1"}], "paths": {"/x": {"x-patd-scope": ["a", "b"], "put": {}}}}`,
		),
	)
	f.Add([]byte("openapi: 3.1.0\nx: &x {get: &y {x-patd-scope: [a]}, put: *y}\npaths: {/x: *x, /y: *x}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := openapi.Read(text, nil)
		if err != nil {
			return
		}
		proposed, closed := map[string]bool{}, map[string]bool{}
		for _, s := range d.Scopes {
			proposed[s.Name] = true
		}
		for _, c := range d.Closed {
			closed[c.Method+" "+c.Path] = true
		}
		for _, r := range d.Table.Routes() {
			if closed[r.Method+" "+r.Path] != (len(r.Scopes) == 0) {
				t.Errorf("%+v, and closed are %v", r, d.Closed)
			}
			for _, s := range r.Scopes {
				if !proposed[s] {
					t.Errorf("%s is not proposed", s)
				}
			}
		}
	})
}
