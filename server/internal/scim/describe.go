package scim

import (
	"net/http"

	"patd/tokens"
)

// Schemas of the descriptions (RFC 7643 sections 5 to 7).
const (
	schemaProviderConfig = "urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"
	schemaResourceType   = "urn:ietf:params:scim:schemas:core:2.0:ResourceType"
	schemaSchema         = "urn:ietf:params:scim:schemas:core:2.0:Schema"
)

// describe begins a request for a description. Those have no filters (RFC 7644 section 4).
func (e *Endpoints) describe(q *request) error {
	if err := e.Authorize(q.Call); err != nil {
		return err
	}
	if q.query.Has("filter") {
		return tokens.Fail(tokens.CodeDenied, "FILTER_INVALID", "descriptions cannot be filtered")
	}
	return nil
}

// providerConfig serves what patd supports.
func (e *Endpoints) providerConfig(q *request) error {
	if err := e.describe(q); err != nil {
		return err
	}
	no := map[string]any{"supported": false}
	write(q.w, http.StatusOK, map[string]any{
		attrSchemas:        []string{schemaProviderConfig},
		"patch":            map[string]any{"supported": true},
		"bulk":             map[string]any{"supported": false, "maxOperations": 0, "maxPayloadSize": 0},
		"filter":           map[string]any{"supported": true, "maxResults": tokens.MaxProvisioned},
		"changePassword":   no,
		"sort":             no,
		"etag":             no,
		"documentationUri": "https://www.rfc-editor.org/rfc/rfc7644",
		"authenticationSchemes": []map[string]any{{
			"type": "oauthbearertoken", "name": "Service token", "primary": true,
			"description": "Authorization: Bearer and the token of a service with the permission users",
		}},
		attrMeta: meta{ResourceType: "ServiceProviderConfig", Location: e.base + "/ServiceProviderConfig"},
	})
	return nil
}

// resourceTypes serves the list of resource types, or one.
func (e *Endpoints) resourceTypes(q *request) error {
	return e.described(q, resource{
		attrSchemas: []string{
			schemaResourceType,
		},
		attrID:        "User",
		"name":        "User",
		"description": "A user, who owns tokens",
		"endpoint":    "/Users",
		"schema":      schemaUser,
		attrMeta:      meta{ResourceType: "ResourceType", Location: e.base + "/ResourceTypes/User"},
	})
}

// schemas serves the list of schemas, or one.
func (e *Endpoints) schemas(q *request) error {
	attribute := func(name, kind, text string) map[string]any {
		a := map[string]any{
			"name": name, "type": kind, "multiValued": false, "description": text, "required": false,
			"mutability": "readWrite", "returned": "default",
		}
		if kind == "string" {
			a["caseExact"], a["uniqueness"] = false, "none"
		}
		return a
	}
	name := attribute(
		attrUserName,
		"string",
		"The name by which the provider knows the user; unique without regard to case",
	)
	name["required"], name["uniqueness"] = true, "server"
	if e.by == ByUserName {
		name["mutability"] = "immutable"
	}
	active := attribute(
		attrActive,
		"boolean",
		"Whether the user's tokens can be used: false suspends the user, true resumes it",
	)
	active["required"] = true // it cannot be removed; a new user without it is active
	return e.described(q, resource{
		attrSchemas: []string{
			schemaSchema,
		},
		attrID:        schemaUser,
		"name":        "User",
		"description": "A user, who owns tokens",
		"attributes": []map[string]any{
			name, attribute(attrDisplayName, "string", "The name that people see"), active,
		},
		attrMeta: meta{ResourceType: "Schema", Location: e.base + "/Schemas/" + schemaUser},
	})
}

// described serves a list of one description, or that by its id.
func (e *Endpoints) described(q *request, one resource) error {
	if err := e.describe(q); err != nil {
		return err
	}
	switch q.id {
	case "":
		write(q.w, http.StatusOK, list{
			Schemas: []string{schemaList}, TotalResults: 1, StartIndex: 1, ItemsPerPage: 1, Resources: []resource{one},
		})
	case one[attrID]:
		write(q.w, http.StatusOK, one)
	default:
		return tokens.Fail(tokens.CodeNotFound, "NOT_FOUND", "there is no such description")
	}
	return nil
}
