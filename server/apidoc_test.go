package server_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"patd/gen/openapi"
)

type object = map[string]any

// described is the document as a client reads it.
var described = sync.OnceValue(func() object {
	var d object
	if err := json.Unmarshal(openapi.Of("https://patd.example.com/base/"), &d); err != nil {
		panic(err)
	}
	return d
})

// at follows names into the document, and references on the way.
func at(v any, names ...string) any {
	for _, name := range names {
		v = deref(v)
		switch of := v.(type) {
		case object:
			v = of[name]
		default:
			return nil
		}
	}
	return deref(v)
}

func deref(v any) any {
	o, _ := v.(object)
	text, isRef := o["$ref"].(string)
	if !isRef {
		return v
	}
	return at(described(), strings.Split(strings.TrimPrefix(text, "#/"), "/")...)
}

// operation is one operation of the document.
type operation struct {
	verb, path string
	op         object
	pattern    *regexp.Regexp // of the paths that are its
	literal    int            // how long its path is without variables: of two that match, the longer one is meant
}

func newOperation(verb, path string, op object) operation {
	var text strings.Builder
	for i, literal := range pathVariable.Split(path, -1) {
		if i > 0 {
			text.WriteString("[^/]+")
		}
		text.WriteString(regexp.QuoteMeta(literal))
	}
	return operation{
		verb, path, op,
		regexp.MustCompile("^" + text.String() + "$"),
		len(pathVariable.ReplaceAllString(path, "")),
	}
}

func (o operation) String() string { return strings.ToUpper(o.verb) + " " + o.path }

var operations = sync.OnceValue(func() []operation {
	var all []operation
	paths, _ := described()["paths"].(object)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		item, _ := paths[path].(object)
		for _, verb := range slices.Sorted(maps.Keys(item)) {
			op, _ := item[verb].(object)
			all = append(all, newOperation(verb, path, op))
		}
	}
	return all
})

// TestEveryOperationIsDescribed in full: what it is, who may call it, what goes in and comes out, and every error.
func TestEveryOperationIsDescribed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	have, ids, tags := map[string]bool{}, map[any]bool{}, map[any]bool{}
	for _, tag := range described()["tags"].([]any) {
		if at(tag, "description") == "" {
			t.Errorf("%v is not described", tag)
		}
		tags[at(tag, "name")] = true
	}
	for _, o := range operations() {
		have[o.verb+" "+pathVariable.ReplaceAllString(o.path, "{}")] = true
		id, _ := o.op["operationId"].(string)
		if id == "" || ids[id] || strings.Contains(id, "_") {
			t.Errorf("%s: operationId %q", o, id)
		}
		ids[id] = true
		for _, name := range []string{"summary", "description"} {
			if text, _ := o.op[name].(string); len(text) < 5 {
				t.Errorf("%s: %s %q", o, name, text)
			}
		}
		if list, _ := o.op["tags"].([]any); len(list) != 1 || !tags[list[0]] {
			t.Errorf("%s: tags %v", o, list)
		}
		if _, ok := o.op["security"].([]any); !ok {
			t.Errorf("%s: no word of the credential", o)
		}
		checkRequest(t, o)
		checkResponses(t, o)
	}
	unfill := strings.NewReplacer(
		"/target",
		"/{}",
		"/15ODq7pq8Hy",
		"/{}",
		"/no-such-service",
		"/{}",
		"/no-such-audience",
		"/{}",
		"/no-such-webhook",
		"/{}",
		"/no-such-delivery",
		"/{}",
	)
	for _, b := range bindings(t, r) {
		if path := unfill.Replace(b.path); !have[strings.ToLower(b.verb)+" "+path] {
			t.Errorf("%s %s is not in the document", b.verb, path)
		}
	}
	for _, path := range r.srv.Endpoints() {
		if !have["get "+path] && !have["post "+path] {
			t.Errorf("%s is not in the document", path)
		}
	}
	if text := string(openapi.Of("")); strings.Contains(text, "_UNSPECIFIED") {
		t.Error("the document has the name of an unset enum value")
	}
}

var pathVariable = regexp.MustCompile(`\{[a-z_]+\}`)

// checkRequest looks at what goes in.
func checkRequest(t *testing.T, o operation) {
	t.Helper()
	inPath := 0
	parameters, _ := o.op["parameters"].([]any)
	for _, p := range parameters {
		text, _ := at(p, "description").(string)
		if text == "" || at(p, "schema") == nil {
			t.Errorf("%s: parameter %v", o, at(p, "name"))
		}
		if at(p, "in") == "path" {
			if inPath++; at(p, "required") != true || at(p, "example") == nil {
				t.Errorf("%s: parameter %v", o, at(p, "name"))
			}
		}
	}
	if want := len(pathVariable.FindAllString(o.path, -1)); inPath != want {
		t.Errorf("%s: %d parameters in the path, want %d", o, inPath, want)
	}
	body, ok := o.op["requestBody"].(object)
	if !ok {
		return
	}
	for kind, content := range body["content"].(object) {
		schema := content.(object)["schema"].(object)
		if schema["$ref"] == nil || content.(object)["example"] == nil {
			t.Errorf("%s: the %s body has no shared schema, or no example", o, kind)
		}
		for _, fault := range faults(schema, content.(object)["example"], "") {
			t.Errorf("%s: the example of the body: %s", o, fault)
		}
		required, _ := at(schema, "required").([]any)
		if (len(required) > 0) && body["required"] != true {
			t.Errorf("%s: the body may be left out, but %v may not", o, required)
		}
	}
}

// errorForm is the schema of the errors of a path and a media type. SCIM and RFC 8935 have their own.
func errorForm(path, kind string) string {
	switch {
	case kind == "application/scim+json":
		return "#/components/schemas/SCIMError"
	case path == "/v1/security-events":
		return "#/components/schemas/SecurityEventError"
	}
	return "#/components/schemas/Error"
}

// checkResponses looks at what comes out: one success, with an example, and errors of the documented form.
func checkResponses(t *testing.T, o operation) {
	t.Helper()
	successes := 0
	responses, _ := o.op["responses"].(object)
	for code, given := range responses {
		number, err := strconv.Atoi(code)
		if err != nil {
			t.Errorf("%s: response %s", o, code)
			continue
		}
		content, _ := at(given, "content").(object)
		if text, _ := at(given, "description").(string); text == "" || at(given, "headers", "X-Request-Id") == nil {
			t.Errorf("%s %s: no description, or no X-Request-Id", o, code)
		}
		if number < 300 {
			successes++
		}
		if number >= 400 && len(content) == 0 {
			t.Errorf("%s %s: no form of the error", o, code)
		}
		for kind, c := range content {
			schema, example := c.(object)["schema"].(object), c.(object)["example"]
			if example == nil {
				t.Errorf("%s %s %s: no example", o, code, kind)
			}
			for _, fault := range faults(schema, example, "") {
				t.Errorf("%s %s: the example: %s", o, code, fault)
			}
			name, _ := schema["$ref"].(string)
			if number >= 400 && name != errorForm(o.path, kind) && schema["anyOf"] == nil {
				t.Errorf("%s %s: errors of another form, %s", o, code, name)
			}
		}
	}
	want := []string{"400", "415", "429", "503"}
	if strings.HasPrefix(o.path, "/v1/") {
		want = append(want, "500")
	}
	if s, _ := o.op["security"].([]any); len(s) > 0 {
		want = append(want, "401")
	}
	for _, code := range want {
		if responses[code] == nil {
			t.Errorf("%s: no response %s", o, code)
		}
	}
	if successes != 1 {
		t.Errorf("%s: %d successes", o, successes)
	}
}

// TestTheDocumentNamesTheServer that it is of.
func TestTheDocumentNamesTheServer(t *testing.T) {
	t.Parallel()
	got := at(described()["servers"].([]any)[0], "variables", "issuer", "default")
	if got != "https://patd.example.com/base" {
		t.Errorf("the server is at %v", got)
	}
}

// TestWhatTheDocumentDoesNotRequireMayBeLeftOut sends the least that each operation takes.
func TestWhatTheDocumentDoesNotRequireMayBeLeftOut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.features("alice", "billing.read", "reports.read")
	_, bearer := r.mint("bearer", "t")
	for _, o := range operations() {
		body, _ := o.op["requestBody"].(object)
		content, _ := at(body, "content", "application/json").(object)
		if content == nil || strings.HasPrefix(o.path, "/v1/leaks") {
			continue
		}
		path := o.path
		parameters, _ := o.op["parameters"].([]any)
		for _, p := range parameters {
			if at(p, "in") == "path" {
				value := url.PathEscape(at(p, "example").(string))
				path = strings.Replace(path, "{"+at(p, "name").(string)+"}", value, 1)
			}
		}
		least := object{}
		for _, name := range asList(at(content["schema"], "required")) {
			least[name] = content["example"].(object)[name]
		}
		text, err := json.Marshal(least)
		must(t, err)
		sent := string(text)
		if body["required"] != true {
			sent = ""
		}
		credential := r.admin
		if strings.HasPrefix(path, "/v1/self") {
			credential = bearer
		}
		got := r.rest(strings.ToUpper(o.verb), path, credential, sent)
		reason, _ := got.reason()
		switch {
		case got.code < 300, got.code == http.StatusNotFound:
		case reason == "SCOPES_REQUIRED" || reason == "TOKEN_NOT_ACTIVE": // what the user holds, not what was sent
		case reason == "IDLE_TTL_REQUIRED": // what the server has no setting of
		case reason == "PLAN_REQUIRED", reason == "USERS_REQUIRED": // one of two fields, of which neither is required
		default:
			t.Errorf("%s with %s: %d %s", o, sent, got.code, got.body)
		}
	}
}

func asList(v any) []string {
	list, _ := v.([]any)
	var names []string
	for _, e := range list {
		names = append(names, e.(string))
	}
	return names
}

// conforms holds a response to the document: its code is in it, and its body is of the form that it says. A path or a
// method that is not in the document has nothing to be held to.
func conforms(t testing.TB, method, path string, got answerOf) {
	t.Helper()
	path, _, _ = strings.Cut(path, "?")
	verb := strings.ToLower(method)
	var responses object
	most := -1
	for _, o := range operations() {
		if (o.verb == verb || o.verb == "get" && verb == "head") && o.literal > most && o.pattern.MatchString(path) {
			responses, _ = o.op["responses"].(object)
			most = o.literal
		}
	}
	if responses == nil || got.code == 499 {
		return
	}
	given := deref(responses[fmt.Sprint(got.code)])
	if given == nil {
		t.Errorf("%s %s: %d is not in the document: %s", method, path, got.code, got.body)
		return
	}
	kind, _, _ := strings.Cut(got.header.Get("Content-Type"), ";")
	content, _ := at(given, "content", kind).(object)
	if method == http.MethodHead || kind != "application/json" {
		return
	}
	if content == nil {
		t.Errorf("%s %s: %d has a body, which is not in the document", method, path, got.code)
		return
	}
	var body any
	if err := json.Unmarshal([]byte(got.body), &body); err != nil {
		t.Errorf("%s %s: %v", method, path, err)
	}
	for _, fault := range faults(content["schema"], body, "") {
		t.Errorf("%s %s: %d %s in %s", method, path, got.code, fault, got.body)
	}
}

// faults lists where a value is not of a schema, as far as the document's schemas go.
func faults(schema, v any, place string) []string {
	s, _ := deref(schema).(object)
	if options, ok := s["anyOf"].([]any); ok {
		var first []string
		for i, option := range options {
			found := faults(option, v, place)
			if len(found) == 0 {
				return nil
			}
			if i == 0 {
				first = found
			}
		}
		return first
	}
	wrong := func(format string, args ...any) []string {
		return []string{place + ": " + fmt.Sprintf(format, args...)}
	}
	switch s["type"] {
	case "object":
		return objectFaults(s, v, place)
	case "array":
		list, ok := v.([]any)
		if !ok {
			return wrong("%v is no list", v)
		}
		var found []string
		for i, item := range list {
			found = append(found, faults(s["items"], item, fmt.Sprintf("%s[%d]", place, i))...)
		}
		return found
	case "boolean":
		if _, ok := v.(bool); !ok {
			return wrong("%v is neither true nor false", v)
		}
	case "integer":
		if n, ok := v.(float64); !ok || n != float64(int64(n)) {
			return wrong("%v is no whole number", v)
		}
	case "string":
		text, ok := v.(string)
		if !ok {
			return wrong("%v is no text", v)
		}
		if pattern, has := s["pattern"].(string); has && !regexp.MustCompile(pattern).MatchString(text) {
			return wrong("%q is not of the form %s", text, pattern)
		}
		if _, err := time.Parse(time.RFC3339Nano, text); s["format"] == "date-time" && err != nil {
			return wrong("%q is no time", text)
		}
		if enum, has := s["enum"].([]any); has && !slices.Contains(enum, any(text)) {
			return wrong("%q is none of %v", text, enum)
		}
	default:
		return wrong("the schema has type %v", s["type"])
	}
	return nil
}

func objectFaults(s object, v any, place string) []string {
	fields, ok := v.(object)
	if !ok {
		return []string{fmt.Sprintf("%s: %v is no object", place, v)}
	}
	var found []string
	for _, name := range asList(s["required"]) {
		if _, has := fields[name]; !has {
			found = append(found, place+"."+name+" is missing")
		}
	}
	properties, _ := s["properties"].(object)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		property, known := properties[name]
		if !known {
			property = s["additionalProperties"]
		}
		switch property {
		case nil:
			found = append(found, place+"."+name+" is not in the document")
		case true:
		default:
			found = append(found, faults(property, fields[name], place+"."+name)...)
		}
	}
	return found
}
