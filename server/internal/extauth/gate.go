package extauth

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"patd/internal/bearer"
	"patd/server/internal/call"
	"patd/server/internal/httpx"
	"patd/tokens"
	"patd/tokens/secret"
)

// Headers for the upstream of a request that may pass. Gateways overwrite the client's headers of these names.
const (
	headerUser    = "X-Auth-User"
	headerScopes  = "X-Auth-Scopes"
	headerID      = "X-Auth-Token-Id"
	headerExpires = "X-Token-Expires-At"
)

// Parameters with which a gateway names a route's needs.
const (
	paramScope    = "scope"
	paramAudience = "audience"
)

// gatekeeper decides whether a request may pass a gateway.
type gatekeeper struct{ service *tokens.Service }

// passage is a request at a gateway, and the needs of its route.
type passage struct {
	authorization []string // every value of that header
	scopes        []string // all are required; without duplicates, in the order requested
	audience      string   // empty: any
	client        netip.Addr
}

// verdict is the decision on a request.
type verdict struct {
	// code is OK, Unauthenticated or PermissionDenied.
	code codes.Code
	// challenge is the WWW-Authenticate header (RFC 6750 section 3) of a rejection; reason and message describe it.
	challenge, reason, message string
	// told are the headers for the upstream, by name. All are always set, so that none of the client's remains.
	told []field
}

// field is a header.
type field struct{ name, value string }

// decide asks the domain, for the call that ctx is. An error says nothing about the token, and the request must not pass.
func (g gatekeeper) decide(ctx context.Context, a tokens.Actor, p passage) (verdict, error) {
	secret, refused := readPresented(p.authorization)
	if refused != nil {
		return *refused, nil
	}
	in, err := g.service.Introspect(ctx, a, tokens.IntrospectRequest{
		Secret: secret, Audience: p.audience, Required: p.scopes, ClientIP: p.client,
	})
	c := call.Of(ctx)
	c.Decision, c.Subject = in.Decision, in.SubjectID()
	switch {
	case err != nil:
		return verdict{}, err
	case in.Decision == tokens.Allow:
		return verdict{code: codes.OK, told: tell(&in, p.scopes)}, nil
	case in.Decision == tokens.InsufficientScope:
		return verdict{
			code: codes.PermissionDenied, challenge: httpx.BearerChallenge("insufficient_scope", strings.Join(p.scopes, " ")),
			reason: "SCOPE_INSUFFICIENT", message: "the token lacks a scope that this request needs",
		}, nil
	default:
		return refuse("invalid_token", "the token is not good"), nil
	}
}

// refuse returns the verdict for a request without a good token. code: RFC 6750 section 3.1; empty: no token.
func refuse(code, message string) verdict {
	return verdict{
		code: codes.Unauthenticated, challenge: httpx.BearerChallenge(code, ""), reason: "CREDENTIAL_INVALID", message: message,
	}
}

// readPresented returns the one bearer token of the Authorization headers, or else a verdict. RFC 6750 section 3.1 has
// 400 for a malformed request, such as one with two tokens. Here it is 401, since gateways treat any code but 401 and
// 403 as a fault of patd's. A comma or space is the trace of two headers that a gateway joined.
func readPresented(headers []string) (tokens.Secret, *verdict) {
	missing, malformed := refuse("", "this request needs a token: Authorization: Bearer and a token"), refuse("invalid_request", "give one token, once")
	missing.reason = "CREDENTIAL_REQUIRED"
	switch {
	case len(headers) > 1:
		return tokens.Secret{}, &malformed
	case len(headers) == 0:
		return tokens.Secret{}, &missing
	}
	token, ok := bearer.Token(headers[0])
	switch {
	case !ok || token == "":
		return tokens.Secret{}, &missing
	case strings.ContainsAny(token, ", "):
		return tokens.Secret{}, &malformed
	}
	return secret.NewSecret(token), nil
}

// tell returns the headers for the upstream, for a token with the requested scopes. The expiry is cut to whole seconds,
// so that a token never seems to last longer than it does.
func tell(in *tokens.Introspection, scopes []string) []field {
	expires := ""
	if !in.ExpireTime.IsZero() {
		expires = in.ExpireTime.UTC().Truncate(time.Second).Format(time.RFC3339)
	}
	return []field{
		{headerUser, encodeUser(in.Token.User)},
		{headerScopes, strings.Join(scopes, " ")},
		{headerID, in.Token.ID.String()},
		{headerExpires, expires},
	}
}

// kept reports whether a byte of a user id stays unchanged in a header: printable ASCII, except characters with a
// meaning to parsers of headers, lists or templates.
func kept(c byte) bool { return c > ' ' && c < 0x7f && !strings.ContainsRune(`%,"\{}`, rune(c)) }

// encodeUser encodes a user id, which may be any text, for a header: every byte that is not kept is percent-encoded.
// Any percent-decoder of a path or URI component restores the id.
func encodeUser(id string) string {
	const digits = "0123456789ABCDEF"
	var out strings.Builder
	out.Grow(len(id))
	for i := range len(id) {
		if c := id[i]; kept(c) {
			out.WriteByte(c)
		} else {
			out.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	return out.String()
}

// readScopes reads a route's scopes from one or more lists, separated by spaces. An empty list is rejected: a gateway
// sends it if its variable was never set, and that route would let every token pass.
func readScopes(lists []string) ([]string, error) {
	var scopes []string
	for _, list := range lists {
		before := len(scopes)
		for name := range strings.SplitSeq(list, " ") {
			switch {
			case name == "":
			case !tokens.ValidScope(name) || secret.MayContainSecret(name):
				return nil, tokens.Invalid("SCOPE_INVALID", paramScope, "must be scopes, separated by spaces")
			default:
				scopes = append(scopes, name)
			}
		}
		if len(scopes) == before {
			return nil, tokens.Invalid("SCOPE_INVALID", paramScope, "is given and empty; leave it out where any good token may pass")
		}
	}
	return distinct(scopes), nil
}

// readAudience reads a route's audience; none means any.
func readAudience(values []string) (string, error) {
	switch {
	case len(values) == 0:
		return "", nil
	case len(values) > 1 || values[0] == "":
		return "", tokens.Invalid("AUDIENCE_INVALID", paramAudience, "must be one audience; leave it out where any will do")
	}
	return values[0], nil
}

// distinct removes duplicates and keeps the order.
func distinct(in []string) []string {
	seen := make(map[string]bool, len(in))
	return slices.DeleteFunc(in, func(s string) bool {
		again := seen[s]
		seen[s] = true
		return again
	})
}

// errRoute returns the error for an unknown parameter of a gateway: ignoring it could leave a route open.
func errRoute(name string) *tokens.Error {
	if !httpx.SafeName(name) {
		name = ""
	}
	return tokens.Invalid("PARAMETER_UNKNOWN", name, "no such parameter; there are scope and audience")
}
