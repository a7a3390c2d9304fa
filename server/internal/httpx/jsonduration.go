package httpx

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"patd/tokens"
)

// decode reads a JSON text as a message. Durations may be written as on the command line, "180d" or "12h", besides
// protobuf's own form, "15552000s".
func decode(text []byte, m proto.Message) error {
	err := protojson.Unmarshal(text, m)
	if err == nil {
		return nil
	}
	plain := plainDurations(text, m.ProtoReflect().Descriptor())
	if plain == nil {
		return err //nolint:wrapcheck // it is a verdict; its text is not used
	}
	return protojson.Unmarshal(plain, m) //nolint:wrapcheck // as above
}

// plainDurations returns the text of a message with its durations in protobuf's form; nil: it has none, or it is
// malformed. All else stays as it is, byte for byte.
func plainDurations(text []byte, d protoreflect.MessageDescriptor) []byte {
	r := durationReader{text: text, in: json.NewDecoder(bytes.NewReader(text))}
	if !r.value(d) || r.copied == 0 {
		return nil
	}
	return append(r.out, text[r.copied:]...)
}

// durationReader reads a JSON text along its message type, and copies it with other durations.
type durationReader struct {
	text   []byte
	in     *json.Decoder
	out    []byte
	copied int // bytes of text that are in out
}

// value reads one value: an object of a type, or a list of such. A nil type stands for a value without durations. It
// returns false when the text is malformed.
func (r *durationReader) value(d protoreflect.MessageDescriptor) bool {
	if d == nil {
		var skipped json.RawMessage
		return r.in.Decode(&skipped) == nil
	}
	token, err := r.in.Token()
	switch {
	case err != nil:
		return false
	case token == json.Delim('{'):
		for r.in.More() {
			name, err := r.in.Token()
			key, isKey := name.(string)
			if err != nil || !isKey || !r.field(fieldNamed(d, key)) {
				return false
			}
		}
	case token == json.Delim('['):
		for r.in.More() {
			if !r.value(d) {
				return false
			}
		}
	case d.FullName() == durationName:
		if written, ok := token.(string); ok {
			r.duration(written)
		}
		return true
	default:
		return true
	}
	_, err = r.in.Token() // the end of the object or list
	return err == nil
}

// field reads the value of a field; nil: of an unknown one.
func (r *durationReader) field(f protoreflect.FieldDescriptor) bool {
	if f == nil || f.IsMap() || isTime(f) {
		return r.value(nil)
	}
	return r.value(f.Message())
}

// duration replaces the text that was read last, if it is a duration.
func (r *durationReader) duration(written string) {
	d, err := tokens.ParseDuration(written)
	if err != nil {
		return
	}
	end := int(r.in.InputOffset())
	start := end - len(strconv.Quote(written)) // ParseDuration takes no character that JSON has to escape
	if start < 0 || string(r.text[start:end]) != strconv.Quote(written) {
		return
	}
	r.out = append(r.out, r.text[r.copied:start]...)
	r.out = fmt.Appendf(r.out, `"%d.%09ds"`, d/time.Second, d%time.Second)
	r.copied = end
}

// fieldNamed returns the field of that name, as JSON or the contract spells it, or nil.
func fieldNamed(d protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if f := d.Fields().ByJSONName(name); f != nil {
		return f
	}
	return d.Fields().ByTextName(name)
}

const durationName = "google.protobuf.Duration"
