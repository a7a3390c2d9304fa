package gateway

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"text/template"

	"patd/client/routes"
)

//go:embed templates
var files embed.FS

// names are the gateways and their templates.
var names = map[string]string{ //nolint:gochecknoglobals // a table
	"nginx": "nginx.conf", "caddy": "Caddyfile", "traefik": "traefik.yaml", "envoy": "envoy.yaml",
	"apache": "apache-auth-openidc.conf", "apache-oauth2": "apache-oauth2.conf",
}

// Names returns the names of the gateways.
func Names() []string {
	return []string{"nginx", "caddy", "traefik", "envoy", "apache", "apache-oauth2"}
}

// Configuration returns the configuration of the named gateway.
func Configuration(name string, t *routes.Table) ([]byte, error) {
	file, ok := names[name]
	if !ok {
		return nil, fmt.Errorf("no gateway is called %q: there are %s", name, strings.Join(Names(), ", "))
	}
	s := newSite(t)
	if strings.HasPrefix(name, "apache") {
		for _, scopes := range s.sets {
			for _, scope := range scopes {
				if strings.ContainsFunc(scope, func(r rune) bool { return !word(r, "._:/-") }) {
					return nil, fmt.Errorf(
						"the scope %q cannot be written in Apache's configuration: it has something other "+
							"than letters, digits and ._:/-",
						scope,
					)
				}
			}
		}
	}
	parsed, err := template.New(file).Funcs(template.FuncMap{
		"query":    query,
		"quote":    quote,
		"apache":   pattern,
		"join":     func(scopes []string) string { return strings.Join(scopes, " ") },
		"priority": func(path, method int) int { return (len(s.Paths)-path)*100 + 99 - method },
	}).ParseFS(files, "templates/"+file)
	if err != nil {
		return nil, fmt.Errorf("read the template of %s: %w", name, err)
	}
	var out bytes.Buffer
	if err := parsed.Execute(&out, s); err != nil {
		return nil, fmt.Errorf("write the configuration of %s: %w", name, err)
	}
	return out.Bytes(), nil
}

// site is what the templates are filled with.
type site struct {
	// Paths are those of the table that need a rule, the most specific first.
	Paths []path
	// Needless is a pattern of escapes that stand for characters which need none: two spellings of one path.
	Needless string
	// Encoded are patterns of the escapes of characters that the paths have, for a gateway that does not decode.
	Encoded string

	sets [][]string
}

// path is a path and its rules.
type path struct {
	// Pattern is a regular expression of all paths that fit, Loose one of them with or without a slash at the end.
	Pattern, Loose string
	// Methods are those that have a scope.
	Methods []method
	// Close reports that a rule must close what the methods leave.
	Close bool
}

type method struct {
	Method string
	Scopes []string
}

// set is a list of scopes that routes need.
type set struct {
	Number int
	Scopes []string
}

// Letters, digits and -._~ (RFC 3986 section 2.3).
const needless = `%(2[de]|3[0-9]|[46][1-9a-f]|[57][0-9a]|5f|7e)`

func newSite(t *routes.Table) *site {
	s := &site{Needless: needless}
	all := t.Paths()
	var special []byte
	for i, p := range all {
		out := path{Pattern: expression(p), Loose: strings.TrimSuffix(expression(p), "/") + "/?"}
		for _, name := range slices.Sorted(maps.Keys(p.Methods)) {
			if scopes := p.Methods[name]; len(scopes) > 0 {
				out.Methods = append(out.Methods, method{name, scopes})
				s.add(scopes)
			}
		}
		out.Close = slices.ContainsFunc(all[i+1:], p.Overlaps)
		for _, segment := range p.Segments {
			for _, c := range []byte(segment.Prefix + segment.Suffix) {
				if !word(rune(c), "-._~") && !slices.Contains(special, c) {
					special = append(special, c)
				}
			}
		}
		if out.Close || len(out.Methods) > 0 {
			s.Paths = append(s.Paths, out)
		}
	}
	slices.Sort(special)
	for _, c := range special {
		s.Encoded += fmt.Sprintf("|%%%02x", c)
	}
	return s
}

func (s *site) add(scopes []string) {
	if !slices.ContainsFunc(s.sets, func(known []string) bool { return slices.Equal(known, scopes) }) {
		s.sets = append(s.sets, scopes)
	}
}

// Sets returns the lists of scopes that routes need.
func (s *site) Sets() []set {
	out := make([]set, len(s.sets))
	for i, scopes := range s.sets {
		out[i] = set{i, scopes}
	}
	return out
}

// Number returns the number of a list of scopes.
func (s *site) Number(scopes []string) int {
	return slices.IndexFunc(s.sets, func(known []string) bool { return slices.Equal(known, scopes) })
}

// Backwards returns the paths with the most specific last.
func (s *site) Backwards() []path {
	out := slices.Clone(s.Paths)
	slices.Reverse(out)
	return out
}

// expression returns a regular expression of the paths that fit a template, without anchors. A parameter ends before a
// semicolon, at which some upstreams end a segment.
func expression(p routes.Path) string {
	var out strings.Builder
	for _, s := range p.Segments {
		out.WriteString("/" + pattern(s.Prefix))
		if s.Param {
			out.WriteString("[^/;[:cntrl:]]+" + pattern(s.Suffix))
		}
	}
	if p.Slash {
		out.WriteByte('/')
	}
	return out.String()
}

// pattern returns a regular expression of a text, without backslashes, which each configuration reads in its own way.
func pattern(text string) string {
	var out strings.Builder
	for _, r := range text {
		if word(r, "-_~,=:@/!&'") {
			out.WriteRune(r)
		} else {
			out.WriteString("[" + string(r) + "]")
		}
	}
	return out.String()
}

// word reports whether a character is a letter or a digit of ASCII, or one of more.
func word(r rune, more string) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(more, r)
}

// query returns scopes as the value of a parameter of a URL.
func query(scopes []string) string { return url.QueryEscape(strings.Join(scopes, " ")) }

// quote returns a text as JSON, which is YAML too.
func quote(text string) (string, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(text)
	return strings.TrimSpace(out.String()), err
}
