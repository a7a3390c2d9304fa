package call

import (
	"strings"
	"unicode"

	"patd/tokens/secret"
)

// SafeText returns a text, or a note in its place when it may hold a secret.
func SafeText(s string) string {
	if secret.MayContainSecret(s) {
		return "[withheld: it holds a secret]"
	}
	return s
}

// maxLogText bounds a text in a log line, in bytes.
const maxLogText = 1000

// LogText is a text of which a part may come from anywhere, as a log line holds it: withheld if it holds a secret, at
// most maxLogText bytes, and without characters that move the cursor, show nothing or reorder what is shown.
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

// loggable is a name that may be written down, or nothing.
func loggable(s string) string {
	if len(s) > 255 || secret.MayContainSecret(s) || LogText(s) != s {
		return ""
	}
	return s
}
