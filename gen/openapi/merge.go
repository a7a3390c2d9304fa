//go:build ignore

// Merge makes openapi.json out of the documents that protoc-gen-openapiv3 writes, one a proto file, and removes
// those. It spells names as the wire does, in snake_case, where the generator knows only lowerCamelCase, and adds what
// the contract says outside the protobuf files: the credential, the form of errors and the Idempotency-Key header.
//
// It runs by `go generate ./gen/openapi`.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"log"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"unicode"
)

const (
	parts  = "patd"
	merged = "openapi.json"
)

type object = map[string]any

// document is what is read of a part, and the whole of what is written.
type document struct {
	OpenAPI    string     `json:"openapi"`
	Info       object     `json:"info"`
	Tags       []object   `json:"tags"`
	Security   []object   `json:"security"`
	Paths      object     `json:"paths"`
	Components components `json:"components"`
}

type components struct {
	SecuritySchemes object `json:"securitySchemes,omitempty"`
	Schemas         object `json:"schemas"`
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("merge OpenAPI: ")
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	var files []string
	err := filepath.WalkDir(parts, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	whole := document{
		Info: object{
			"title":       "patd",
			"version":     "v1",
			"description": "Personal access tokens: mint, list, rotate, revoke, introspect.",
		},
		Security: []object{{"bearer": []string{}}},
		Paths:    object{},
		Components: components{
			SecuritySchemes: object{"bearer": object{
				"type": "http", "scheme": "bearer",
				"description": "The secret of a service token (pats_…), or for /v1/self of a personal access token (pat_…).",
			}},
			Schemas: object{"Error": errorSchema},
		},
	}
	for _, name := range files { // WalkDir walks in lexical order
		if err := whole.add(name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := whole.finish(); err != nil {
		return err
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(whole); err != nil {
		return err
	}
	if err := os.WriteFile(merged, out.Bytes(), 0o644); err != nil {
		return err
	}
	return os.RemoveAll(parts)
}

// add joins one part to the document. The same name with another content is an error.
func (d *document) add(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var part document
	if err := json.Unmarshal(text, &part); err != nil {
		return err
	}
	d.OpenAPI = part.OpenAPI
	d.Tags = append(d.Tags, part.Tags...)
	if err := union(d.Paths, part.Paths); err != nil {
		return err
	}
	return union(d.Components.Schemas, part.Components.Schemas)
}

func union(all, more object) error {
	for name, v := range more {
		if have, ok := all[name]; ok && !reflect.DeepEqual(have, v) {
			return fmt.Errorf("%s is described in two ways", name)
		}
		all[name] = v
	}
	return nil
}

// finish spells names as the wire does and adds what the protobuf files do not say.
func (d *document) finish() error {
	snakeCase(d.Paths)
	snakeCase(d.Components.Schemas)
	for path, item := range d.Paths {
		for method, op := range item.(object) {
			op, ok := op.(object)
			if !ok {
				return fmt.Errorf("%s %s is no operation", method, path)
			}
			op["responses"].(object)["default"] = errorResponse
			if op["operationId"] == "LeakService_ReportLeaks" { // nobody needs a credential
				op["security"] = []any{}
			}
			if op["operationId"] == "TokenService_CreateToken" {
				params, _ := op["parameters"].([]any)
				op["parameters"] = append(params, idempotencyKey)
			}
		}
	}
	if len(d.Paths) == 0 || len(d.Components.Schemas) == 0 {
		return fmt.Errorf("there is nothing under %s to merge; run `go generate ./gen/openapi`", parts)
	}
	return nil
}

// snakeCase renames properties and parameters wherever they stand in v.
func snakeCase(v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			snakeCase(e)
		}
	case object:
		if props, ok := v["properties"].(object); ok {
			for _, name := range slices.Collect(maps.Keys(props)) {
				p := props[name]
				delete(props, name)
				props[snake(name)] = p
			}
		}
		if name, ok := v["name"].(string); ok && v["in"] != nil {
			v["name"] = snake(name)
		}
		for _, e := range v {
			snakeCase(e)
		}
	}
}

// snake undoes what protobuf does to a field's name for JSON.
func snake(name string) string {
	var b strings.Builder
	for _, r := range name {
		if unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

var idempotencyKey = object{
	"name": "Idempotency-Key", "in": "header",
	"description": "Makes the call safe to repeat: 16 to 255 characters, hard to guess (a UUIDv4); kept 24 h per caller. The same as `request_id`.",
	"schema":      object{"type": "string", "minLength": 16, "maxLength": 255},
}

var errorResponse = object{
	"description": "The call failed or was refused.",
	"content":     object{"application/json": object{"schema": object{"$ref": "#/components/schemas/Error"}}},
}

var errorSchema = object{
	"type":        "object",
	"description": "Why a call failed, in the form of Google's APIs.",
	"required":    []string{"error"},
	"properties": object{"error": object{
		"type":     "object",
		"required": []string{"code", "status", "message"},
		"properties": object{
			"code":    object{"type": "integer", "description": "The HTTP status."},
			"status":  object{"type": "string", "description": "The gRPC status by name, e.g. INVALID_ARGUMENT."},
			"message": object{"type": "string", "description": "What is wrong, for people."},
			"details": object{
				"type": "array",
				"description": "For programs: a google.rpc.ErrorInfo of domain `patd` with a stable `reason`, and a google.rpc.BadRequest " +
					"where fields are at fault.",
				"items": object{
					"type":                 "object",
					"properties":           object{"@type": object{"type": "string"}},
					"additionalProperties": true,
				},
			},
		},
	}},
}
