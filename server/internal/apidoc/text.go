package main

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// paragraphs returns a comment with each paragraph on one line.
func paragraphs(text string) string {
	var out []string
	for p := range strings.SplitSeq(text, "\n\n") {
		if line := strings.Join(strings.Fields(p), " "); line != "" {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n\n")
}

// about returns a comment without the name that it begins with, as Go's comments do.
func about(name, text string) string {
	rest, found := strings.CutPrefix(text, name+" ")
	if !found {
		return text
	}
	first, n := utf8.DecodeRuneInString(rest)
	return string(unicode.ToUpper(first)) + rest[n:]
}

var sentenceEnd = regexp.MustCompile(`[.:;]( |\n|$)`)

// headline returns what a text says before its first full stop, colon or semicolon.
func headline(text string) string {
	if at := sentenceEnd.FindStringIndex(text); at != nil {
		return text[:at[0]]
	}
	return text
}

// lowerFirst returns a name of Go's or the contract's in lowerCamelCase.
func lowerFirst(name string) string {
	first, n := utf8.DecodeRuneInString(name)
	return string(unicode.ToLower(first)) + name[n:]
}
