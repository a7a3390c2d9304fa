package features

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// errResponse says that a callback's answer has not the agreed form. It quotes nothing of it.
var errResponse = errors.New(`the answer is not of the form {"features": ["…"]}`)

// parseFeatures reads {"features": ["a", "b"]} and nothing else: no other or repeated member, no null, nothing after it,
// names of exactly that spelling. Leniency here would be somebody's features.
func parseFeatures(body []byte, limit int) ([]string, error) {
	if !json.Valid(body) {
		return nil, errResponse
	}
	d := json.NewDecoder(bytes.NewReader(body))
	for _, want := range []json.Token{json.Delim('{'), "features", json.Delim('[')} {
		if got, err := d.Token(); err != nil || got != want {
			return nil, errResponse
		}
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
	for _, want := range []json.Token{json.Delim(']'), json.Delim('}')} {
		if got, err := d.Token(); err != nil || got != want {
			return nil, errResponse
		}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errResponse
	}
	return names, nil
}
