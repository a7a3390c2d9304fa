// Package refusal says why a token is refused, in the words that its bearer reads everywhere: at patd itself, behind a
// gateway, and at services that use the client library. It is the only place with these words.
//
// Nothing here decides. The domain makes a Refusal with a reason only once the secret itself has matched; for anything
// else it makes the zero Refusal, which has one text.
package refusal

import (
	"slices"
	"strings"
	"time"
)

// The reasons, which are stable. All but NotValid need a secret that has matched.
const (
	NotValid         = "CREDENTIAL_INVALID" // no token, an unknown one, or a wrong secret
	Expired          = "TOKEN_EXPIRED"
	Revoked          = "TOKEN_REVOKED"
	Superseded       = "TOKEN_SUPERSEDED"
	UserSuspended    = "USER_SUSPENDED"
	PolicyBlocked    = "POLICY_BLOCKED"
	Idle             = "TOKEN_IDLE" // paused, because it was not used
	AudienceMismatch = "AUDIENCE_MISMATCH"
	IPNotAllowed     = "IP_NOT_ALLOWED"
	ScopesMissing    = "SCOPE_INSUFFICIENT" // the token is active
)

// ReasonOf returns the reason why a token is not active, by the name that the decision has on the wire; NotValid for
// every decision that tells no more.
func ReasonOf(decision string) string {
	switch decision {
	case "REVOKED":
		return Revoked
	case "EXPIRED":
		return Expired
	case "SUPERSEDED":
		return Superseded
	case "USER_SUSPENDED":
		return UserSuspended
	case "POLICY_BLOCKED":
		return PolicyBlocked
	case "TOKEN_IDLE":
		return Idle
	case "AUDIENCE_MISMATCH":
		return AudienceMismatch
	case "IP_NOT_ALLOWED":
		return IPNotAllowed
	default:
		return NotValid
	}
}

// Keys of the metadata of a refusal (google.rpc.ErrorInfo). Instants are in RFC 3339, lists are joined by spaces.
const (
	KeyExpireTime      = "expire_time" // of the presented secret, also where it did not end by that
	KeyRevokeTime      = "revoke_time"
	KeySupersedeTime   = "supersede_time"
	KeyRenewURL        = "renew_url"
	KeyRequiredScopes  = "required_scopes"
	KeyMissingScopes   = "missing_scopes"   // required, and never granted
	KeySuspendedScopes = "suspended_scopes" // required and granted, but not held by the user now
	KeyPausedScopes    = "paused_scopes"    // required and granted, but paused: the owner may resume them
)

// Headers, of which clients of gateways and services learn when to renew their token. gRPC has them as metadata.
const (
	HeaderExpiresAt = "Patd-Token-Expires-At" // RFC 3339; absent: never
	HeaderRenew     = "Patd-Token-Renew"      // where the user renews the token
)

// RenewBefore is how long before a token's end its bearer is sent HeaderRenew.
const RenewBefore = 30 * 24 * time.Hour

// Refusal is why a token is refused. The zero Refusal says no more than that the token is not valid.
type Refusal struct {
	Reason string
	// Since is when the token expired or was revoked, or when its secret stopped working; zero: unknown, or the reason
	// has none.
	Since time.Time
	// ExpireTime is when the presented secret expires, or expired; zero: never, or unknown.
	ExpireTime time.Time
	// RenewURL is where the user renews the token; empty: it is not due.
	RenewURL string
	// Required are the scopes that the request needs. Missing are those of them that were never granted, Paused those
	// that the owner may resume, Suspended those that the user does not hold now. All are empty but for ScopesMissing.
	Required, Missing, Suspended, Paused []string
}

// Time returns an instant as texts and headers have it: in UTC, cut to whole seconds, so that a token never seems to
// last longer than it does. The zero time is empty.
func Time(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Truncate(time.Second).Format(time.RFC3339)
}

// OfScopes returns the refusal of an active token that lacks some of the required scopes. granted and missing are
// sorted; paused are among granted.
func OfScopes(required, missing, granted []string, paused ...string) Refusal {
	r := Refusal{Reason: ScopesMissing, Required: required}
	for _, scope := range missing {
		if slices.Contains(paused, scope) {
			r.Paused = append(r.Paused, scope)
		} else if _, ok := slices.BinarySearch(granted, scope); ok {
			r.Suspended = append(r.Suspended, scope)
		} else {
			r.Missing = append(r.Missing, scope)
		}
	}
	return r
}

// Text returns the words for the bearer: printable ASCII without quotes and backslashes (RFC 6750 section 3), as long
// as scopes have their syntax.
func (r Refusal) Text() string {
	switch r.Reason {
	case Expired:
		return at("the token expired", "the token has expired", r.Since)
	case Revoked:
		return at("the token was revoked", "the token was revoked", r.Since)
	case Superseded:
		return at(
			"the token was rotated, and this secret stopped working",
			"the token was rotated, and this secret has stopped working",
			r.Since,
		)
	case UserSuspended:
		return "the user of the token is suspended"
	case PolicyBlocked:
		return "the operator has blocked the token, since it exceeds the policy of an audience"
	case Idle:
		return "the token is paused, since it was not used for long; its owner can resume it"
	case AudienceMismatch:
		return "the token is not for this audience"
	case IPNotAllowed:
		return "the token is not allowed from this address"
	case ScopesMissing:
		return r.scopes()
	default:
		return "the token is not valid"
	}
}

func at(when, without string, t time.Time) string {
	if t.IsZero() {
		return without
	}
	return when + " at " + Time(t)
}

func (r Refusal) scopes() string {
	var parts []string
	if len(r.Missing) > 0 {
		parts = append(parts, "the token was not granted "+strings.Join(r.Missing, " "))
	}
	if len(r.Suspended) > 0 {
		parts = append(parts, "its user does not hold "+strings.Join(r.Suspended, " ")+" now")
	}
	if len(r.Paused) > 0 {
		parts = append(parts, "its owner can resume "+strings.Join(r.Paused, " ")+", which was paused")
	}
	if len(parts) == 0 {
		return "the token lacks a scope that this request needs"
	}
	return strings.Join(parts, "; ")
}

// Metadata returns what programs read, by the keys above; nil: there is nothing.
func (r Refusal) Metadata() map[string]string {
	m := map[string]string{}
	add := func(key, value string) {
		if value != "" {
			m[key] = value
		}
	}
	add(KeyExpireTime, Time(r.ExpireTime))
	add(KeyRenewURL, r.RenewURL)
	switch r.Reason {
	case Revoked:
		add(KeyRevokeTime, Time(r.Since))
	case Superseded:
		add(KeySupersedeTime, Time(r.Since))
	case ScopesMissing:
		add(KeyRequiredScopes, strings.Join(r.Required, " "))
		add(KeyMissingScopes, strings.Join(r.Missing, " "))
		add(KeySuspendedScopes, strings.Join(r.Suspended, " "))
		add(KeyPausedScopes, strings.Join(r.Paused, " "))
	}
	if len(m) == 0 {
		return nil
	}
	return m
}

// Due reports whether a token that expires then is in its last RenewBefore, or past its end.
func Due(expire, now time.Time) bool {
	return !expire.IsZero() && !now.Before(expire.Add(-RenewBefore))
}
