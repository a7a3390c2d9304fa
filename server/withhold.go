package server

import (
	"strings"

	"patd/tokens"
)

// safeText returns a text, or a note in its place when it may hold a secret.
func safeText(s string) string {
	if tokens.MayContainSecret(s) {
		return "[withheld: it holds a secret]"
	}
	return s
}

// loggable is a name that may be written down, or nothing.
func loggable(s string) string {
	if len(s) > 255 || tokens.MayContainSecret(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
		return ""
	}
	return s
}
