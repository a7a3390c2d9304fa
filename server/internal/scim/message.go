package scim

import (
	"encoding/json"
	"net/url"
	"strings"
	"time"

	"patd/tokens"
)

// Schemas of RFC 7643 and RFC 7644.
const (
	schemaUser   = "urn:ietf:params:scim:schemas:core:2.0:User"
	schemaError  = "urn:ietf:params:scim:api:messages:2.0:Error"
	schemaList   = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
	schemaSearch = "urn:ietf:params:scim:api:messages:2.0:SearchRequest"
	schemaPatch  = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
)

// Attributes that are kept, as they are spelt.
const (
	attrID          = "id"
	attrUserName    = "userName"
	attrExternalID  = "externalId"
	attrDisplayName = "displayName"
	attrActive      = "active"
	attrSchemas     = "schemas"
	attrMeta        = "meta"
)

// meta is the attribute of that name (RFC 7643 section 3.1).
type meta struct {
	ResourceType string     `json:"resourceType"`
	Created      *time.Time `json:"created,omitempty"`
	LastModified *time.Time `json:"lastModified,omitempty"`
	Location     string     `json:"location"`
}

// resource is a user as SCIM shows it, by the names of its attributes.
type resource map[string]any

// location returns the URL of a user.
func (e *Endpoints) location(id string) string { return e.base + "/Users/" + url.PathEscape(id) }

// show returns a user as SCIM shows it.
func (e *Endpoints) show(p tokens.Provisioned) resource {
	r := resource{
		attrSchemas: []string{
			schemaUser,
		},
		attrID:       p.ID,
		attrUserName: p.UserName,
		attrActive:   p.State == tokens.UserActive,
		attrMeta: meta{
			ResourceType: "User",
			Created:      &p.CreateTime,
			LastModified: &p.UpdateTime,
			Location:     e.location(p.ID),
		},
	}
	if p.ExternalID != "" {
		r[attrExternalID] = p.ExternalID
	}
	if p.DisplayName != "" {
		r[attrDisplayName] = p.DisplayName
	}
	return r
}

// projection is which attributes a request wants (RFC 7644 section 3.9). The zero value is all.
type projection struct{ only, without map[string]bool }

// projectionOf reads the parameters attributes and excludedAttributes. Of an attribute with parts only the attribute
// counts.
func projectionOf(query url.Values) (projection, error) {
	p := projection{attributeSet(query["attributes"]), attributeSet(query["excludedAttributes"])}
	if p.only != nil && p.without != nil {
		return p, invalidValue("attributes", "give attributes or excludedAttributes, not both")
	}
	return p, nil
}

func attributeSet(lists []string) map[string]bool {
	var found map[string]bool
	for _, list := range lists {
		for name := range strings.SplitSeq(list, ",") {
			if name = strings.TrimSpace(name); name == "" {
				continue
			}
			if found == nil {
				found = map[string]bool{}
			}
			found[baseName(name)] = true
		}
	}
	return found
}

// of returns the attributes of a resource that are wanted. id and schemas are always returned.
func (p projection) of(r resource) resource {
	for name := range r {
		folded := strings.ToLower(name)
		if name != attrID && name != attrSchemas && (p.only != nil && !p.only[folded] || p.without[folded]) {
			delete(r, name)
		}
	}
	return r
}

// list is a ListResponse (RFC 7644 section 3.4.2).
type list struct {
	Schemas      []string   `json:"schemas"`
	TotalResults int64      `json:"totalResults"`
	StartIndex   int        `json:"startIndex"`
	ItemsPerPage int        `json:"itemsPerPage"`
	Resources    []resource `json:"Resources"`
}

// object is a JSON object by the folded names of its members: those of SCIM are compared without regard to case (RFC
// 7643 section 2.1).
type object map[string]json.RawMessage

// parseObject reads a JSON object. A name that is there twice, in one spelling or several, is an error: readers would
// not agree about its value.
func parseObject(text []byte) (object, error) {
	d := json.NewDecoder(strings.NewReader(string(text)))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return nil, errSyntax("the body must be one JSON object")
	}
	o := object{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, errSyntax("the body is no JSON")
		}
		name, _ := key.(string)
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, errSyntax("the body is no JSON")
		}
		folded := strings.ToLower(name)
		if _, twice := o[folded]; twice {
			return nil, errSyntax("an attribute is there twice")
		}
		o[folded] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, errSyntax("the body is no JSON")
	}
	if d.More() {
		return nil, errSyntax("the body must be one JSON object")
	}
	return o, nil
}

// isNull reports whether a value is absent or null, which are the same (RFC 7643 section 2.5).
func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// text reads a string. Entra also sends it as the value of one object in an array.
func text(field string, raw json.RawMessage) (string, error) {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s, nil
	}
	if inner, ok := wrapped(raw); ok {
		return text(field, inner)
	}
	return "", invalidValue(field, "must be a string")
}

// truth reads a boolean. Entra also sends "True" and "False".
func truth(field string, raw json.RawMessage) (bool, error) {
	var b bool
	if json.Unmarshal(raw, &b) == nil {
		return b, nil
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		switch strings.ToLower(s) {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
	}
	if inner, ok := wrapped(raw); ok {
		return truth(field, inner)
	}
	return false, invalidValue(field, "must be true or false")
}

// wrapped returns the value of the one object in an array, which some clients send for a simple value.
func wrapped(raw json.RawMessage) (json.RawMessage, bool) {
	var all []struct {
		Value json.RawMessage `json:"value"`
	}
	if json.Unmarshal(raw, &all) != nil || len(all) != 1 || isNull(all[0].Value) || all[0].Value[0] == '[' {
		return nil, false
	}
	return all[0].Value, true
}
