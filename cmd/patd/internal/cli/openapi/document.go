package openapi

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"patd/client/routes"
	"patd/tokens"
)

// Document is what an OpenAPI document says about scopes.
type Document struct {
	Table *routes.Table
	// Scopes are those that routes need, by name.
	Scopes []Scope
	// Closed are the routes without a scope, by path and method.
	Closed []Closed
	// Notes are what patd does not check although the document asks for it.
	Notes []string
}

// Scope is a scope that routes need.
type Scope struct {
	Name        string
	Description string // that of an OAuth flow; empty: there is none
	Routes      []string
}

// Closed is a route that no token opens.
type Closed struct {
	Method, Path, Why string
}

// methods are the members of a path item that are operations.
var methods = []string{
	"get",
	"put",
	"post",
	"delete",
	"options",
	"head",
	"patch",
	"trace",
} //nolint:gochecknoglobals // a table

// Read reads a document. Base stands before each path; nil: the path of the servers' URLs does.
func Read(text []byte, base *string) (*Document, error) {
	root, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("not a document of YAML or JSON: %w", err)
	}
	r := &reader{root: root}
	if err := r.version(); err != nil {
		return nil, err
	}
	d := &document{reader: r, scopes: map[string]*Scope{}, base: base}
	if err := d.read(); err != nil {
		return nil, err
	}
	return d.made()
}

func (r *reader) version() error {
	n, err := r.get(r.root, "the document", "openapi")
	if err != nil {
		return err
	}
	if n == nil {
		if old, err := r.get(r.root, "the document", "swagger"); err == nil && old != nil {
			return errors.New("this is Swagger 2.0; convert it to OpenAPI 3 first")
		}
		return errors.New("not an OpenAPI document: it has no openapi")
	}
	v, err := text(n, "openapi")
	if err != nil {
		return err
	}
	if !strings.HasPrefix(v, "3.0.") && !strings.HasPrefix(v, "3.1.") {
		return fmt.Errorf("OpenAPI %q: 3.0 and 3.1 are read", v)
	}
	return nil
}

// document is a document that is read.
type document struct {
	*reader
	base         *string
	schemes      map[string]scheme
	descriptions map[string]string
	global       *yaml.Node // the security of operations that have none of their own

	routes []routes.Route
	closed []Closed
	scopes map[string]*Scope
	notes  []string
}

func (d *document) read() error {
	components, err := d.get(d.root, "the document", "components")
	if err != nil {
		return err
	}
	if err := d.readSchemes(components); err != nil {
		return err
	}
	if d.global, err = d.get(d.root, "the document", "security"); err != nil {
		return err
	}
	if d.base == nil {
		base, err := d.basePath()
		if err != nil {
			return err
		}
		d.base = &base
	}
	paths, err := d.get(d.root, "the document", "paths")
	if err != nil {
		return err
	}
	all, err := d.object(paths, "paths")
	if err != nil {
		return err
	}
	for _, p := range all {
		if strings.HasPrefix(p.name, "x-") {
			continue
		}
		if err := d.readPath(p.name, p.value); err != nil {
			return err
		}
	}
	if len(d.routes) == 0 {
		return errors.New("the document has no operations")
	}
	return nil
}

// basePath returns the path that the URLs of all servers have.
func (d *document) basePath() (string, error) {
	const ask = "; say with --base-path what stands before the paths"
	n, err := d.get(d.root, "the document", "servers")
	if n == nil || err != nil {
		return "", err
	}
	all, err := d.list(n, "servers")
	if err != nil {
		return "", err
	}
	base := ""
	for i, n := range all {
		n, err := d.get(n, "a server", "url")
		if err != nil {
			return "", err
		}
		address, err := text(n, "the url of a server")
		if err != nil {
			return "", err
		}
		u, err := url.Parse(address)
		if err != nil || strings.ContainsAny(address, "{}") || u.Path != "" && !strings.HasPrefix(u.Path, "/") {
			return "", fmt.Errorf("the server %q has no plain path%s", address, ask)
		}
		path := strings.TrimSuffix(u.EscapedPath(), "/")
		if i > 0 && path != base {
			return "", fmt.Errorf("the servers have different paths, %q and %q%s", base, path, ask)
		}
		base = path
	}
	return base, nil
}

func (d *document) readPath(path string, n *yaml.Node) error {
	n, err := d.follow(n, path)
	if err != nil {
		return err
	}
	item, err := d.object(n, path)
	if err != nil {
		return err
	}
	members := map[string]*yaml.Node{}
	for _, m := range item {
		members[m.name] = m.value
	}
	for _, method := range methods {
		operation, ok := members[method]
		if !ok {
			continue
		}
		where := strings.ToUpper(method) + " " + path
		own := map[string]*yaml.Node{}
		all, err := d.object(operation, where)
		if err != nil {
			return err
		}
		for _, m := range all {
			own[m.name] = m.value
		}
		if err := d.readOperation(where, strings.ToUpper(method), *d.base+path, members, own); err != nil {
			return err
		}
	}
	return nil
}

func (d *document) readOperation(where, method, path string, item, own map[string]*yaml.Node) error {
	if own["servers"] != nil || item["servers"] != nil {
		d.notes = append(d.notes, where+" has servers of its own, which are not read")
	}
	var scopes []string
	var why string
	var err error
	switch {
	case own[extension] != nil:
		scopes, why, err = d.extended(own[extension], where)
	case item[extension] != nil:
		scopes, why, err = d.extended(item[extension], where)
	case own["security"] != nil:
		scopes, why, err = d.secured(own["security"], where)
	case d.global != nil:
		scopes, why, err = d.secured(d.global, where)
	default:
		why = "the document says nothing about its security"
	}
	if err != nil {
		return err
	}
	for _, name := range scopes {
		if !tokens.ValidScope(name) {
			return fmt.Errorf(
				"%s: patd has no scopes such as %q: 1 to 128 printable ASCII characters without space, quote and "+
					"backslash, and no part of dots between slashes",
				where,
				name,
			)
		}
		if d.scopes[name] == nil {
			d.scopes[name] = &Scope{Name: name, Description: d.descriptions[name]}
		}
		d.scopes[name].Routes = append(d.scopes[name].Routes, method+" "+path)
	}
	if len(scopes) == 0 {
		d.closed = append(d.closed, Closed{method, path, why})
	}
	d.routes = append(d.routes, routes.Route{Method: method, Path: path, Scopes: scopes})
	return nil
}

// made returns what was read, in order.
func (d *document) made() (*Document, error) {
	table, err := routes.New(d.routes)
	if err != nil {
		return nil, err
	}
	out := &Document{Table: table, Closed: d.closed, Notes: d.notes}
	slices.SortFunc(out.Closed, func(a, b Closed) int {
		return strings.Compare(a.Path+"\x00"+a.Method, b.Path+"\x00"+b.Method)
	})
	for _, name := range slices.Sorted(maps.Keys(d.scopes)) {
		slices.Sort(d.scopes[name].Routes)
		out.Scopes = append(out.Scopes, *d.scopes[name])
	}
	return out, nil
}
