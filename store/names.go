package store

import (
	"strings"

	"patd/tokens"
)

// nameKey is the form of a token's name by which names are compared, see tokens.NameKey. It is not stored where it is
// the name in lower case.
const nameKey = `CASE t.name_key WHEN '' THEN lower(t.name COLLATE BINARY) ELSE t.name_key END`

// storedNameKey returns what is stored of it. Programs from before migration 26 read it as it is, and may use a database
// that is not a file.
func (t *tx) storedNameKey(name string) string {
	key := tokens.NameKey(name)
	if !t.c.Dialect().Remote && key == lowerASCII(name) {
		return ""
	}
	return key
}

// lowerASCII is lower as the databases have it: only the letters of ASCII have a lower case.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}
