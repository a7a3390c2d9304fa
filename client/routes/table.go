package routes

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// Version is the version of the format.
const Version = 1

// MaxSize is the size of the largest table that is read, in bytes.
const MaxSize = 8 << 20

// Route says which scopes a request needs.
type Route struct {
	Method string   `json:"method"`
	Path   string   `json:"path"`   // a template, such as /users/{id}
	Scopes []string `json:"scopes"` // all of them are needed; none: the route is closed
}

// Table is an immutable table of routes. The zero Table has none, and closes everything.
type Table struct {
	routes []Route
	paths  map[int][]Path // by the number of their segments, the most specific first
}

// New makes a table.
func New(all []Route) (*Table, error) {
	t := &Table{paths: map[int][]Path{}}
	byShape := map[string]*Path{}
	for _, r := range all {
		if !validMethod(r.Method) {
			return nil, fmt.Errorf("route %q %q: the method must be capital letters", r.Method, r.Path)
		}
		p, err := ParsePath(r.Path)
		if err != nil {
			return nil, fmt.Errorf("route %s %q: %w", r.Method, r.Path, err)
		}
		if err := validScopes(r.Scopes); err != nil {
			return nil, fmt.Errorf("route %s %s: %w", r.Method, r.Path, err)
		}
		known, ok := byShape[p.shape()]
		if !ok {
			known = &p
			known.Methods = map[string][]string{}
			byShape[p.shape()] = known
		}
		if known.Template != p.Template {
			return nil, fmt.Errorf(
				"%s and %s are the same path: they differ in the names of parameters, in case, or in a "+
					"slash at the end",
				known.Template,
				p.Template,
			)
		}
		if _, ok := known.Methods[r.Method]; ok {
			return nil, fmt.Errorf("%s %s is listed twice", r.Method, r.Path)
		}
		known.Methods[r.Method] = slices.Clone(r.Scopes)
	}
	for _, p := range slices.SortedFunc(maps.Values(byShape), func(a, b *Path) int { return a.compare(*b) }) {
		t.paths[len(p.Segments)] = append(t.paths[len(p.Segments)], *p)
		for _, method := range slices.Sorted(maps.Keys(p.Methods)) {
			scopes := p.Methods[method]
			t.routes = append(t.routes, Route{method, p.Template, append([]string{}, scopes...)})
		}
	}
	slices.SortStableFunc(t.routes, func(a, b Route) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Method, b.Method))
	})
	return t, nil
}

// Parse reads a table in JSON.
func Parse(text []byte) (*Table, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("a table of routes has at most %d bytes", MaxSize)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	var table map[string]json.RawMessage
	if err := d.Decode(&table); err != nil {
		return nil, fmt.Errorf("read a table of routes: %w", err)
	}
	if d.More() {
		return nil, errors.New("read a table of routes: there is more after it")
	}
	var version int
	var listed []map[string]json.RawMessage
	// The decoder would take names in any case, and skip what it does not know: a later version may restrict by that.
	if err := members(table, map[string]any{"version": &version, "routes": &listed}); err != nil {
		return nil, fmt.Errorf("read a table of routes: %w", err)
	}
	if version != Version {
		return nil, fmt.Errorf(
			"read a table of routes: version %d, and this library knows version %d",
			version,
			Version,
		)
	}
	all := make([]Route, len(listed))
	for i, m := range listed {
		r := &all[i]
		if err := members(m, map[string]any{"method": &r.Method, "path": &r.Path, "scopes": &r.Scopes}); err != nil {
			return nil, fmt.Errorf("read a table of routes: route %d: %w", i+1, err)
		}
	}
	return New(all)
}

// ReadFile reads a table from a file.
func ReadFile(name string) (*Table, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read a table of routes: %w", err)
	}
	return Parse(text)
}

// members decodes the members of an object, which must be those that are wanted.
func members(object map[string]json.RawMessage, wanted map[string]any) error {
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		text, ok := object[name]
		if !ok || string(text) == "null" {
			return fmt.Errorf("%q is missing", name)
		}
		if err := json.Unmarshal(text, wanted[name]); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if wanted[name] == nil {
			return fmt.Errorf("%q is not known", name)
		}
	}
	return nil
}

// MarshalJSON writes the table by path and method, a route a line, as files have it.
func (t *Table) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	fmt.Fprintf(&out, `{"version": %d, "routes": [`, Version)
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	for i, r := range t.routes {
		if i > 0 {
			out.Truncate(out.Len() - 1) // the encoder's line feed
			out.WriteByte(',')
		}
		out.WriteString("\n  ")
		if err := enc.Encode(r); err != nil {
			return nil, err
		}
	}
	out.WriteString("]}\n")
	return out.Bytes(), nil
}

// Routes returns the routes, by path and method.
func (t *Table) Routes() []Route {
	out := slices.Clone(t.routes)
	for i := range out {
		out[i].Scopes = slices.Clone(out[i].Scopes)
	}
	return out
}

// Paths returns the paths in the order in which they are tried: of those that a request's path fits, the first decides.
func (t *Table) Paths() []Path {
	var out []Path
	for _, n := range slices.Sorted(maps.Keys(t.paths)) {
		out = append(out, t.paths[n]...)
	}
	return out
}

// Find returns the scopes that a request needs, at least one; false: it is closed. The path is that of the request
// line, without the query and as it was written, which is [net/url.URL.EscapedPath].
func (t *Table) Find(method, path string) (scopes []string, ok bool) {
	at, ok := split(path)
	if !ok {
		return nil, false
	}
	for _, p := range t.paths[len(at.decoded)] {
		if !p.fits(at) {
			continue
		}
		scopes := p.Methods[method]
		return scopes, p.spelled(at) && len(scopes) > 0
	}
	return nil, false
}

func validMethod(s string) bool {
	return s != "" && len(s) <= 32 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") == ""
}

// validScopes reports what is no list of scopes (RFC 6749 section 3.3).
func validScopes(scopes []string) error {
	for i, s := range scopes {
		bad := strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' })
		if s == "" || len(s) > 128 || bad {
			return fmt.Errorf(
				"%q is no scope: 1 to 128 printable ASCII characters without space, quote and backslash",
				s,
			)
		}
		if slices.Contains(scopes[:i], s) {
			return fmt.Errorf("the scope %s is named twice", s)
		}
	}
	return nil
}
