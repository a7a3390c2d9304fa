package httpx

import (
	"encoding/json"
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"patd/internal/bearer"
	"patd/server/internal/fault"
	"patd/tokens/refusal"
)

// realm is the protection space of every challenge of patd's.
const realm = "patd"

// BasicChallenge is the challenge for Basic credentials (RFC 7617).
const BasicChallenge = `Basic realm="` + realm + `", charset="UTF-8"`

// Refused says more about a refused bearer than the error does. The zero Refused is right where nothing is known.
type Refused struct {
	// Code is the error of RFC 6750 section 3.1; empty: the one of the status.
	Code string
	// NoToken says that the request had no credential, so that the challenge has no error.
	NoToken bool
	// Basic adds a challenge for Basic credentials to a 401. Each challenge is a header of its own.
	Basic bool
	// Resource is the resource whose metadata the challenge names; empty: none.
	Resource string
}

// SetRefusal sets the headers of an error for the bearer of a token: the challenges of a 401, that of a 403 for want of
// scopes, and when and where the token is renewed. It is the only place that writes a challenge for a bearer. Other
// errors set nothing.
func SetRefusal(h http.Header, st *status.Status, r Refused) {
	reason, metadata := fault.Info(st)
	SetRenewal(h, metadata[refusal.KeyExpireTime], metadata[refusal.KeyRenewURL])
	c := bearer.Challenge{
		Realm:            realm,
		Error:            r.Code,
		Description:      st.Message(),
		ResourceMetadata: bearer.ResourceMetadata(r.Resource),
	}
	switch {
	case st.Code() == codes.Unauthenticated && r.NoToken:
		c.Error, c.Description = "", ""
	case st.Code() == codes.Unauthenticated:
		if c.Error == "" {
			c.Error = bearer.InvalidToken
		}
	case reason == refusal.ScopesMissing:
		c.Error, c.Scope = bearer.InsufficientScope, metadata[refusal.KeyRequiredScopes]
	case reason == fault.ReasonDenied:
		c.Error, c.Scope, c.Description = bearer.InsufficientScope, metadata[fault.KeyPermission], ""
	default:
		return
	}
	h.Del("WWW-Authenticate")
	if r.Basic && st.Code() == codes.Unauthenticated {
		h.Add("WWW-Authenticate", BasicChallenge) // first, since nginx before 1.23 passes on the first one alone
	}
	h.Add("WWW-Authenticate", c.String())
}

// SetRenewal sets the headers that tell the bearer of a token when it expires, and where to renew it; empty: nothing.
func SetRenewal(h http.Header, expire, renew string) {
	for _, f := range [...]struct{ name, value string }{{refusal.HeaderExpiresAt, expire}, {refusal.HeaderRenew, renew}} {
		if f.value != "" {
			h.Set(f.name, f.value)
		}
	}
}

// errorBody is the JSON form of an error.
type errorBody struct {
	Error struct {
		Code    int               `json:"code"`
		Status  string            `json:"status"`
		Message string            `json:"message"`
		Details []json.RawMessage `json:"details"`
	} `json:"error"`
}

// ErrorBody returns the body of an error with an HTTP code, for WriteJSON.
func ErrorBody(st *status.Status, class fault.Class, code int) any {
	var body errorBody
	body.Error.Code, body.Error.Status, body.Error.Message = code, class.Name, st.Message()
	for _, d := range st.Proto().GetDetails() {
		if raw, err := (protojson.MarshalOptions{UseProtoNames: true}).Marshal(d); err == nil {
			body.Error.Details = append(body.Error.Details, raw)
		}
	}
	return body
}
