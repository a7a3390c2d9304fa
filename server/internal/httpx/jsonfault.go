package httpx

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"patd/tokens"
)

// badJSON returns the public error for a body that the JSON decoder has rejected as a message of m's type.
//
// It does not use the decoder's error text, which repeats parts of the body and which protobuf varies on purpose. It
// uses the decoder's verdict, one field at a time.
func badJSON(text []byte, m proto.Message) *tokens.Error {
	if f := findFault(text, m.ProtoReflect().Type()); f != nil {
		return f.public(text)
	}
	return tokens.Invalid("JSON_INVALID", "", "the body is not valid JSON of this request")
}

// jsonFault is a fault of a JSON text, and its place.
type jsonFault struct {
	kind  faultKind
	at    int    // in bytes
	field string // as the caller wrote it for unknownField; otherwise as in the contract, or empty
	value protoreflect.FieldDescriptor
}

type faultKind int

const (
	notJSON faultKind = iota
	endsEarly
	notUTF8
	notObject
	unknownField
	givenTwice
	badValue
)

// public returns the error for the caller.
func (f *jsonFault) public(text []byte) *tokens.Error {
	at := position(text, f.at)
	invalid := func(what string) *tokens.Error { return tokens.Invalid("JSON_INVALID", f.field, what+at) }
	switch f.kind {
	case endsEarly:
		return tokens.Invalid("JSON_INVALID", "", "the body is not valid JSON of this request: it ends too early")
	case notUTF8:
		return invalid("the body is not UTF-8: error")
	case notObject:
		return invalid("the body is not a JSON object: error")
	case unknownField:
		if SafeName(f.field) {
			return tokens.Invalid("FIELD_UNKNOWN", f.field, fmt.Sprintf("unknown field %q%s", f.field, at))
		}
		return tokens.Invalid("FIELD_UNKNOWN", "", "unknown field"+at)
	case givenTwice:
		return invalid("given twice: error")
	case badValue:
		return invalid(expected(f.value) + ": error")
	default:
		return invalid("the body is not valid JSON: error")
	}
}

// expected describes the values that a field takes.
func expected(f protoreflect.FieldDescriptor) string {
	one := "the value must be "
	if f.IsList() {
		one = "the value must be a list, and each item "
	}
	switch {
	case f.IsMap():
		return "the value must be an object, and each of its values a string"
	case isDuration(f):
		return `a duration is a string such as "90d", "12h" or "7776000s"`
	case isTime(f):
		return `a time is an RFC 3339 string, such as "2027-01-31T12:00:00Z"`
	case f.Message() != nil:
		return one + "an object"
	case f.Enum() != nil:
		return one + "one of the names that the API defines for this field, in capitals"
	case f.Kind() == protoreflect.StringKind:
		return one + "a string"
	case f.Kind() == protoreflect.BoolKind:
		return one + "true or false"
	default:
		return one + "a number in its range"
	}
}

func isDuration(f protoreflect.FieldDescriptor) bool {
	return f.Message() != nil && f.Message().FullName() == durationName
}

func isTime(f protoreflect.FieldDescriptor) bool {
	return f.Message() != nil && f.Message().FullName() == "google.protobuf.Timestamp"
}

// position names a place in a text by line and column, both from 1; columns are characters.
func position(text []byte, at int) string {
	before := text[:min(max(at, 0), len(text))]
	line := 1 + bytes.Count(before, []byte("\n"))
	column := 1 + utf8.RuneCount(before[1+bytes.LastIndexByte(before, '\n'):])
	return fmt.Sprintf(" at line %d:%d", line, column)
}

// findFault returns the first fault of a text that should be one JSON object, or nil.
func findFault(text []byte, t protoreflect.MessageType) *jsonFault {
	if f := syntaxFault(text); f != nil {
		return f
	}
	w := walker{text: text}
	return w.object(0, len(text), t)
}

// syntaxFault returns the fault that keeps a text from being one JSON value in UTF-8.
func syntaxFault(text []byte) *jsonFault {
	if !utf8.Valid(text) {
		at := 0
		for r, n := utf8.DecodeRune(text); r != utf8.RuneError || n > 1; r, n = utf8.DecodeRune(text[at:]) {
			at += n
		}
		return &jsonFault{kind: notUTF8, at: at}
	}
	d := json.NewDecoder(bytes.NewReader(text))
	var all json.RawMessage
	var bad *json.SyntaxError
	switch err := d.Decode(&all); {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return &jsonFault{kind: endsEarly}
	case errors.As(err, &bad):
		return &jsonFault{at: int(bad.Offset) - 1}
	case err != nil:
		return &jsonFault{}
	}
	if rest := skipSpace(text, int(d.InputOffset())); rest < len(text) {
		return &jsonFault{at: rest}
	}
	return nil
}

// skipSpace returns the first position from at on that is neither white space nor a separator.
func skipSpace(text []byte, at int, separators ...byte) int {
	return len(text) - len(bytes.TrimLeft(text[at:], " \t\r\n"+string(separators)))
}

// walker walks a well-formed JSON text together with its message types.
type walker struct{ text []byte }

// object returns the first fault of text[from:to], which should be an object of type t.
func (w walker) object(from, to int, t protoreflect.MessageType) *jsonFault {
	from = skipSpace(w.text, from)
	if from >= to || w.text[from] != '{' {
		return &jsonFault{kind: notObject, at: from}
	}
	d := json.NewDecoder(bytes.NewReader(w.text[from:to]))
	if _, err := d.Token(); err != nil {
		return &jsonFault{at: from}
	}
	given := map[protoreflect.FieldNumber]bool{}
	for d.More() {
		at := skipSpace(w.text, from+int(d.InputOffset()), ',')
		token, err := d.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return &jsonFault{at: at}
		}
		field := fieldNamed(t.Descriptor(), name)
		if field == nil {
			return &jsonFault{kind: unknownField, at: at, field: name}
		}
		if given[field.Number()] {
			return &jsonFault{kind: givenTwice, at: at, field: field.TextName()}
		}
		given[field.Number()] = true
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return &jsonFault{at: at}
		}
		end := from + int(d.InputOffset())
		if !fits(t, field, value) {
			return w.value(end-len(value), end, t, field)
		}
	}
	return nil
}

// fits reports whether the decoder accepts a value for a field.
func fits(t protoreflect.MessageType, field protoreflect.FieldDescriptor, value []byte) bool {
	return decode(fmt.Appendf(nil, "{%q:%s}", field.TextName(), value), t.New().Interface()) == nil
}

// value returns the innermost fault of text[from:to], which does not fit a field of t.
func (w walker) value(from, to int, t protoreflect.MessageType, field protoreflect.FieldDescriptor) *jsonFault {
	whole := &jsonFault{kind: badValue, at: from, field: field.TextName(), value: field}
	inner := func(from, to int) *jsonFault {
		if field.Message() == nil || field.IsMap() || isDuration(field) || isTime(field) {
			return nil
		}
		var value protoreflect.Value
		if field.IsList() {
			value = t.New().NewField(field).List().NewElement()
		} else {
			value = t.New().NewField(field)
		}
		if f := w.object(from, to, value.Message().Type()); f != nil && f.kind != notObject {
			return f
		}
		return nil
	}
	if !field.IsList() {
		if f := inner(from, to); f != nil {
			return f
		}
		return whole
	}
	if w.text[from] != '[' {
		return whole
	}
	d := json.NewDecoder(bytes.NewReader(w.text[from:to]))
	if _, err := d.Token(); err != nil {
		return whole
	}
	for d.More() {
		var item json.RawMessage
		if err := d.Decode(&item); err != nil {
			return whole
		}
		end := from + int(d.InputOffset())
		if fits(t, field, fmt.Appendf(nil, "[%s]", item)) {
			continue
		}
		if f := inner(end-len(item), end); f != nil {
			return f
		}
		whole.at = end - len(item)
		return whole
	}
	return whole
}
