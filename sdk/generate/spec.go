package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
)

// spec is what a client has to know of the OpenAPI document.
type spec struct {
	operations []operation
	types      []object // by name
	// leftOut are the operations that have no method, with why.
	leftOut map[string]string
}

// operation is one call.
type operation struct {
	id, method, path, doc string
	params                []string // of the path, in its order
	query                 string   // the type of its query; empty: it has none
	body, result          string   // types; empty: none
	key                   bool     // takes an Idempotency-Key
	repeat                bool     // has the same result, and the same response, when it is repeated
	// For those that return pages: the member with the items and its type, the parameter that asks for a page, and the
	// member with its next value.
	items, item, ask, next string
}

// object is a type with members.
type object struct {
	name, doc string
	fields    []field
}

// field is a member of an object, or a parameter of a query.
type field struct {
	name, doc string
	kind      kind
	of        string // the type, of message and messages
}

type kind int

const (
	text kind = iota
	boolean
	integer
	long // a number in a text
	moment
	duration
	message
	messages
	texts
	labels // a map of texts
	other
)

// repeatable are changes without an Idempotency-Key that may be repeated.
var repeatable = map[string]bool{
	"revokeToken": true, "revokeTokenByPost": true, "suspendUser": true, "resumeUser": true, "setUserFeatures": true,
	"replaceFeature": true, "replaceAudience": true, "replaceWebhook": true, "revokeService": true,
	"revokeServiceByPost": true, "checkAudience": true, "getFeatureImpact": true, "introspect": true,
	"batchIntrospect": true, "reportUses": true, "reportLeaks": true,
}

type schema struct {
	Ref         string            `json:"$ref"`
	Type        string            `json:"type"`
	Format      string            `json:"format"`
	Pattern     string            `json:"pattern"`
	Description string            `json:"description"`
	Enum        []string          `json:"enum"`
	Items       *schema           `json:"items"`
	Properties  map[string]schema `json:"properties"`
	Additional  json.RawMessage   `json:"additionalProperties"`
}

type content map[string]struct {
	Schema schema `json:"schema"`
}

type parameter struct {
	Ref         string `json:"$ref"`
	Name        string `json:"name"`
	In          string `json:"in"`
	Description string `json:"description"`
	Schema      schema `json:"schema"`
}

type document struct {
	Paths map[string]map[string]struct {
		ID          string      `json:"operationId"`
		Summary     string      `json:"summary"`
		Description string      `json:"description"`
		Parameters  []parameter `json:"parameters"`
		Body        struct {
			Content content `json:"content"`
		} `json:"requestBody"`
		Responses map[string]struct {
			Content content `json:"content"`
		} `json:"responses"`
	} `json:"paths"`
	Components struct {
		Schemas    map[string]schema    `json:"schemas"`
		Parameters map[string]parameter `json:"parameters"`
	} `json:"components"`
}

const plain = "application/json"

// read reads a document.
func read(path string) (*spec, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	r := reader{objects: map[string]object{}, out: &spec{leftOut: map[string]string{}}}
	if err := json.Unmarshal(raw, &r.doc); err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	for path, methods := range r.doc.Paths {
		for method, op := range methods {
			if op.ID == "" {
				continue
			}
			var good content
			for status, response := range op.Responses {
				if strings.HasPrefix(status, "2") {
					good = response.Content
				}
			}
			if why := leaveOut(path, op.Body.Content, good); why != "" {
				r.out.leftOut[op.ID] = why
				continue
			}
			r.operation(path, method, op.ID, cmp.Or(op.Summary, op.Description), op.Parameters, op.Body.Content, good)
		}
	}
	for _, o := range r.objects {
		r.out.types = append(r.out.types, o)
	}
	slices.SortFunc(r.out.types, func(a, b object) int { return strings.Compare(a.name, b.name) })
	slices.SortFunc(r.out.operations, func(a, b operation) int { return strings.Compare(a.id, b.id) })
	return r.out, nil
}

// leaveOut returns why an operation has no method; empty: it has one.
func leaveOut(path string, body, good content) string {
	takes := func(c content) bool {
		if len(c) == 0 {
			return true
		}
		media, ok := c[plain]
		return ok && (media.Schema.Ref != "" || media.Schema.Type == "object")
	}
	switch {
	case strings.HasPrefix(path, "/scim/"):
		return "identity providers call it, by SCIM"
	case strings.HasPrefix(path, "/oauth2/"):
		return "OAuth libraries call it, with forms"
	case !strings.HasPrefix(path, "/v1/"):
		return "it is not of the management API: probes, metrics and metadata"
	case path == "/v1/leaks/github" || path == "/v1/security-events":
		return "others call it, with signatures of their own"
	case path == "/v1/forward-auth":
		return "gateways call it"
	case path == "/v1/invalidations":
		return "the verifier calls it: a stream of events"
	case !takes(body) || !takes(good):
		return "its bodies are not JSON"
	}
	return ""
}

type reader struct {
	doc     document
	objects map[string]object
	out     *spec
}

func (r *reader) operation(path, method, id, doc string, params []parameter, body, good content) {
	op := operation{
		id:     id,
		method: strings.ToUpper(method),
		path:   path,
		doc:    doc,
		repeat: method == "get" || repeatable[id],
	}
	query := object{name: upper(id) + "Query", doc: "The parameters of " + id + ". All are optional."}
	asks := ""
	for _, p := range params {
		if p.Ref != "" {
			p = r.doc.Components.Parameters[last(p.Ref)]
		}
		switch {
		case p.Name == "Idempotency-Key":
			op.key = true
		case p.In == "path":
			op.params = append(op.params, p.Name)
		case p.In == "query" && p.Name != "etag": // an option is for it
			if p.Name == "page_token" || p.Name == "after" {
				asks = p.Name
			}
			query.fields = append(query.fields, r.field(p.Name, p.Schema, p.Description))
		}
	}
	slices.SortFunc(op.params, func(a, b string) int {
		return strings.Index(path, "{"+a+"}") - strings.Index(path, "{"+b+"}")
	})
	if len(query.fields) > 0 {
		op.query = query.name
		r.objects[query.name] = query
	}
	if s, ok := body[plain]; ok {
		op.body = r.named(s.Schema, upper(id)+"Request")
	}
	if s, ok := good[plain]; ok {
		op.result = r.named(s.Schema, upper(id)+"Response")
		r.pages(&op, asks)
	}
	r.out.operations = append(r.out.operations, op)
}

// pages finds out whether an operation returns pages.
func (r *reader) pages(op *operation, asks string) {
	for _, f := range r.objects[op.result].fields {
		switch {
		case f.kind == messages && op.items == "":
			op.items, op.item = f.name, f.of
		case asks == "page_token" && f.name == "next_page_token", asks == "after" && f.name == "after":
			op.ask, op.next = asks, f.name
		}
	}
	if op.ask == "" {
		op.items, op.item = "", ""
	}
}

func last(ref string) string { return ref[strings.LastIndex(ref, "/")+1:] }

// named is object for a schema that may have no name in the document.
func (r *reader) named(s schema, name string) string {
	if s.Ref == "" {
		r.doc.Components.Schemas[name] = s
		s = schema{Ref: name}
	}
	return r.object(s)
}

// object returns the name of the type of a reference, and has it written. What is sent has the type of what is
// received.
func (r *reader) object(s schema) string {
	name := strings.TrimSuffix(last(s.Ref), "Input")
	if _, ok := r.objects[name]; ok {
		return name
	}
	r.objects[name] = object{} // it may refer to itself
	o := object{name: name, doc: r.doc.Components.Schemas[last(s.Ref)].Description}
	all := map[string]schema{}
	for _, one := range []string{name, name + "Input"} {
		for n, p := range r.doc.Components.Schemas[one].Properties {
			if _, ok := all[n]; !ok {
				all[n] = p
			}
		}
	}
	for n, p := range all {
		o.fields = append(o.fields, r.field(n, p, p.Description))
	}
	slices.SortFunc(o.fields, func(a, b field) int { return strings.Compare(a.name, b.name) })
	r.objects[name] = o
	return name
}

func (r *reader) field(name string, s schema, doc string) field {
	f := field{name: name, doc: doc, kind: other}
	target := r.doc.Components.Schemas[last(s.Ref)]
	switch {
	case s.Ref != "" && target.Type == "string":
		f.kind = text
		f.doc = strings.TrimSpace(doc + " One of " + strings.Join(target.Enum, ", ") + ".")
	case s.Ref != "" && target.Type == "object":
		f.kind, f.of = message, r.object(s)
	case s.Type == "boolean":
		f.kind = boolean
	case s.Type == "integer":
		f.kind = integer
	case s.Type == "string" && s.Format == "date-time":
		f.kind = moment
	case s.Type == "string" && (strings.HasSuffix(s.Pattern, "s$") || strings.Contains(s.Pattern, "ns|us")):
		f.kind = duration
	case s.Type == "string" && strings.HasPrefix(strings.TrimPrefix(s.Pattern, "^-?"), "[0-9]"),
		s.Type == "string" && strings.HasPrefix(s.Pattern, "^[0-9]"):
		f.kind = long
	case s.Type == "string":
		f.kind = text
	case s.Type == "array" && s.Items.Type == "string", s.Type == "array" && s.Items.Ref != "" &&
		r.doc.Components.Schemas[last(s.Items.Ref)].Type == "string":
		f.kind = texts
	case s.Type == "array" && s.Items.Ref != "":
		f.kind, f.of = messages, r.object(*s.Items)
	case s.Type == "object" && strings.Contains(string(s.Additional), `"string"`):
		f.kind = labels
	}
	return f
}
