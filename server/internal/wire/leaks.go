package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	patdv1 "patd/gen/patd/v1"
)

// LostText replaces an invalid character (U+FFFD), and an item that is not a text.
const LostText = string(utf8.RuneError)

// ReadLeaksJSON reads the well-formed items of a report that the JSON decoder rejects; false: the whole report is
// malformed.
func ReadLeaksJSON(text []byte, m proto.Message) bool {
	r, ok := m.(*patdv1.ReportLeaksRequest)
	if !ok {
		return false
	}
	in := json.NewDecoder(bytes.NewReader(text))
	takes := func(want json.Token) bool {
		got, err := in.Token()
		return err == nil && got == want
	}
	if !takes(json.Delim('{')) || !takes("secrets") || !takes(json.Delim('[')) {
		return false
	}
	var items []string
	for in.More() {
		var raw json.RawMessage
		if err := in.Decode(&raw); err != nil {
			return false
		}
		item := LostText
		if raw[0] == '"' && json.Unmarshal(raw, &item) != nil {
			item = LostText
		}
		items = append(items, item)
	}
	if !takes(json.Delim(']')) || !takes(json.Delim('}')) {
		return false
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return false
	}
	r.Secrets = items
	return true
}

// ReadLeaks reads a report on the wire that the decoder rejects because a text is not UTF-8; false: the whole report is
// malformed.
func ReadLeaks(b []byte, r *patdv1.ReportLeaksRequest) bool {
	var items []string
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		size := protowire.ConsumeFieldValue(number, kind, b)
		if size < 0 {
			return false
		}
		if number == fieldSecrets && kind == protowire.BytesType {
			item, _ := protowire.ConsumeBytes(b)
			items = append(items, strings.ToValidUTF8(string(item), LostText))
		}
		b = b[size:]
	}
	r.Secrets = items
	return true
}

// fieldSecrets is the number of secrets in proto/patd/v1/leak.proto.
const fieldSecrets = 1
