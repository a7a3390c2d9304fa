package call

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestALogTextIsShortAndOneLine(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.OneOf(rapid.String(), rapid.StringOfN(rapid.Rune(), 900, 1100, -1), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).
			Draw(t, "text")
		out := LogText(in)
		if len(out) > maxLogText+len("…") || !utf8.ValidString(out) {
			t.Fatalf("%d bytes of %d: %q", len(out), len(in), out)
		}
		if strings.ContainsFunc(out, func(r rune) bool { return unicode.In(r, unicode.C, unicode.Zl, unicode.Zp) }) {
			t.Fatalf("%q", out)
		}
	})
	for in, want := range map[string]string{
		"plain – text": "plain – text", "a\nb": "a?b", "a\u202eb\u200bc\u2028": "a?b?c?", "\x1b[2J": "?[2J",
		"of pat_15ODq7pq8Hy_0Eoh211G4c8wtVWM00my5rsNSFlKgaWqQ4mb8gdEqno0QDLb0": "[withheld: it holds a secret]",
	} {
		if got := LogText(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
