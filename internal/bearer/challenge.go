package bearer

import (
	"net/url"
	"strings"
)

// Errors of RFC 6750 section 3.1.
const (
	InvalidToken      = "invalid_token"
	InvalidRequest    = "invalid_request"
	InsufficientScope = "insufficient_scope"
)

// Challenge is a challenge for a bearer token, a value of WWW-Authenticate (RFC 6750 section 3, RFC 9728 section 5.1).
// Empty fields are left out.
type Challenge struct {
	Realm       string
	Error       string // empty: there was no token
	Description string
	Scope       string // what the request needs, joined by spaces
	// ResourceMetadata is the address of the metadata of the protected resource.
	ResourceMetadata string
}

// String returns the value of the header.
func (c Challenge) String() string {
	var params []string
	for _, p := range [...]struct{ name, value string }{
		{"realm", c.Realm}, {"error", c.Error}, {"error_description", c.Description}, {"scope", c.Scope},
		{"resource_metadata", c.ResourceMetadata},
	} {
		if p.value != "" {
			params = append(params, p.name+`="`+Printable(p.value)+`"`)
		}
	}
	return strings.TrimSuffix(Bearer+" "+strings.Join(params, ", "), " ")
}

// Printable returns a text as a description of an error may contain it: printable ASCII without quotes and backslashes
// (RFC 6749 section 5.2, RFC 6750 section 3).
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '"' || r == '`':
			return '\''
		case r < ' ' || r > '~' || r == '\\':
			return '?'
		default:
			return r
		}
	}, text)
}

// WellKnownResource is the path of the metadata of protected resources (RFC 9728 section 3).
const WellKnownResource = "/.well-known/oauth-protected-resource"

// ResourceMetadata returns the address of a resource's metadata (RFC 9728 section 3.1), on the resource's own host;
// empty: the resource is no address of http or https.
func ResourceMetadata(resource string) string {
	u, err := url.Parse(resource)
	if err != nil || u.Host == "" || u.User != nil ||
		!strings.EqualFold(u.Scheme, "https") && !strings.EqualFold(u.Scheme, "http") {
		return ""
	}
	address := u.Scheme + "://" + u.Host + WellKnownResource + strings.TrimSuffix(
		"/"+strings.TrimPrefix(u.EscapedPath(), "/"),
		"/",
	)
	if path := u.EscapedPath(); len(path) > 1 && strings.HasSuffix(path, "/") {
		address += "/" // only the slash that ends the host goes
	}
	if u.RawQuery != "" {
		address += "?" + u.RawQuery
	}
	return address
}
