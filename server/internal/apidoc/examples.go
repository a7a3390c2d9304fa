package main

import (
	_ "embed"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// exampleValues are values of fields in examples, by the field's name, or by message and field where that says more. A
// field of a request, or one that a response may leave out, is in an example only if it stands here with its message,
// or if it is always there. Other fields get a value of their type.
//
//go:embed examples.json
var exampleValues []byte

// exampleOf returns the value of a field in the table; nil: there is none that fits.
func (d *document) exampleOf(f protoreflect.FieldDescriptor) any {
	for _, name := range []string{string(f.Parent().Name()) + "." + string(f.Name()), string(f.Name())} {
		if v, ok := d.values[name]; ok && fits(f, v) {
			return v
		}
	}
	return nil
}

// fits reports whether a value is of the field's kind: a list, an object or one value.
func fits(f protoreflect.FieldDescriptor, v any) bool {
	_, list := v.([]any)
	_, fields := v.(object)
	_, number := v.(float64)
	if number != (f.Kind() == protoreflect.Int32Kind) {
		return false // numbers of 64 bits are texts in JSON
	}
	switch ours := f.Message() != nil && f.Message().ParentFile().Package() == "patd.v1"; {
	case f.IsMap(), ours && !f.IsList():
		return fields
	default:
		return !fields && list == f.IsList() && !ours
	}
}

// example returns an example of a message, without the fields that stand elsewhere in the request.
func (d *document) example(m protoreflect.MessageDescriptor, of direction, elsewhere map[string]bool) object {
	made := object{}
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		name := string(f.Name())
		_, chosen := d.values[string(m.Name())+"."+name]
		must := of == response && always(f) || of == request &&
			(hasBehavior(f, annotations.FieldBehavior_REQUIRED) || hasBehavior(f, annotations.FieldBehavior_IDENTIFIER))
		if elsewhere[name] || !chosen && !must {
			continue
		}
		made[name] = d.exampleField(f, of)
	}
	return made
}

// exampleField returns an example of a field: the one in the table, or one of its type.
func (d *document) exampleField(f protoreflect.FieldDescriptor, of direction) any {
	if v := d.exampleOf(f); v != nil {
		return v
	}
	switch {
	case f.IsMap():
		return object{}
	case f.IsList() && f.Message() == nil:
		return []any{}
	case f.IsList():
		return []any{d.exampleKind(f, of)}
	default:
		return d.exampleKind(f, of)
	}
}

// exampleKind returns an example of a field's type.
func (d *document) exampleKind(f protoreflect.FieldDescriptor, of direction) any {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return false
	case protoreflect.StringKind:
		return ""
	case protoreflect.Int32Kind:
		return 0
	case protoreflect.Int64Kind, protoreflect.Uint64Kind:
		return "0"
	case protoreflect.EnumKind:
		return string(f.Enum().Values().Get(1).Name())
	}
	switch f.Message().FullName() {
	case "google.protobuf.Timestamp":
		return "2027-01-05T10:00:00Z"
	case "google.protobuf.Duration":
		return "3600s"
	}
	return d.example(f.Message(), of, nil)
}
