package extauth

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"patd/server/internal/call"
	"patd/server/internal/fault"
	"patd/server/internal/httpx"
	"patd/tokens"
	"patd/tokens/refusal"
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
type gatekeeper struct {
	service *tokens.Service
	accept  Accept
}

// passage is a request at a gateway, and the needs of its route.
type passage struct {
	presented
	scopes   []string // all are required; without duplicates, in the order requested
	audience string   // empty: any
	client   netip.Addr
}

// verdict is the decision on a request.
type verdict struct {
	// refused is why the request may not pass, CodeUnauthenticated or CodeDenied, and how says more; nil: it may.
	refused *tokens.Error
	how     httpx.Refused
	// upstream are the headers for the upstream, by name. All are always set, so that none of the client's remains.
	upstream []field
	// expires and renew are the client's headers refusal.HeaderExpiresAt and HeaderRenew of a request that may pass.
	expires, renew string
}

// code returns OK, Unauthenticated or PermissionDenied.
func (v *verdict) code() codes.Code {
	if v.refused == nil {
		return codes.OK
	}
	return fault.ClassOfDomain(v.refused.Code).GRPC
}

// headers returns the headers for the client, and for a refusal its status.
func (v *verdict) headers(requestID string) (http.Header, *status.Status) {
	h := http.Header{}
	if v.refused == nil {
		httpx.SetRenewal(h, v.expires, v.renew)
		return h, nil
	}
	st := fault.Status(v.refused, requestID)
	httpx.SetRefusal(h, st, v.how)
	return h, st
}

// field is a header.
type field struct{ name, value string }

// decide asks the domain, for the call that ctx is, and keeps the reason of a refusal for the log. An error says
// nothing about the token, and the request must not pass.
func (g gatekeeper) decide(ctx context.Context, a tokens.Actor, p passage) (verdict, error) {
	v, err := g.judge(ctx, a, p)
	if err != nil || v.refused == nil {
		return v, err
	}
	_ = call.Of(ctx).Explain(v.refused) // for the log
	if resource, err := g.service.ResourceOf(
		ctx,
		p.audience,
	); err == nil { // a refusal does not wait for more than that
		v.how.Resource = resource
	}
	return v, nil
}

func (g gatekeeper) judge(ctx context.Context, a tokens.Actor, p passage) (verdict, error) {
	secret, refused := g.accept.read(p.presented)
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
		return verdict{
			upstream: tell(&in, p.scopes),
			expires:  refusal.Time(in.ExpireTime),
			renew:    g.service.RenewURL(in.ExpireTime),
		}, nil
	default:
		return verdict{refused: g.service.Refusal(&in, p.scopes), how: httpx.Refused{Basic: g.accept.Basic}}, nil
	}
}

// tell returns the headers for the upstream, for a token with the requested scopes. The expiry is cut to whole seconds,
// so that a token never seems to last longer than it does.
func tell(in *tokens.Introspection, scopes []string) []field {
	return []field{
		{headerUser, encodeUser(in.Token.User)},
		{headerScopes, strings.Join(scopes, " ")},
		{headerID, in.Token.ID.String()},
		{headerExpires, refusal.Time(in.ExpireTime)},
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
			return nil, tokens.Invalid(
				"SCOPE_INVALID",
				paramScope,
				"is given and empty; leave it out where any good token may pass",
			)
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
		return "", tokens.Invalid(
			"AUDIENCE_INVALID",
			paramAudience,
			"must be one audience; leave it out where any will do",
		)
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
