package tokens

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"

	"patd/tokens/secret"
)

// Names that people read in lists follow PRECIS (RFC 8264). A name is stored by the profile OpaqueString (RFC 8265
// section 4.2): as written, in NFC, with plain spaces, and without invisible, reordering or unassigned characters.
// Nickname (RFC 8266), which is for comparing, would also store "①" as "1"; NameKey compares names by its rules. Two
// things that people write into names go beyond the profile: emoji sequences, and the middle dot between any letters.

// readable normalizes a name for people, and returns what is wrong with it, or "". The empty name is readable.
func readable(s string) (name, wrong string) {
	if plainASCII(s) {
		return strings.TrimSpace(s), ""
	}
	name = strings.TrimSpace(norm.NFC.String(spaces(s)))
	profiled := withoutEmojiJoints(name)
	if _, err := precis.OpaqueString.String(profiled); err != nil && profiled != "" {
		return name, "must not hold characters that are invisible, reorder text or are unassigned" + culprit(
			profiled,
		) + "; leave them out"
	}
	if name != "" && !shows(name) {
		return name, "must show something: it holds only characters that are invisible"
	}
	return name, ""
}

func plainASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// spaces replaces the space separators of other scripts by plain spaces.
func spaces(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Zs, r) {
			return ' '
		}
		return r
	}, s)
}

// culprit names the first character that is not allowed in a name by itself.
func culprit(s string) string {
	for _, r := range s {
		if _, err := precis.OpaqueString.String(string(r)); err != nil {
			return fmt.Sprintf(" (%U)", r)
		}
	}
	return ""
}

const (
	joiner     = '\u200d' // ZERO WIDTH JOINER
	textStyle  = '\ufe0e' // VARIATION SELECTOR-15
	emojiStyle = '\ufe0f' // VARIATION SELECTOR-16
	keycap     = '\u20e3'
	middleDot  = '\u00b7'
)

// withoutEmojiJoints removes middle dots, and joiners and variation selectors inside an emoji.
func withoutEmojiJoints(s string) string {
	in := []rune(s)
	out := in[:0:0]
	for i, r := range in {
		next := rune(0)
		if i+1 < len(in) {
			next = in[i+1]
		}
		last := rune(0) // the last character kept
		if len(out) > 0 {
			last = out[len(out)-1]
		}
		switch {
		case r == middleDot:
		case (r == emojiStyle || r == textStyle) && (unicode.In(last, unicode.So, unicode.Sm) || next == keycap):
		case r == joiner && unicode.In(last, unicode.So, unicode.Sk, unicode.Sm) && unicode.Is(unicode.So, next):
		default:
			out = append(out, r)
		}
	}
	return string(out)
}

// shows reports whether a text has a character that is visible by itself.
func shows(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool {
		return unicode.In(r, unicode.L, unicode.N, unicode.P, unicode.S) && !ignorable(r) && !slices.Contains(blanks, r)
	})
}

// blanks are symbols without ink that Unicode does not call ignorable: the empty Braille pattern and the null notehead.
var blanks = []rune{'\u2800', '\U0001d159'}

// ignorable reports whether a character is invisible where it is not supported (property Default_Ignorable_Code_Point),
// or only formats others.
func ignorable(r rune) bool {
	return r > unicode.MaxASCII &&
		unicode.In(r, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point)
}

// reorders reports whether a character changes the display order of the text around it.
func reorders(r rune) bool { return r > unicode.MaxASCII && unicode.Is(unicode.Bidi_Control, r) }

// NameKey folds a name for comparing: two names are the same if their keys are. Case, the width and number of spaces,
// invisible characters and compatibility forms of a character do not count (as in Nickname, RFC 8266 section 2.3, with
// full case folding). It takes any text, also text that readable rejects. The key of a key is itself.
func NameKey(name string) string {
	if plainASCII(name) && name == strings.TrimSpace(name) && !strings.Contains(name, "  ") {
		return strings.ToLower(name)
	}
	key := name
	for range maxFolds { // usually stable after one
		folded := strings.Map(func(r rune) rune {
			if ignorable(r) {
				return -1
			}
			return r
		}, key)
		folded = cases.Fold().String(norm.NFKC.String(folded))
		folded = norm.NFKC.String(strings.ToLower(folded)) // Fold swaps the cases of Cherokee, back and forth
		folded = strings.Join(strings.Fields(folded), " ")
		if folded == key {
			break
		}
		key = folded
	}
	return key
}

const maxFolds = 4

// FormerNameKey is the NameKey of v0.1.0. Rows written by v0.1.0 still hold its keys.
func FormerNameKey(name string) string {
	return norm.NFC.String(cases.Fold().String(norm.NFC.String(name)))
}

// name checks and normalizes a token's name.
func (c *checker) name(s string) string {
	before := len(c.found)
	c.text("name", strings.TrimSpace(norm.NFC.String(s)), maxName, false)
	for i := before; i < len(c.found); i++ {
		if c.found[i].Reason == "TEXT_TOO_LONG" {
			c.found[i].Reason = "NAME_TOO_LONG"
		}
	}
	if len(c.found) > before {
		return s
	}
	s, wrong := readable(s)
	if s == "" || wrong != "" && !shows(s) {
		c.add("name", "NAME_REQUIRED", fmt.Sprintf("give a name of 1 to %d characters that shows something", maxName))
	} else if wrong != "" {
		c.add("name", "TEXT_INVALID", wrong)
	}
	return s
}

// title checks and normalizes an optional name, such as the display name of a feature.
func (c *checker) title(field, s string) string {
	before := len(c.found)
	c.text(field, s, maxName, false)
	if len(c.found) > before {
		return s
	}
	s, wrong := readable(s)
	if wrong != "" {
		c.add(field, "TEXT_INVALID", wrong)
	}
	return s
}

// text checks free text: at most limit characters, none that reorders text, and no control characters except line ends
// and tabs if multiline.
func (c *checker) text(field, s string, limit int, multiline bool) {
	switch {
	case !utf8.ValidString(s):
		c.add(field, "TEXT_INVALID", "must be valid UTF-8")
	case utf8.RuneCountInString(s) > limit:
		c.add(field, "TEXT_TOO_LONG", fmt.Sprintf("at most %d characters", limit))
	case strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) && (!multiline || r != '\n' && r != '\r' && r != '\t')
	}):
		c.add(field, "TEXT_INVALID", "must not hold control characters")
	case strings.ContainsFunc(s, reorders):
		c.add(
			field,
			"TEXT_INVALID",
			"must not hold characters that reorder text (U+061C, U+200E, U+200F, U+202A–U+202E, U+2066–U+2069); leave them out",
		)
	case secret.ContainsSecret(s):
		c.add(
			field,
			"SECRET_IN_FIELD",
			"holds the secret of a token, which must not be stored; revoke that token, it may have been seen",
		)
	}
}
