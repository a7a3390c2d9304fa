package server

import (
	"regexp"
	"strings"

	"patd/tokens"
)

// jwtForm finds a JWT, or enough of one to worry: the base64url form of a JSON object, which begins with {" or with { and
// white space, then a dot and what follows.
var jwtForm = regexp.MustCompile(`(?:eyJ|\be[wy])[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{2,}`)

// holdsSecret tells whether a text holds the secret of a token, or what looks like a JWT.
func holdsSecret(s string) bool {
	return tokens.ContainsSecret(s) || strings.Contains(s, ".") && jwtForm.MatchString(s)
}

// safeText withholds a text that holds a secret.
func safeText(s string) string {
	if holdsSecret(s) {
		return "[withheld: it holds a secret]"
	}
	return s
}

// loggable is a name that may be written down, or nothing.
func loggable(s string) string {
	if len(s) > 255 || holdsSecret(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
		return ""
	}
	return s
}
