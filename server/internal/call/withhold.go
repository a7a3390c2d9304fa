package call

import (
	"strings"
	"unicode"

	"patd/tokens/secret"
)

// SafeText returns a text, or a note in its place if it may hold a secret.
func SafeText(s string) string {
	if secret.MayContainSecret(s) {
		return "[withheld: it holds a secret]"
	}
	return s
}

// maxLogText bounds a text in a log line, in bytes.
const maxLogText = 1000

// LogText makes a text that may come from any source safe for a log line: it is withheld if it holds a secret, cut to
// maxLogText bytes, and stripped of characters that move the cursor, are invisible or reorder text.
func LogText(s string) string {
	s = SafeText(s)
	if len(s) > maxLogText {
		s = strings.ToValidUTF8(s[:maxLogText], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.C, unicode.Zl, unicode.Zp) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, s)
}

// loggable returns a name that may be logged, or "".
func loggable(s string) string {
	if len(s) > 255 || secret.MayContainSecret(s) || LogText(s) != s {
		return ""
	}
	return s
}
