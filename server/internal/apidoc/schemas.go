package main

import (
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// direction is who sends a message, the caller or the server: its schema differs.
type direction int

const (
	request direction = iota
	response
)

// schemaName returns the name of a message's schema. A record that a caller sends has fields that are left out at will,
// and so a schema of its own.
func schemaName(m protoreflect.Descriptor, of direction) string {
	name := strings.ReplaceAll(strings.TrimPrefix(string(m.FullName()), "patd.v1."), ".", "")
	_, isMessage := m.(protoreflect.MessageDescriptor)
	if isMessage && of == request && !strings.HasSuffix(name, "Request") {
		name += "Input"
	}
	return name
}

// message returns a reference to a message's schema, and adds it to the document.
func (d *document) message(m protoreflect.MessageDescriptor, of direction) (object, error) {
	name := schemaName(m, of)
	if _, known := d.Components.Schemas[name]; !known {
		d.Components.Schemas[name] = object{} // before its fields: a message may contain itself
		schema, err := d.object(m, of, nil)
		if err != nil {
			return nil, err
		}
		d.Components.Schemas[name] = schema
	}
	return ref("schemas", name), nil
}

// object returns the schema of a message, without the fields that stand elsewhere in the request.
func (d *document) object(m protoreflect.MessageDescriptor, of direction, elsewhere map[string]bool) (object, error) {
	properties, required := object{}, []string{}
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		name := string(f.Name())
		if elsewhere[name] {
			continue
		}
		schema, err := d.field(f, of)
		if err != nil {
			return nil, err
		}
		if text := comment(f); text != "" {
			schema["description"] = text
		}
		properties[name] = schema
		if of == request && hasBehavior(f, annotations.FieldBehavior_REQUIRED) || of == response && always(f) {
			required = append(required, name)
		}
	}
	schema := object{"type": "object", "description": about(string(m.Name()), comment(m)), "properties": properties}
	if len(required) > 0 {
		schema["required"] = required
	}
	if of == request {
		schema["additionalProperties"] = false // unknown fields are rejected
	}
	return schema, nil
}

// always reports whether a response always has a field: JSON leaves out only messages that are not set, among them
// times and durations, and for each the comment says when it is absent.
func always(f protoreflect.FieldDescriptor) bool {
	text := comment(f)
	return !f.HasPresence() || !strings.Contains(text, "absent") && !strings.Contains(text, "left out")
}

func hasBehavior(f protoreflect.FieldDescriptor, want annotations.FieldBehavior) bool {
	behaviors, _ := proto.GetExtension(f.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
	for _, b := range behaviors {
		if b == want {
			return true
		}
	}
	return false
}

// field returns the schema of a field.
func (d *document) field(f protoreflect.FieldDescriptor, of direction) (object, error) {
	switch {
	case f.IsMap():
		values, err := d.value(f.MapValue(), of)
		return object{"type": "object", "additionalProperties": values}, err
	case f.IsList():
		items, err := d.value(f, of)
		return object{"type": "array", "items": items}, err
	default:
		return d.value(f, of)
	}
}

// Forms of durations. A request may also have the command line's; a response has seconds.
const (
	durationGiven   = `^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h|d))+$`
	durationWritten = `^-?[0-9]+(\.[0-9]+)?s$`
)

// value returns the schema of one value of a field, as protobuf writes it in JSON.
func (d *document) value(f protoreflect.FieldDescriptor, of direction) (object, error) {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return object{"type": "boolean"}, nil
	case protoreflect.StringKind:
		return object{"type": "string"}, nil
	case protoreflect.Int32Kind:
		return object{"type": "integer", "format": "int32"}, nil
	case protoreflect.Int64Kind:
		return object{"type": "string", "pattern": "^-?[0-9]+$"}, nil
	case protoreflect.Uint64Kind:
		return object{"type": "string", "pattern": "^[0-9]+$"}, nil
	case protoreflect.EnumKind:
		return d.enum(f.Enum()), nil
	case protoreflect.MessageKind:
		switch f.Message().FullName() {
		case "google.protobuf.Timestamp":
			return object{"type": "string", "format": "date-time"}, nil
		case "google.protobuf.Duration":
			if of == request {
				return object{"type": "string", "pattern": durationGiven}, nil
			}
			return object{"type": "string", "pattern": durationWritten}, nil
		}
		return d.message(f.Message(), of)
	default:
		return nil, fmt.Errorf("%s: fields of kind %s are not known here", f.FullName(), f.Kind())
	}
}

// enum returns a reference to an enum's schema, without the value that stands for none.
func (d *document) enum(e protoreflect.EnumDescriptor) object {
	names, text := []string{}, about(string(e.Name()), comment(e))
	for i := range e.Values().Len() {
		v := e.Values().Get(i)
		if v.Number() == 0 {
			continue
		}
		names = append(names, string(v.Name()))
		text += fmt.Sprintf("\n\n%s: %s", v.Name(), comment(v))
	}
	name := schemaName(e, response)
	d.Components.Schemas[name] = object{"type": "string", "enum": names, "description": text}
	return ref("schemas", name)
}
