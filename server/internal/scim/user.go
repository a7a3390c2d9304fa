package scim

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"patd/tokens"
)

// UserID is the attribute that is patd's user id.
type UserID string

// The attributes that can be it.
const (
	ByExternalID UserID = attrExternalID
	ByUserName   UserID = attrUserName
	ByID         UserID = attrID
)

// ParseUserID reads the name of an attribute that can be patd's user id; empty: externalId.
func ParseUserID(text string) (UserID, error) {
	switch u := UserID(text); u {
	case "":
		return ByExternalID, nil
	case ByExternalID, ByUserName, ByID:
		return u, nil
	default:
		return "", fmt.Errorf("%q is none of externalId, userName and id", text)
	}
}

// words are what a request says about the attributes that are kept; nil: nothing.
type words struct {
	id, userName, externalID, displayName *string
	active                                *bool
}

// set reads the value of one attribute, by its folded name. It ignores those that are not kept.
func (w *words) set(name string, raw json.RawMessage) (err error) {
	var field string
	var to **string
	switch name {
	case "id":
		field, to = attrID, &w.id
	case "username":
		field, to = attrUserName, &w.userName
	case "externalid":
		field, to = attrExternalID, &w.externalID
	case "displayname":
		field, to = attrDisplayName, &w.displayName
	case "active":
		v, err := truth(attrActive, raw)
		w.active = &v
		return err
	default:
		return nil
	}
	v, err := text(field, raw)
	*to = &v
	return err
}

// userID returns what a request says about the attribute that is patd's user id; nil: nothing.
func (w *words) userID(by UserID) *string {
	return map[UserID]*string{ByExternalID: w.externalID, ByUserName: w.userName, ByID: w.id}[by]
}

// parseUser reads the body of a POST or a PUT.
func parseUser(body []byte) (words, error) {
	o, err := parseObject(body)
	if err != nil {
		return words{}, err
	}
	if err := checkSchemas(o, schemaUser); err != nil {
		return words{}, err
	}
	var w words
	for name, raw := range o {
		if isNull(raw) {
			continue
		}
		if err := w.set(name, raw); err != nil {
			return words{}, err
		}
	}
	return w, nil
}

// checkSchemas returns an error if a message says that it is of other schemas.
func checkSchemas(o object, want string) error {
	raw := o[attrSchemas]
	if isNull(raw) {
		return nil
	}
	var all []string
	if err := json.Unmarshal(raw, &all); err != nil || !slices.Contains(all, want) {
		return invalidValue(attrSchemas, "must have "+want)
	}
	return nil
}

// provision returns what a POST says.
func (w *words) provision(by UserID) (tokens.Provision, error) {
	user := w.userID(by)
	if user == nil || *user == "" {
		return tokens.Provision{}, invalidValue(
			string(by),
			"is required: it is the id of the user in patd (--scim-user-id)",
		)
	}
	if w.userName == nil || *w.userName == "" {
		return tokens.Provision{}, invalidValue(attrUserName, "is required")
	}
	p := tokens.Provision{User: *user, UserName: *w.userName, Active: w.active}
	if by == ByID {
		p.ID = *user
	}
	if w.externalID != nil {
		p.ExternalID = *w.externalID
	}
	if w.displayName != nil {
		p.DisplayName = *w.displayName
	}
	return p, nil
}

// replacement returns what a PUT says of the resource with an id. externalId and active stay if they are left out, as
// some clients do; displayName goes.
func (w *words) replacement(id string, by UserID) (tokens.ProvisionUpdate, error) {
	switch {
	case w.userName == nil || *w.userName == "":
		return tokens.ProvisionUpdate{}, invalidValue(attrUserName, "is required")
	case w.id != nil && *w.id != id:
		return tokens.ProvisionUpdate{}, errMutability(attrID)
	}
	if w.displayName == nil {
		w.displayName = new(string)
	}
	return tokens.ProvisionUpdate{
		User: w.userID(
			by,
		),
		UserName:    w.userName,
		ExternalID:  w.externalID,
		DisplayName: w.displayName,
		Active:      w.active,
		Whole:       true,
	}, nil
}

// change returns what a PATCH of the resource with an id says.
func (w *words) change(id string, by UserID) (tokens.ProvisionUpdate, error) {
	if w.id != nil && *w.id != id {
		return tokens.ProvisionUpdate{}, errMutability(attrID)
	}
	return tokens.ProvisionUpdate{
		User: w.userID(
			by,
		),
		UserName:    w.userName,
		ExternalID:  w.externalID,
		DisplayName: w.displayName,
		Active:      w.active,
	}, nil
}

// isImmutable reports whether an error is that the attribute which is patd's user id would change.
func isImmutable(err error) bool {
	var e *tokens.Error
	return errors.As(err, &e) && e.Reason == "USER_IMMUTABLE"
}
