package main

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"patd/server/internal/call"
	"patd/tokens"
)

// service adds a service: a tag, and an operation for each way to call its methods over REST.
func (d *document) service(s protoreflect.ServiceDescriptor) error {
	if s.ParentFile().Package() != "patd.v1" {
		return nil
	}
	tag := strings.TrimSuffix(string(s.Name()), "Service")
	d.Tags = append(d.Tags, object{"name": tag, "description": about(string(s.Name()), comment(s))})
	for i := range s.Methods().Len() {
		m := s.Methods().Get(i)
		rule, _ := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
		if rule == nil {
			continue // gRPC only
		}
		for n, binding := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
			if err := d.operation(m, tag, binding, n > 0); err != nil {
				return fmt.Errorf("%s: %w", m.FullName(), err)
			}
		}
	}
	return nil
}

// binding is one way to call a method over REST.
type binding struct {
	method      protoreflect.MethodDescriptor
	right       call.Right
	verb, path  string // in lower case
	body, reply string // the field that is the body; empty: none, *: the whole message
	inPath      map[string]bool
}

var pathVariable = regexp.MustCompile(`\{([a-z_]+)\}`)

func (d *document) operation(m protoreflect.MethodDescriptor, tag string, rule *annotations.HttpRule, more bool) error {
	b := binding{method: m, body: rule.GetBody(), reply: rule.GetResponseBody(), inPath: map[string]bool{}}
	switch pattern := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		b.verb, b.path = "get", pattern.Get
	case *annotations.HttpRule_Put:
		b.verb, b.path = "put", pattern.Put
	case *annotations.HttpRule_Post:
		b.verb, b.path = "post", pattern.Post
	case *annotations.HttpRule_Delete:
		b.verb, b.path = "delete", pattern.Delete
	case *annotations.HttpRule_Patch:
		b.verb, b.path = "patch", pattern.Patch
	default:
		return fmt.Errorf("rule %v is not known here", rule)
	}
	for _, found := range pathVariable.FindAllStringSubmatch(b.path, -1) {
		b.inPath[found[1]] = true
	}
	full := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
	right, known := d.rights[full]
	if !known {
		return fmt.Errorf("has no row in the table of rights (server/internal/call)")
	}
	b.right = right
	id := lowerFirst(string(m.Name()))
	if more {
		id += "By" + strings.ToUpper(b.verb[:1]) + b.verb[1:]
	}
	if d.ids[id] {
		return fmt.Errorf("there are two operations %s", id)
	}
	d.ids[id] = true
	text := about(string(m.Name()), comment(m))
	op := object{
		"operationId": id,
		"tags":        []string{tag},
		"security":    security(right),
		"summary":     headline(text),
		"description": text,
	}
	if err := d.fill(op, b); err != nil {
		return err
	}
	item, _ := d.Paths[b.path].(object)
	if item == nil {
		item = object{}
		d.Paths[b.path] = item
	}
	return put(item, b.verb, op)
}

// fill adds what goes in and comes out.
func (d *document) fill(op object, b binding) error {
	parameters, err := d.parameters(b)
	if err != nil {
		return err
	}
	if len(parameters) > 0 {
		op["parameters"] = parameters
	}
	if b.body != "" {
		body, err := d.body(b)
		if err != nil {
			return err
		}
		op["requestBody"] = body
	}
	op["responses"], err = d.responses(b)
	return err
}

const timestamp = "google.protobuf.Timestamp"

// parameters returns the parameters in path, query and headers.
func (d *document) parameters(b binding) ([]object, error) {
	var all []object
	fields := b.method.Input().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		name, in := string(f.Name()), "query"
		switch {
		case b.inPath[name]:
			in = "path"
		case b.body != "" || f.IsMap() || !f.IsList() && f.Message() != nil && f.Message().FullName() != timestamp:
			continue // an entry of a map is a parameter of its own name, which a document cannot list
		}
		schema, err := d.field(f, request)
		if err != nil {
			return nil, err
		}
		p := object{"name": name, "in": in, "schema": schema, "description": comment(f)}
		if in == "path" {
			p["required"] = true
			schema["minLength"] = 1
			p["example"] = d.exampleOf(f)
		}
		all = append(all, p)
	}
	if b.right.TakesKey() {
		all = append(all, ref("parameters", "IdempotencyKey"))
	}
	if b.right.Conditional {
		all = append(all, ref("parameters", "IfMatch"), ref("parameters", "IfNoneMatch"))
	}
	return all, nil
}

// body returns the body of a request. It is required if any of its fields is.
func (d *document) body(b binding) (object, error) {
	in := b.method.Input()
	m, named := in, string(in.Name())
	var schema object
	var err error
	if b.body == "*" {
		schema, err = d.object(m, request, b.inPath)
	} else {
		m = in.Fields().ByName(protoreflect.Name(b.body)).Message()
		schema, err = d.object(m, request, nil)
		if required := identifiers(m, b.inPath); err == nil && len(required) > 0 {
			schema["required"] = required
		}
	}
	if err != nil {
		return nil, err
	}
	if err := put(d.Components.Schemas, named, schema); err != nil {
		return nil, err
	}
	must := schema["required"] != nil
	if b.body != "*" && hasBehavior(in.Fields().ByName(protoreflect.Name(b.body)), annotations.FieldBehavior_REQUIRED) {
		must = true
	}
	return object{
		"required": must,
		"content": object{"application/json": object{
			"schema": ref("schemas", named), "example": d.example(m, request, b.inPath),
		}},
	}, nil
}

// identifiers returns the fields that name a record, except those that the path holds.
func identifiers(m protoreflect.MessageDescriptor, inPath map[string]bool) []string {
	var names []string
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if hasBehavior(f, annotations.FieldBehavior_IDENTIFIER) && !inPath[string(f.Name())] {
			names = append(names, string(f.Name()))
		}
	}
	return names
}

// security returns the credentials of which one is needed. A service needs one of the permissions.
func security(r call.Right) []object {
	all := []object{}
	if r.Anyone || r.Open {
		return all
	}
	for p := tokens.PermIntrospect; p < tokens.PermAdmin; p <<= 1 {
		if r.Allows(tokens.Actor{Kind: tokens.ServiceActor, Permissions: p}) {
			all = append(all, object{"serviceToken": p.Names()})
		}
	}
	if len(all) == 0 && r.Allows(tokens.Actor{Kind: tokens.ServiceActor, Permissions: tokens.PermAdmin}) {
		all = append(all, object{"serviceToken": tokens.PermAdmin.Names()})
	}
	if r.Allows(tokens.Actor{Kind: tokens.UserActor}) {
		all = append(all, object{"userToken": []string{}})
	}
	if r.Allows(tokens.Actor{Kind: tokens.TokenActor}) {
		all = append(all, object{"personalToken": []string{}})
	}
	return all
}

// created and removed are the methods whose success is not 200; the gateway has the same list.
var (
	created = []string{"CreateFeature", "CreateAudience", "CreateWebhook"}
	removed = []string{"DeleteFeature", "DeleteAudience", "DeleteWebhook"}
)

// unset are the methods that are NOT_FOUND while a setting of the server is not given.
var unset = []string{"GetSignIn"}

// responses returns the responses of an operation: its success, and every error that it may have.
func (d *document) responses(b binding) (object, error) {
	out := b.method.Output()
	all := object{}
	for _, code := range failures(b) {
		all[fmt.Sprint(code)] = ref("responses", fmt.Sprintf("Error%d", code))
	}
	if b.right.Conditional && b.right.Reads {
		all["304"] = ref("responses", "NotModified")
	}
	name := string(b.method.Name())
	if slices.Contains(removed, name) {
		all["204"] = object{"description": "It is gone.", "headers": headers("X-Request-Id")}
		return all, nil
	}
	text := headline(about(string(out.Name()), comment(out))) + "."
	success := object{"description": text, "headers": headers(d.headersOf(b)...)}
	if b.reply != "" {
		out = out.Fields().ByName(protoreflect.Name(b.reply)).Message()
	}
	schema, err := d.message(out, response)
	if err != nil {
		return nil, err
	}
	success["content"] = object{"application/json": object{"schema": schema, "example": d.example(out, response, nil)}}
	code := http.StatusOK
	if slices.Contains(created, name) {
		code = http.StatusCreated
	}
	all[fmt.Sprint(code)] = success
	return all, nil
}

// failures returns the HTTP codes of the errors that a call may have.
func failures(b binding) []int {
	public := b.right.Anyone || b.right.Open
	codes := map[int]bool{
		http.StatusBadRequest: true, http.StatusUnsupportedMediaType: true, http.StatusTooManyRequests: true,
		http.StatusInternalServerError: true, http.StatusServiceUnavailable: true, http.StatusGatewayTimeout: true,
		http.StatusRequestEntityTooLarge: true, // whether or not the call has a use for a body
		http.StatusUnauthorized:          !public, http.StatusForbidden: !public,
		http.StatusNotFound:           len(b.inPath) > 0 || slices.Contains(unset, string(b.method.Name())),
		http.StatusConflict:           !b.right.Reads,
		http.StatusPreconditionFailed: b.right.Conditional,
	}
	maps.DeleteFunc(codes, func(_ int, may bool) bool { return !may })
	return slices.Sorted(maps.Keys(codes))
}

// headersOf returns the headers of a success.
func (d *document) headersOf(b binding) []string {
	all := []string{"X-Request-Id"}
	fields := b.method.Output().Fields()
	if b.right.Conditional {
		all = append(all, "ETag")
	}
	if b.verb == "get" && (fields.ByName("next_page_token") != nil || fields.ByName("after") != nil) {
		all = append(all, "Link")
	}
	if b.right.TakesKey() {
		all = append(all, "Idempotency-Replayed")
	}
	if b.right.Allows(tokens.Actor{Kind: tokens.TokenActor}) {
		all = append(all, "Patd-Token-Expires-At", "Patd-Token-Renew")
	}
	return all
}

// headers returns references to headers.
func headers(names ...string) object {
	all := object{}
	for _, name := range names {
		all[name] = ref("headers", name)
	}
	return all
}
