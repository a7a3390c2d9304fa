package openapi

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// extension names the scopes of an operation, or of all operations of a path.
const extension = "x-patd-scope"

// scheme is a security scheme.
type scheme struct {
	kind string // as in the document
	ours bool   // it takes bearer tokens, and may name scopes
}

// readSchemes reads the security schemes, and what OAuth flows say about scopes.
func (d *document) readSchemes(components *yaml.Node) error {
	d.schemes, d.descriptions = map[string]scheme{}, map[string]string{}
	n, err := d.get(components, "components", "securitySchemes")
	if err != nil {
		return err
	}
	all, err := d.object(n, "securitySchemes")
	if err != nil {
		return err
	}
	for _, m := range all {
		where := "the security scheme " + m.name
		n, err := d.follow(m.value, where)
		if err != nil {
			return err
		}
		members := map[string]*yaml.Node{}
		object, err := d.object(n, where)
		if err != nil {
			return err
		}
		for _, m := range object {
			members[m.name] = m.value
		}
		kind, err := text(members["type"], "the type of "+where)
		if err != nil {
			return err
		}
		s := scheme{kind, kind == "oauth2" || kind == "openIdConnect"}
		if kind == "http" {
			name, err := text(members["scheme"], "the scheme of "+where)
			if err != nil {
				return err
			}
			s = scheme{"http " + name, strings.EqualFold(name, "bearer")}
		}
		d.schemes[m.name] = s
		if kind == "oauth2" {
			if err := d.readFlows(members["flows"], where); err != nil {
				return err
			}
		}
	}
	return nil
}

// readFlows reads the descriptions of scopes. Of several, the first counts.
func (d *document) readFlows(flows *yaml.Node, where string) error {
	all, err := d.object(flows, "flows of "+where)
	if err != nil {
		return err
	}
	for _, flow := range all {
		if strings.HasPrefix(flow.name, "x-") {
			continue
		}
		n, err := d.get(flow.value, "a flow of "+where, "scopes")
		if err != nil {
			return err
		}
		scopes, err := d.object(n, "the scopes of "+where)
		if err != nil {
			return err
		}
		for _, s := range scopes {
			if n := target(
				s.value,
			); d.descriptions[s.name] == "" && n != nil && n.Kind == yaml.ScalarNode &&
				n.Tag != "!!null" {
				d.descriptions[s.name] = strings.TrimSpace(n.Value)
			}
		}
	}
	return nil
}

// extended returns the scopes that the extension names.
func (d *document) extended(n *yaml.Node, where string) (scopes []string, why string, err error) {
	where += ", " + extension
	if t := target(n); t != nil && t.Kind == yaml.ScalarNode {
		one, err := text(t, where)
		return []string{one}, "", err
	}
	scopes, err = d.texts(n, where)
	return set(scopes), extension + " is empty", err
}

// secured returns the scopes that requirements name. Why says why there are none.
func (d *document) secured(n *yaml.Node, where string) (scopes []string, why string, err error) {
	where += ", security"
	requirements, err := d.list(n, where)
	if err != nil {
		return nil, "", err
	}
	if len(requirements) == 0 {
		return nil, "the document lets everyone in, with an empty security", nil
	}
	var ways [][]string // those by a bearer token
	var others []string // kinds of schemes that are not ours
	for _, n := range requirements {
		requirement, err := d.object(n, where)
		if err != nil {
			return nil, "", err
		}
		var way, beside []string
		ours := false
		for _, m := range requirement {
			names, err := d.texts(m.value, where+", "+m.name)
			if err != nil {
				return nil, "", err
			}
			s, ok := d.schemes[m.name]
			switch {
			case !ok:
				return nil, "", fmt.Errorf("%s: there is no security scheme %q", where, m.name)
			case s.ours:
				ours, way = true, append(way, names...)
			default:
				beside = append(beside, s.kind)
			}
		}
		others = append(others, beside...)
		if !ours {
			continue
		}
		if len(beside) > 0 {
			d.notes = append(
				d.notes,
				fmt.Sprintf(
					"%s asks for %s beside the token, which patd does not check",
					where,
					strings.Join(beside, ", "),
				),
			)
		}
		way = set(way)
		if !slices.ContainsFunc(ways, func(w []string) bool { return slices.Equal(w, way) }) {
			ways = append(ways, way)
		}
	}
	switch {
	case len(ways) > 1:
		return nil, "the document lets one choose between scopes; name those that are needed in " + extension, nil
	case len(ways) == 1 && len(ways[0]) == 0:
		return nil, "the document asks for a token, and for no scope", nil
	case len(ways) == 1:
		return ways[0], "", nil
	case len(others) > 0:
		return nil, "the document asks for " + strings.Join(set(others), ", ") + ", which has no scopes", nil
	}
	return nil, "the document lets everyone in, with an empty requirement", nil
}

// set returns texts sorted, each once.
func set(in []string) []string {
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}
