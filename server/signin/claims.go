package signin

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"patd/tokens"
	"patd/tokens/secret"
)

const (
	maxFeatures = 1000
	lastInstant = 253402300799 // 9999-12-31T23:59:59Z
)

// acceptable rejects a token that is not for patd, or not valid now. Its issuer is known.
func (i *issuer) acceptable(t *token, now time.Time, leeway time.Duration) error {
	c := t.claims
	if !slices.Contains(i.Algorithms, t.alg) {
		return errors.New("its algorithm is not one of those configured")
	}
	if !slices.ContainsFunc(c.audience(), func(a string) bool { return i.audience[a] }) {
		return errors.New("it is for another audience")
	}
	// An event token (RFC 8417 section 2.2), such as the logout tokens of older providers, has events. A token with cnf
	// (RFC 7800) is good only together with a proof, which patd does not support.
	for _, name := range []string{"events", "cnf"} {
		if _, given := c[name]; given {
			return errors.New("it is an event, or bound to its sender")
		}
	}
	exp, err := c.instant("exp")
	if err != nil {
		return err
	}
	expired := false
	if exp.IsZero() || !now.Before(exp.Add(leeway)) {
		expired = true // other faults are reported first
	}
	for _, name := range []string{"nbf", "iat"} {
		at, err := c.instant(name)
		if err != nil {
			return err
		}
		if at.After(now.Add(leeway)) {
			return errors.New("it is from the future")
		}
	}
	if expired {
		return errExpired
	}
	return nil
}

var errExpired = errors.New("it has expired, or does not say when")

// identify reads the bearer's identity from the claims.
func (i *issuer) identify(t *token) (Identity, error) {
	exp, err := t.claims.instant("exp")
	if err != nil {
		return Identity{}, err
	}
	who := Identity{Issuer: i.URL, Expiry: exp}
	id, ok := t.claims.text(i.UserClaim)
	if !ok || id == "" {
		return Identity{}, errors.New("the claim that is the user's id is missing, or no string")
	}
	if who.User = i.UserPrefix + id; !validUser(who.User) || !validUser(id) {
		return Identity{}, errors.New("the claim that is the user's id is none")
	}
	if slices.ContainsFunc(i.foreign, func(p string) bool { return strings.HasPrefix(who.User, p) }) {
		return Identity{}, errors.New("the user's id begins with the prefix of another issuer")
	}
	who.Permissions = i.permissions(t.claims)
	if i.FeaturesClaim == "" {
		return who, nil
	}
	if raw, given := t.claims[i.FeaturesClaim]; given && !t.claims.elsewhere(i.FeaturesClaim) {
		who.HasFeatures = true
		if who.Features, ok = features(raw); !ok {
			return Identity{}, errors.New("the claim that names the user's features is malformed")
		}
	}
	return who, nil
}

// permissions reads what an operator may do: the permissions of all names in the claim, an array or one text. A claim
// that is malformed, or was left out for its size, gives none.
func (i *issuer) permissions(claims object) (p tokens.Permission) {
	raw, given := claims[i.PermissionsClaim]
	if i.PermissionsClaim == "" || !given || claims.elsewhere(i.PermissionsClaim) {
		return 0
	}
	names, ok := texts(raw)
	if !ok {
		one, _ := claims.text(i.PermissionsClaim)
		names = append(strings.Fields(one), one)
	}
	for _, name := range names {
		p |= i.Permissions[name]
	}
	return p
}

// elsewhere reports whether a claim was left out for its size, wholly or in part: either the token says where to find
// it (OpenID Connect Core 1.0 section 5.6.2), or it is the groups that Entra ID only mentions.
func (o object) elsewhere(claim string) bool {
	var names map[string]json.RawMessage
	if raw, given := o["_claim_names"]; given {
		if err := json.Unmarshal(raw, &names); err != nil {
			return true // unreadable, but it means that something is elsewhere
		}
	}
	_, named := names[claim]
	var has any
	if raw, given := o["hasgroups"]; given && json.Unmarshal(raw, &has) != nil {
		return claim == "groups"
	}
	return named || claim == "groups" && (has == true || has == "true")
}

// audience reads `aud`, which is one string or an array of them (RFC 7519 section 4.1.3).
func (o object) audience() []string {
	if one, ok := o.text("aud"); ok {
		return []string{one}
	}
	all, _ := texts(o["aud"])
	return all
}

// instant reads a NumericDate (RFC 7519 section 2); the zero Time if it is absent.
func (o object) instant(name string) (time.Time, error) {
	raw, given := o[name]
	if !given {
		return time.Time{}, nil
	}
	var seconds *float64
	if err := json.Unmarshal(raw, &seconds); err != nil || seconds == nil || *seconds < 0 || *seconds > lastInstant {
		return time.Time{}, errors.New("one of its times is none")
	}
	whole, part := math.Modf(*seconds)
	return time.Unix(int64(whole), int64(part*1e9)).UTC(), nil
}

// texts reads an array of strings.
func texts(raw json.RawMessage) ([]string, bool) {
	var all []*string
	if err := json.Unmarshal(raw, &all); err != nil || all == nil {
		return nil, false
	}
	out := make([]string, len(all))
	for i, s := range all {
		if s == nil {
			return nil, false
		}
		out[i] = *s
	}
	return out, true
}

// features reads the names of features: an array, or one string with spaces between them as in RFC 6749 section 3.3.
func features(raw json.RawMessage) ([]string, bool) {
	names, ok := texts(raw)
	if !ok {
		var joined *string
		if err := json.Unmarshal(raw, &joined); err != nil || joined == nil {
			return nil, false
		}
		names = strings.FieldsFunc(*joined, func(r rune) bool { return r == ' ' })
	}
	if len(names) > maxFeatures ||
		slices.ContainsFunc(names, func(s string) bool { return !tokens.ValidScope(s) || secret.ContainsSecret(s) }) {
		return nil, false
	}
	slices.Sort(names)
	return slices.Compact(names), true
}

// validUser reports whether s is a valid user id. JSON decoding replaces unpaired surrogates by U+FFFD, so that two
// different ids would become one.
func validUser(s string) bool { return tokens.ValidUser(s) && !strings.ContainsRune(s, utf8.RuneError) }
