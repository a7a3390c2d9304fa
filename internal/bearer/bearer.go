// Package bearer reads the Authorization header, for servers and clients alike.
//
// RFC 9110 section 11.4 has a scheme, whose case does not count, then one or more spaces, then the credential. RFC 6750
// section 2.1 and RFC 7617 section 2 use that form for Bearer and Basic. A tab is no space. The credential is exactly
// the bytes that follow the spaces.
package bearer

import (
	"encoding/base64"
	"strings"
)

// The schemes, as they are written in headers.
const (
	Bearer = "Bearer"
	Basic  = "Basic"
)

// Split returns the scheme of a header's value and the credential after it. Either may be empty.
func Split(header string) (scheme, credential string) {
	scheme, credential, _ = strings.Cut(header, " ")
	return scheme, strings.TrimLeft(credential, " ")
}

// Token returns the token of a header's value. It reports false where the scheme is not Bearer. A token may be empty.
func Token(header string) (token string, ok bool) {
	scheme, token := Split(header)
	if !strings.EqualFold(scheme, Bearer) {
		return "", false
	}
	return token, true
}

// ParseBasic returns the user and the password of a Basic credential (RFC 7617 section 2). It reports false for one
// that is malformed.
func ParseBasic(credential string) (user, password string, ok bool) {
	raw, err := base64.StdEncoding.DecodeString(credential)
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(raw), ":")
}
