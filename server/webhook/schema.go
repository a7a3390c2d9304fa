package webhook

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"patd/tokens"
)

// dataOf holds the data of each type that is not that of its noun.
var dataOf = map[string]any{
	tokens.WebhookTokenUpdated:        tokenUpdatedData{},
	tokens.WebhookTokenSupersededUse:  supersededUseData{},
	tokens.WebhookTokenUnused:         tokenUnusedData{},
	tokens.WebhookTokenLeaked:         tokenLeakedData{},
	tokens.WebhookTokenExpiring:       tokenExpiringData{},
	tokens.WebhookServiceExpiring:     serviceExpiringData{},
	tokens.WebhookTokenBlocked:        tokenBlockedData{},
	tokens.WebhookTokenUnblocked:      tokenBlockedData{},
	tokens.WebhookUserFeaturesChanged: featuresChangedData{},
	tokens.WebhookUserSecurityEvent:   securityEventData{},
	tokens.WebhookKeyRotated:          keyData{},
	tokens.WebhookAudienceChanged:     audienceData{},
	tokens.WebhookDisabled:            webhookData{},
	tokens.WebhookTest:                testData{},
}

var dataOfNoun = map[string]any{"token": tokenData{}, "user": userData{}, "service": serviceData{}}

// Schema returns the JSON Schema (draft 2020-12) of the messages of a type. A later version may add fields.
func Schema(t string) json.RawMessage {
	data, ok := dataOf[t]
	if !ok {
		noun, _, _ := strings.Cut(t, ".")
		data = dataOfNoun[noun]
	}
	return object(
		"$schema", "https://json-schema.org/draft/2020-12/schema",
		"title", t,
		"type", "object",
		"required", []string{"type", "timestamp", "data"},
		"properties", object(
			"type", object("const", t),
			"timestamp", object("type", "string", "format", "date-time", "description", "When it happened."),
			"data", schemaOf(reflect.TypeOf(data)),
		),
	)
}

// PathSchemas is where Schemas are served.
const PathSchemas = "/v1/webhooks/schemas"

// Schemas returns the JSON Schemas of all types as one JSON object, by type.
func Schemas() json.RawMessage {
	var pairs []any
	for _, t := range types() {
		pairs = append(pairs, t, Schema(t))
	}
	return object("schemas", object(pairs...))
}

// types returns every type, in byte order.
func types() []string {
	return slices.Sorted(slices.Values(append(tokens.WebhookTypes(), tokens.WebhookTest)))
}

// object is a JSON object with its fields in the order of the pairs.
func object(pairs ...any) json.RawMessage {
	var b strings.Builder
	for i, v := range pairs {
		switch {
		case i%2 == 1:
			b.WriteByte(':')
		case i > 0:
			b.WriteByte(',')
		}
		b.WriteString(encoded(v))
	}
	return json.RawMessage("{" + b.String() + "}")
}

func encoded(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode a schema: %v", err)) // it is made of strings
	}
	return string(text)
}

func schemaOf(t reflect.Type) json.RawMessage {
	switch {
	case t == reflect.TypeFor[*time.Time]():
		return object("type", []string{"string", "null"}, "format", "date-time")
	case t == reflect.TypeFor[time.Time]():
		return object("type", "string", "format", "date-time")
	case t.Kind() == reflect.String:
		return object("type", "string")
	case t.Kind() == reflect.Bool:
		return object("type", "boolean")
	case t.Kind() == reflect.Int:
		return object("type", "integer", "minimum", 0)
	case t.Kind() == reflect.Slice:
		return object("type", "array", "items", schemaOf(t.Elem()))
	case t.Kind() == reflect.Map:
		return object("type", "object", "additionalProperties", schemaOf(t.Elem()))
	case t.Kind() == reflect.Struct:
		required, properties := []string{}, []any{}
		for _, f := range reflect.VisibleFields(t) {
			if f.Anonymous {
				continue
			}
			name, optional, _ := strings.Cut(f.Tag.Get("json"), ",")
			if optional == "" {
				required = append(required, name)
			}
			properties = append(properties, name, described(schemaOf(f.Type), f.Tag.Get("doc")))
		}
		return object("type", "object", "required", required, "properties", object(properties...))
	}
	panic("no schema of " + t.String())
}

// described adds a description to a schema.
func described(schema json.RawMessage, text string) json.RawMessage {
	return json.RawMessage(string(schema[:len(schema)-1]) + `,"description":` + encoded(text) + "}")
}
