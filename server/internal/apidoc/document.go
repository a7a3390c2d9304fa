package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"patd/server/internal/call"
)

type object = map[string]any

// document is an OpenAPI 3.1 document.
type document struct {
	OpenAPI    string     `json:"openapi"`
	Info       object     `json:"info"`
	Servers    []object   `json:"servers"`
	Tags       []object   `json:"tags"`
	Paths      object     `json:"paths"`
	Components components `json:"components"`

	rights map[string]call.Right
	ids    map[string]bool // operationIds given so far
	values object          // of examples
}

type components struct {
	SecuritySchemes object `json:"securitySchemes"`
	Parameters      object `json:"parameters"`
	Headers         object `json:"headers"`
	Responses       object `json:"responses"`
	Schemas         object `json:"schemas"`
}

func newDocument() *document {
	return &document{
		OpenAPI: "3.1.0",
		Info: object{
			"title":   "patd",
			"version": "v1",
			"description": "Personal access tokens: mint, list, rotate, revoke, introspect. Decide by `reason` of an error, " +
				"which is stable, and by `decision` of an introspection, never by `active` alone.",
			"license": object{"name": "The licence of patd", "identifier": "LicenseRef-patd"},
		},
		Servers: []object{
			{
				"url":         "{issuer}",
				"description": "This server.",
				"variables": object{
					"issuer": object{"default": "http://127.0.0.1:8080", "description": "The server's `--issuer`."},
				},
			},
		},
		Paths: object{},
		Components: components{
			SecuritySchemes: object{}, Parameters: object{}, Headers: object{}, Responses: object{}, Schemas: object{},
		},
		rights: call.Rights(), ids: map[string]bool{},
	}
}

// join adds a part of the document that is written by hand.
func (d *document) join(name string) error {
	text, err := outside.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	var part document
	if err := json.Unmarshal(text, &part); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	d.Tags = append(d.Tags, part.Tags...)
	for _, c := range []struct{ all, more object }{
		{d.Components.SecuritySchemes, part.Components.SecuritySchemes},
		{d.Components.Parameters, part.Components.Parameters},
		{d.Components.Headers, part.Components.Headers}, {d.Components.Responses, part.Components.Responses},
		{d.Components.Schemas, part.Components.Schemas}, {d.Paths, part.Paths},
	} {
		for _, name := range slices.Sorted(maps.Keys(c.more)) {
			if err := put(c.all, name, c.more[name]); err != nil {
				return err
			}
		}
	}
	return nil
}

// put adds a named thing. The same name with another content is an error.
func put(all object, name string, v any) error {
	if have, ok := all[name]; ok && !reflect.DeepEqual(have, v) {
		return fmt.Errorf("%s is described in two ways", name)
	}
	all[name] = v
	return nil
}

// ref returns a reference to a component.
func ref(kind, name string) object { return object{"$ref": "#/components/" + kind + "/" + name} }
