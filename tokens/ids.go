package tokens

import (
	"net/url"
	"strings"
)

// Ids of users, features, audiences and services appear in URL paths. Libraries and proxies remove a segment `.` or
// `..`, and percent-encoding does not help: the URL standard reads `%2e` as a dot there. A request for one record then
// reaches another.

// LostInPath reports whether a URL library or a proxy may read the path segment id as a dot segment (RFC 3986 section
// 3.3): it is `.` or `..`, in any number of percent-encodings, or has such a part between slashes, which some proxies
// decode.
func LostInPath(id string) bool {
	for range maxEncodings {
		for part := range strings.FieldsFuncSeq(id, slash) {
			if part == "." || part == ".." {
				return true
			}
		}
		if !strings.Contains(id, "%") {
			return false
		}
		decoded := decodedOnce(id)
		if decoded == id {
			return false
		}
		id = decoded
	}
	return true // no real id is encoded this often
}

// maxEncodings is how many times an id may be percent-encoded. No proxy decodes so often.
const maxEncodings = 8

func slash(r rune) bool { return r == '/' || r == '\\' }

// decodedOnce decodes valid percent-encodings and leaves the rest as it is, as URL libraries do.
func decodedOnce(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := url.PathUnescape(s[i : i+3]); err == nil {
				b.WriteString(c)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// newID returns what is wrong with an id that is to be stored for the first time; empty: nothing. Existing records with
// such an id can still be read, ended and deleted.
func newID(id string) string {
	switch {
	case LostInPath(id):
		return "an id must not be `.` or `..`, or have such a part between slashes, percent-encoded or not: it would be lost in a URL"
	case strings.ContainsFunc(id, reorders):
		return "an id must not hold characters that reorder text (U+061C, U+200E, U+200F, U+202A–U+202E, U+2066–U+2069)"
	case !shows(id):
		return "an id must show something: this one is only white space, or characters that are invisible"
	default:
		return ""
	}
}
