package tokens

import (
	"fmt"
	"net/url"
	"strings"
)

// NormalResource returns the form in which resources (RFC 8707) are compared: RFC 3986 section 6.2.2 (the case of
// scheme and host, percent-encoding, dot segments) and section 6.2.3 (the scheme's default port, the empty path). A
// slash at the end of a path stays significant. A text that is not a URI is returned unchanged.
func NormalResource(resource string) string {
	u, err := url.Parse(resource)
	if err != nil || u.Scheme == "" {
		return resource
	}
	// The parts are cut from the text: url.URL keeps some only decoded.
	_, rest, _ := strings.Cut(resource, ":")
	rest, fragment, hasFragment := strings.Cut(rest, "#")
	rest, query, hasQuery := strings.Cut(rest, "?")
	var b strings.Builder
	scheme := strings.ToLower(u.Scheme)
	b.WriteString(scheme + ":")
	path := normalEscapes(rest)
	if hierarchy, ok := strings.CutPrefix(rest, "//"); ok {
		end := strings.IndexByte(hierarchy, '/')
		if end < 0 {
			end = len(hierarchy)
		}
		b.WriteString("//" + normalAuthority(scheme, hierarchy[:end]))
		path = withoutDots(normalEscapes(hierarchy[end:]))
		if path == "" && defaultPort(scheme) != "" {
			path = "/"
		}
	} else if strings.HasPrefix(path, "/") {
		path = withoutDots(path)
	}
	b.WriteString(path)
	if hasQuery {
		b.WriteString("?" + normalEscapes(query))
	}
	if hasFragment {
		b.WriteString("#" + normalEscapes(fragment))
	}
	return b.String()
}

// defaultPort returns the default port of a scheme; empty: patd knows none.
func defaultPort(scheme string) string {
	return map[string]string{"http": "80", "ws": "80", "https": "443", "wss": "443"}[scheme]
}

// normalAuthority normalizes the authority of a URI. The case of the user information is kept.
func normalAuthority(scheme, authority string) string {
	user, host := "", normalEscapes(authority)
	if at := strings.LastIndexByte(host, '@'); at >= 0 {
		user, host = host[:at+1], host[at+1:]
	}
	host = lowerHost(host)
	if colon := strings.LastIndexByte(host, ':'); colon > strings.LastIndexByte(host, ']') {
		if port := host[colon+1:]; port == "" || port == defaultPort(scheme) {
			host = host[:colon]
		}
	}
	return user + host
}

// lowerHost lowers the letters of a host, except those of percent-escapes, which stay capitals.
func lowerHost(host string) string {
	b := []byte(strings.ToLower(host))
	for i := 0; i < len(b); i++ {
		if b[i] == '%' && i+2 < len(b) {
			copy(b[i:i+3], strings.ToUpper(string(b[i:i+3])))
			i += 2
		}
	}
	return string(b)
}

// normalEscapes decodes escapes of unreserved characters (RFC 3986 section 2.3), and writes the others in capitals.
func normalEscapes(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' || i+2 >= len(s) {
			b.WriteByte(s[i])
			continue
		}
		raw, err := url.PathUnescape(s[i : i+3])
		switch {
		case err != nil:
			b.WriteByte(s[i])
			continue
		case unreserved(raw[0]):
			b.WriteString(raw)
		default:
			b.WriteString(fmt.Sprintf("%%%02X", raw[0]))
		}
		i += 2
	}
	return b.String()
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

// withoutDots removes dot segments from an absolute path (RFC 3986 section 5.2.4).
func withoutDots(path string) string {
	if !strings.Contains(path, "/.") {
		return path
	}
	var out []string
	segments := strings.Split(path, "/")[1:]
	for i, s := range segments {
		last := i == len(segments)-1
		switch s {
		case ".", "..":
			if s == ".." && len(out) > 0 {
				out = out[:len(out)-1]
			}
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, s)
		}
	}
	return "/" + strings.Join(out, "/")
}

// resourceFree returns an error if another audience has the resource, in any spelling: a resource in an exchange must
// name one audience. Rows older than this rule may still share one.
func resourceFree(tx ReadTx, e AudienceEntry) error {
	if e.Resource == "" {
		return nil
	}
	found, err := tx.Audiences(AudienceQuery{Resource: e.Resource, Limit: 2})
	if err != nil {
		return fmt.Errorf("read audiences of a resource: %w", err)
	}
	for _, other := range found {
		if other.ID != e.ID {
			taken := Fail(
				CodeExists,
				"RESOURCE_TAKEN",
				"another audience has this resource, perhaps in another spelling (RFC 3986 section 6.2)",
			)
			taken.Metadata = map[string]string{"audience": other.ID}
			return taken
		}
	}
	return nil
}
