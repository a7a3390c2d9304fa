package call

import (
	"strings"

	"patd/server/internal/fault"
	"patd/tokens"
	"patd/tokens/secret"
)

// ErrKeyUnsupported returns the error for an idempotency key that would be ignored.
func ErrKeyUnsupported() *tokens.Error {
	return tokens.Invalid(
		"IDEMPOTENCY_KEY_UNSUPPORTED",
		"request_id",
		"this call takes no Idempotency-Key; leave it out. "+
			"CreateToken, RotateToken, RotateSelf, CreateService and RotateService take one",
	)
}

// reaches reports whether the subject of a request is within the caller's reach: a signed-in user reaches its own
// things only. The domain checks that again; here every request about another user gets the same error, whether or not
// that user exists and the request is well-formed.
func reaches(a tokens.Actor, req any) bool {
	if a.Kind != tokens.UserActor {
		return true
	}
	r, ok := req.(interface{ GetUser() string })
	return ok && (r.GetUser() == "me" || r.GetUser() == a.User)
}

// Denied returns the error for a caller that lacks a right. For a service it names a permission that would suffice.
func Denied(r Right, a tokens.Actor) *tokens.Error {
	e := tokens.Fail(tokens.CodeDenied, fault.ReasonDenied, denial(r, a))
	if a.Kind == tokens.ServiceActor && r.any != 0 {
		e.Metadata = map[string]string{fault.KeyPermission: r.any.Names()[0]}
	}
	return e
}

// denial says which right the caller lacks.
func denial(r Right, a tokens.Actor) string {
	switch {
	case r.bearer:
		return "this call is for the bearer of a personal access token"
	case a.Kind == tokens.TokenActor:
		return "a personal access token may not make this call"
	case a.Kind == tokens.OperatorActor && r.asUser:
		return "an operator acts as no user"
	case a.Kind == tokens.UserActor && r.user:
		return "a signed-in user reaches only what is its own"
	case a.Kind == tokens.UserActor:
		return "a signed-in user may not make this call"
	case r.any != 0:
		return "this call needs the permission " + strings.Join((r.any|tokens.PermAdmin).Names(), " or ")
	default:
		return "nobody may make this call"
	}
}

// refusalOf describes a refused call by the well-formed names in its request.
func refusalOf(action tokens.Action, reason string, req any) tokens.Refusal {
	out := tokens.Refusal{Action: action, Reason: reason}
	if r, ok := req.(interface{ GetUser() string }); ok {
		out.User = loggable(r.GetUser())
	}
	if r, ok := req.(interface{ GetTokenId() string }); ok {
		if id, err := secret.ParseID(r.GetTokenId()); err == nil {
			out.TokenID = id.String()
		}
	}
	if strings.HasPrefix(string(action), "service.") {
		if r, ok := req.(interface{ GetName() string }); ok {
			out.Service = loggable(r.GetName())
		}
	}
	return out
}

// TooLarge returns the error for a message over the limit, with the reason that REST gives for a body. The transport's
// limit is somewhat higher, since its own error would carry no reason.
func TooLarge() *tokens.Error {
	return tokens.Fail(tokens.CodeExhausted, fault.ReasonTooLarge, "a request holds at most 1 MiB")
}
