package secret

import (
	"regexp"
	"strings"
)

// Two functions report whether a text holds a credential. ContainsSecret is for text that is refused or redacted, and
// has no false positives in honest text. MayContainSecret is for text that is withheld as a whole from logs and errors,
// where a false positive costs little.

// shownSecret is how many of a secret's 43 characters, found in a text, count as the secret: so many do not occur by
// chance, and the missing ones might be guessed.
const shownSecret = 32

// ContainsSecret reports whether a text holds what looks like a credential: a secret of any prefix, even one that is
// cut at its end or whose checksum is wrong, or a JWT. Free text that does is refused, so that a credential pasted into
// the wrong field is not stored and shown.
func ContainsSecret(text string) bool {
	_, _, opaque := findOpaque(text)
	return opaque || strings.Contains(text, ".eyJ") && jwtForm.MatchString(text)
}

// MayContainSecret reports whether a text holds what ContainsSecret finds, or what could be a piece of a JWT.
func MayContainSecret(text string) bool {
	return ContainsSecret(text) || strings.Contains(text, ".") && jwtPiece.MatchString(text)
}

// Redact returns a text with everything that ContainsSecret finds replaced by [secret].
func Redact(text string) string {
	var out strings.Builder
	for {
		start, end, found := findOpaque(text)
		if !found {
			break
		}
		out.WriteString(text[:start])
		out.WriteString(redacted)
		text = text[end:]
	}
	out.WriteString(text)
	return jwtForm.ReplaceAllLiteralString(out.String(), redacted)
}

// findOpaque returns where the first patd secret in a text begins and ends.
func findOpaque(text string) (start, end int, found bool) {
	const least = 1 + idLen + 1 + shownSecret
	for at := 0; ; {
		i := strings.IndexByte(text[at:], '_')
		if i < 0 {
			return 0, 0, false
		}
		i += at
		at = i + 1
		if i+least > len(text) || text[i+1+idLen] != '_' || !base62(text[i+2+idLen:i+least]) {
			continue
		}
		if _, ok := decodeWord62(text[i+1 : i+1+idLen]); !ok {
			continue
		}
		for n := min(16, i); n >= 2; n-- {
			if !wellFormedPrefix(text[i-n : i]) {
				continue
			}
			for end = i + least; end < len(text) && digits[text[end]] < 62; end++ {
			}
			return i - n, end, true
		}
	}
}

func base62(s string) bool {
	for i := range len(s) {
		if digits[s[i]] >= 62 {
			return false
		}
	}
	return true
}

var (
	// jwtForm finds a JWT (RFC 7519 section 3): header and claims are JSON objects, and so begin with eyJ.
	jwtForm = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{6,}\.eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]*`)
	// jwtPiece finds a likely piece of a JWT: the base64url form of a JSON object, which begins with {" or with { and
	// white space, then a dot and what follows.
	jwtPiece = regexp.MustCompile(`(?:eyJ|\be[wy])[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{2,}`)
)
