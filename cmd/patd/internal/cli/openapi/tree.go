package openapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxSize is the size of the largest document that is read, in bytes.
const MaxSize = 16 << 20

const (
	maxDepth = 1000      // of JSON
	maxSteps = 4_000_000 // members and elements that are looked at: an alias can stand for many
	maxRefs  = 16        // one after the other
)

// parse reads a document of YAML or JSON. Scalars stay texts.
func parse(text []byte) (*yaml.Node, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("it has more than %d MiB", MaxSize>>20)
	}
	// YAML's parser refuses some JSON, such as escapes of characters beyond 16 bits.
	if trimmed := bytes.TrimLeft(text, " \t\r\n"); len(trimmed) > 0 && trimmed[0] == '{' && json.Valid(text) {
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		return fromJSON(d, 0)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	if err := d.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, errors.New("it is empty")
	} else if err != nil {
		return nil, err
	}
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("it has more than one document")
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, errors.New("it is empty")
	}
	return doc.Content[0], nil
}

func fromJSON(d *json.Decoder, depth int) (*yaml.Node, error) {
	if depth > maxDepth {
		return nil, errors.New("it is nested too deep")
	}
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch token := token.(type) {
	case json.Delim:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		if token == '{' {
			n.Kind, n.Tag = yaml.MappingNode, "!!map"
		}
		for d.More() {
			child, err := fromJSON(d, depth+1)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		_, err := d.Token() // its end
		return n, err
	case string:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: token}, nil
	case nil:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
	default:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!other", Value: fmt.Sprint(token)}, nil
	}
}

// reader finds its way in a document.
type reader struct {
	root  *yaml.Node
	steps int
}

func (r *reader) step(n int) error {
	if r.steps += n + 1; r.steps > maxSteps {
		return errors.New("the document is too large, or its aliases stand for too much")
	}
	return nil
}

// member is a name and what it stands for.
type member struct {
	name  string
	value *yaml.Node
}

// object returns the members of an object in order. Where says which one it is, for errors. An absent one has none.
func (r *reader) object(n *yaml.Node, where string) ([]member, error) {
	if n = target(n); n == nil {
		return nil, nil
	}
	if n.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s is not an object", where)
	}
	if err := r.step(len(n.Content)); err != nil {
		return nil, err
	}
	out, seen := make([]member, 0, len(n.Content)/2), make(map[string]bool, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := target(n.Content[i])
		switch {
		case key == nil || key.Kind != yaml.ScalarNode:
			return nil, fmt.Errorf("%s has a name that is not a text", where)
		case key.Value == "<<":
			return nil, fmt.Errorf("%s has a merge key (<<), which OpenAPI does not have", where)
		case seen[key.Value]:
			return nil, fmt.Errorf("%s has %q twice", where, key.Value)
		}
		seen[key.Value] = true
		out = append(out, member{key.Value, n.Content[i+1]})
	}
	return out, nil
}

// get returns a member of an object; nil: it has none of that name.
func (r *reader) get(n *yaml.Node, where, name string) (*yaml.Node, error) {
	all, err := r.object(n, where)
	for _, m := range all {
		if m.name == name {
			return m.value, err
		}
	}
	return nil, err
}

// list returns the elements of a list.
func (r *reader) list(n *yaml.Node, where string) ([]*yaml.Node, error) {
	if n = target(n); n == nil || n.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("%s is not a list", where)
	}
	return n.Content, r.step(len(n.Content))
}

// text returns a text.
func text(n *yaml.Node, where string) (string, error) {
	if n = target(n); n == nil || n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return "", fmt.Errorf("%s is not a text", where)
	}
	return n.Value, nil
}

// texts returns the texts of a list.
func (r *reader) texts(n *yaml.Node, where string) ([]string, error) {
	all, err := r.list(n, where)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(all))
	for i, n := range all {
		if out[i], err = text(n, "an element of "+where); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// target returns what an alias stands for; nil for nothing.
func target(n *yaml.Node) *yaml.Node {
	for range maxRefs {
		if n == nil || n.Kind != yaml.AliasNode {
			return n
		}
		n = n.Alias
	}
	return nil
}

// follow returns what an object is, where it is a reference within the document. The objects on the way may have texts
// for people beside the reference.
func (r *reader) follow(n *yaml.Node, where string) (*yaml.Node, error) {
	for range maxRefs {
		all, err := r.object(n, where)
		if err != nil {
			return nil, err
		}
		var ref *yaml.Node
		for _, m := range all {
			if m.name == "$ref" {
				ref = m.value
			}
		}
		if ref == nil {
			return n, nil
		}
		for _, m := range all {
			if m.name != "$ref" && m.name != "summary" && m.name != "description" {
				return nil, fmt.Errorf("%s has %s beside $ref, which has no meaning", where, m.name)
			}
		}
		address, err := text(ref, where+", $ref")
		if err != nil {
			return nil, err
		}
		if n, err = r.pointed(address, where); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s is a reference to references without end", where)
}

// pointed returns what a reference within the document stands for (RFC 6901).
func (r *reader) pointed(address, where string) (*yaml.Node, error) {
	pointer, ok := strings.CutPrefix(address, "#/")
	if !ok {
		return nil, fmt.Errorf(
			"%s: the reference %q leads out of the document; bundle it into one file first",
			where,
			address,
		)
	}
	n := r.root
	for name := range strings.SplitSeq(pointer, "/") {
		name, err := url.PathUnescape(name)
		if err != nil {
			return nil, fmt.Errorf("%s: the reference %q is none", where, address)
		}
		name = strings.ReplaceAll(strings.ReplaceAll(name, "~1", "/"), "~0", "~")
		next, err := r.get(n, where, name)
		if err != nil {
			return nil, err
		}
		if next == nil {
			return nil, fmt.Errorf("%s: the reference %q leads nowhere", where, address)
		}
		n = next
	}
	return n, nil
}
