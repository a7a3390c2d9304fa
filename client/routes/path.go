package routes

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Path is a template of paths, and what each method needs there.
type Path struct {
	Template string
	Segments []Segment
	// Slash reports that it ends with a slash.
	Slash   bool
	Methods map[string][]string
	folded  []Segment // in small letters
}

// Segment is a part of a path between two slashes: a text, or a parameter with texts around it.
type Segment struct {
	// Prefix and Suffix stand before and behind the parameter. Without one, Prefix is the whole segment.
	Prefix, Suffix string
	Param          bool
}

// MaxPath is the length of the longest template, in bytes.
const MaxPath = 2048

// ParsePath parses a template: segments of letters, digits and -._~!$&'()*+,=:@, and at most one parameter in each,
// such as /users/{id} or /users/{id}:suspend.
func ParsePath(template string) (Path, error) {
	p := Path{Template: template}
	rest, ok := strings.CutPrefix(template, "/")
	switch {
	case !ok:
		return p, errors.New("a path begins with a slash")
	case len(template) > MaxPath:
		return p, fmt.Errorf("a path has at most %d bytes", MaxPath)
	}
	texts := strings.Split(rest, "/")
	if texts[len(texts)-1] == "" {
		texts, p.Slash = texts[:len(texts)-1], true
	}
	for _, text := range texts {
		s, err := parseSegment(text)
		if err != nil {
			return p, err
		}
		p.Segments, p.folded = append(
			p.Segments,
			s,
		), append(
			p.folded,
			Segment{lower(s.Prefix), lower(s.Suffix), s.Param},
		)
	}
	return p, nil
}

func parseSegment(text string) (Segment, error) {
	prefix, rest, param := strings.Cut(text, "{")
	name, suffix, closed := strings.Cut(rest, "}")
	switch {
	case text == "":
		return Segment{}, errors.New("there are two slashes in a row")
	case text == "." || text == "..":
		return Segment{}, errors.New("a segment of dots has another meaning in paths")
	case param && (!closed || name == "" || strings.ContainsFunc(name, func(r rune) bool { return !plain(r, "-._") })):
		return Segment{}, fmt.Errorf("%q: a parameter is a name of letters, digits and -._ in braces", text)
	case param && strings.ContainsAny(suffix, "{}"):
		return Segment{}, fmt.Errorf("%q: there may be one parameter between two slashes", text)
	case strings.ContainsFunc(prefix+suffix, func(r rune) bool { return !plain(r, "-._~!$&'()*+,=:@") }):
		return Segment{}, fmt.Errorf("%q: a path has letters, digits, and -._~!$&'()*+,=:@", text)
	}
	return Segment{prefix, suffix, param}, nil
}

// plain reports whether a character is a letter or a digit of ASCII, or one of more.
func plain(r rune, more string) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(more, r)
}

// shape is equal for templates of the same paths.
func (p Path) shape() string {
	var out strings.Builder
	for _, s := range p.folded {
		out.WriteString("/" + s.Prefix)
		if s.Param {
			out.WriteString("{}" + s.Suffix)
		}
	}
	return out.String()
}

// compare orders templates by how specific they are, segment by segment from the left: a text comes before a parameter
// with texts around it, of these the one with more text first, and a parameter alone comes last.
func (p Path) compare(q Path) int {
	if c := cmp.Compare(len(p.Segments), len(q.Segments)); c != 0 {
		return c
	}
	for i, a := range p.Segments {
		b := q.Segments[i]
		if c := cmp.Or(cmp.Compare(a.class(), b.class()), cmp.Compare(b.size(), a.size())); c != 0 {
			return c
		}
	}
	return cmp.Compare(p.shape(), q.shape())
}

// class is 0 for a text, 1 for a parameter with texts around it, 2 for a parameter alone.
func (s Segment) class() int {
	switch {
	case !s.Param:
		return 0
	case s.size() > 0:
		return 1
	}
	return 2
}

// size is the length of the text around a parameter. Texts without one are all of one size.
func (s Segment) size() int {
	if !s.Param {
		return 0
	}
	return len(s.Prefix) + len(s.Suffix)
}

// place is the path of a request.
type place struct {
	raw, decoded []string // its segments
	slash        bool
}

// split splits the path of a request; false: it is closed, for it could be read in more than one way.
func split(path string) (place, bool) {
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return place{}, false
	}
	at := place{raw: strings.Split(rest, "/")}
	if at.raw[len(at.raw)-1] == "" {
		at.raw, at.slash = at.raw[:len(at.raw)-1], true
	}
	for _, raw := range at.raw {
		text, ok := decode(raw)
		if !ok {
			return place{}, false
		}
		at.decoded = append(at.decoded, lower(text))
	}
	return at, true
}

// decode decodes a segment; false: it is empty or dots, it has a character that ends a segment somewhere or that no
// path has, or an escape that stands for a character which needs none.
func decode(raw string) (string, bool) {
	if raw == "" || raw == "." || raw == ".." {
		return "", false
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c == '#' || c == '?' { // no part of a path, and some routers end one there
			return "", false
		}
		if c == '%' {
			if i+2 >= len(raw) {
				return "", false
			}
			code, err := strconv.ParseUint(raw[i+1:i+3], 16, 8)
			if c = byte(code); err != nil || plain(rune(c), "-._~") || c == '/' {
				return "", false
			}
			i += 2
		}
		if c < ' ' || c == 0x7f || c == '\\' || c == ';' {
			return "", false
		}
		out = append(out, c)
	}
	return string(out), true
}

// lower turns the letters of ASCII into small ones.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// fits reports whether a request is one of this path, whatever its case and the slash at its end. It has as many
// segments.
func (p Path) fits(at place) bool {
	for i, s := range p.folded {
		if !s.holds(at.decoded[i]) {
			return false
		}
	}
	return true
}

// spelled reports whether a request that fits is spelled as the template is.
func (p Path) spelled(at place) bool {
	if p.Slash != at.slash {
		return false
	}
	for i, s := range p.Segments {
		raw := at.raw[i]
		if s.Param && (!strings.HasPrefix(raw, s.Prefix) || !strings.HasSuffix(raw, s.Suffix)) ||
			!s.Param && raw != s.Prefix {
			return false
		}
	}
	return true
}

// Overlaps reports whether there may be a path that fits both, whatever its case.
func (p Path) Overlaps(q Path) bool {
	if len(p.Segments) != len(q.Segments) {
		return false
	}
	for i, a := range p.folded {
		if !a.overlaps(q.folded[i]) {
			return false
		}
	}
	return true
}

func (s Segment) overlaps(o Segment) bool {
	switch {
	case !s.Param:
		return o.holds(s.Prefix)
	case !o.Param:
		return s.holds(o.Prefix)
	}
	return (strings.HasPrefix(s.Prefix, o.Prefix) || strings.HasPrefix(o.Prefix, s.Prefix)) &&
		(strings.HasSuffix(s.Suffix, o.Suffix) || strings.HasSuffix(o.Suffix, s.Suffix))
}

// holds reports whether a text is that of the segment, or fits its parameter with the texts around it.
func (s Segment) holds(text string) bool {
	if !s.Param {
		return text == s.Prefix
	}
	return len(text) > s.size() && strings.HasPrefix(text, s.Prefix) && strings.HasSuffix(text, s.Suffix)
}
