package scim

import (
	"encoding/json"
	"slices"
	"strings"
)

// maxOperations bounds the operations of one PATCH.
const maxOperations = 1000

// dropped are the attributes of RFC 7643 sections 3.1 and 4.1 that are accepted and not kept, by their folded names.
func dropped() []string {
	return []string{
		"schemas",
		"meta",
		"name",
		"nickname",
		"profileurl",
		"title",
		"usertype",
		"preferredlanguage",
		"locale",
		"timezone",
		"password",
		"emails",
		"phonenumbers",
		"ims",
		"photos",
		"addresses",
		"groups",
		"entitlements",
		"roles",
		"x509certificates",
	}
}

// parsePatch reads the body of a PATCH (RFC 7644 section 3.5.2), in the forms that identity providers send: names of
// operations in any case, values without a path, and strings for booleans. What it says is done as one change.
func parsePatch(body []byte) (words, error) {
	o, err := parseObject(body)
	if err != nil {
		return words{}, err
	}
	if err := checkSchemas(o, schemaPatch); err != nil {
		return words{}, err
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(o["operations"], &raw); err != nil || len(raw) == 0 {
		return words{}, errSyntax("Operations must be a list of at least one")
	}
	if len(raw) > maxOperations {
		return words{}, invalidValue("Operations", "are too many")
	}
	var w words
	for _, text := range raw {
		op, err := parseObject(text)
		if err != nil {
			return words{}, err
		}
		if err := w.operate(op); err != nil {
			return words{}, err
		}
	}
	return w, nil
}

// operate reads one operation.
func (w *words) operate(op object) error {
	var verb, path string
	if err := json.Unmarshal(op["op"], &verb); err != nil {
		return errSyntax("an operation has op: add, remove or replace")
	}
	if raw := op["path"]; !isNull(raw) {
		if err := json.Unmarshal(raw, &path); err != nil {
			return invalidPath("must be a string")
		}
	}
	switch strings.ToLower(verb) {
	case "add", "replace":
		return w.assign(path, op["value"])
	case "remove":
		return w.remove(path)
	default:
		return errSyntax("an operation has op: add, remove or replace")
	}
}

// assign reads an operation that gives a value. Without a path its value is an object of attributes.
func (w *words) assign(path string, value json.RawMessage) error {
	if path != "" {
		name, err := attribute(path)
		if err != nil || name == "" {
			return err
		}
		if isNull(value) {
			return w.remove(path)
		}
		return w.set(name, value)
	}
	o, err := parseObject(value)
	if err != nil {
		return invalidValue("value", "must be an object of attributes where there is no path")
	}
	for key, raw := range o {
		if nested, err := parseObject(raw); err == nil && strings.EqualFold(key, schemaUser) {
			for inner, raw := range nested {
				if err := w.assign(inner, raw); err != nil {
					return err
				}
			}
			continue
		}
		if err := w.assign(key, raw); err != nil {
			return err
		}
	}
	return nil
}

// remove reads an operation that takes a value away.
func (w *words) remove(path string) error {
	if path == "" {
		return scimFault(kindNoTarget, "path", "remove needs a path")
	}
	name, err := attribute(path)
	if err != nil {
		return err
	}
	none := ""
	switch name {
	case "id":
		return errMutability(attrID)
	case "username":
		return invalidValue(attrUserName, "is required, and cannot be removed")
	case "active":
		return invalidValue(attrActive, "cannot be removed: say false")
	case "externalid":
		w.externalID = &none
	case "displayname":
		w.displayName = &none
	}
	return nil
}

// attribute returns the folded name of the attribute of a path; empty: it is accepted and not kept. A name that
// RFC 7643 does not know is an error: it may be a mistyped one, and the change would be lost.
func attribute(path string) (string, error) {
	name := baseName(path)
	kept := []string{"id", "username", "externalid", "displayname", "active"}
	switch {
	case slices.Contains(kept, name):
		if !strings.HasSuffix(strings.ToLower(path), name) {
			return "", invalidPath("this attribute has no parts")
		}
		return name, nil
	case slices.Contains(dropped(), name), strings.HasPrefix(name, "urn:"):
		return "", nil
	default:
		return "", invalidPath("there is no such attribute")
	}
}

// baseName returns the folded name of the attribute of a path, without the URN of the User schema, parts and filters.
// Paths of other schemas are returned as they are.
func baseName(path string) string {
	name := strings.ToLower(strings.TrimSpace(path))
	if rest, ok := strings.CutPrefix(name, strings.ToLower(schemaUser)); ok {
		name = strings.TrimPrefix(rest, ":")
	}
	if strings.HasPrefix(name, "urn:") {
		return name
	}
	if end := strings.IndexAny(name, ".["); end >= 0 {
		name = name[:end]
	}
	return name
}
