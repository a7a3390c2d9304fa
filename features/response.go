package features

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

var (
	// errResponse reports that a callback's answer does not have the agreed form. It quotes nothing of it.
	errResponse = errors.New(`the answer is not of the form {"user": "…", "features": ["…"]}`)
	// errOtherUser reports that an answer names another user than the one asked about.
	errOtherUser = errors.New("the answer names another user than the one asked about")
)

// parseFeatures parses {"user": "alice", "features": ["a", "b"]} and nothing else: no other or repeated member, no
// null, nothing after it, names of exactly that spelling. Leniency here could grant features. The user may be left out;
// one that is named must be the one asked about.
func parseFeatures(body []byte, user string, limit int) (names []string, named bool, err error) {
	if !json.Valid(body) {
		return nil, false, errResponse
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if !next(d, json.Delim('{')) {
		return nil, false, errResponse
	}
	for d.More() {
		member, err := d.Token()
		switch {
		case err == nil && member == "user" && !named:
			if who, err := d.Token(); err != nil || who != user {
				return nil, false, errOtherUser
			}
			named = true
		case err == nil && member == "features" && names == nil:
			if names, err = parseNames(d, limit); err != nil {
				return nil, named, err
			}
		default:
			return nil, named, errResponse
		}
	}
	if names == nil || !next(d, json.Delim('}')) || !ends(d) {
		return nil, named, errResponse
	}
	return names, named, nil
}

// parseNames parses an array of strings; the result is not nil.
func parseNames(d *json.Decoder, limit int) ([]string, error) {
	if !next(d, json.Delim('[')) {
		return nil, errResponse
	}
	names := []string{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		switch {
		case err != nil || !ok:
			return nil, errResponse
		case len(names) == limit:
			return nil, tooMany(limit)
		}
		names = append(names, name)
	}
	if !next(d, json.Delim(']')) {
		return nil, errResponse
	}
	return names, nil
}

// parseUnknown reports whether a body is {"user": "unknown"} and nothing else.
func parseUnknown(body []byte) bool {
	if !json.Valid(body) {
		return false
	}
	d := json.NewDecoder(bytes.NewReader(body))
	for _, want := range []json.Token{json.Delim('{'), "user", "unknown", json.Delim('}')} {
		if !next(d, want) {
			return false
		}
	}
	return ends(d)
}

// next reports whether the next token is the one wanted.
func next(d *json.Decoder, want json.Token) bool {
	got, err := d.Token()
	return err == nil && got == want
}

// ends reports whether nothing follows.
func ends(d *json.Decoder) bool {
	_, err := d.Token()
	return errors.Is(err, io.EOF)
}
