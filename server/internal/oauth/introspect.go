package oauth

import (
	"context"
	"strings"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/fault"
	"patd/server/internal/wire"
	"patd/tokens"
	"patd/tokens/secret"
)

// tokenInfo is the response of RFC 7662 section 2.2. The zero value is the response for any token that is not active:
// garbage, other kinds of token, and tokens that the caller must not know about (section 2.2, last paragraph).
type tokenInfo struct {
	Active    bool   `json:"active"`
	Scope     string `json:"scope,omitempty"`
	ClientID  string `json:"client_id,omitempty"`
	Username  string `json:"username,omitempty"`
	TokenType string `json:"token_type,omitempty"`
	Expires   int64  `json:"exp,omitempty"`
	Issued    int64  `json:"iat,omitempty"`
	NotBefore int64  `json:"nbf,omitempty"`
	Subject   string `json:"sub,omitempty"`
	Audience  any    `json:"aud,omitempty"`
	Issuer    string `json:"iss,omitempty"`
	ID        string `json:"jti,omitempty"`
}

// introspect serves RFC 7662. The caller needs the same right as over gRPC. client_ip is an extension: the address of
// the client that presented the token, without which a token bound to networks is not active.
func (o *Endpoints) introspect(ctx context.Context, c *oauthCall) (any, error) {
	r := o.Of(patdv1.IntrospectionService_Introspect_FullMethodName).Right
	switch {
	case c.Actor.Kind != tokens.ServiceActor:
		return nil, tokens.Fail(tokens.CodeUnauthenticated, "CREDENTIAL_REQUIRED", "this call needs a client: a service's name with that service's token")
	case !r.Allows(c.Actor):
		return nil, call.Denied(r, c.Actor)
	}
	if _, err := c.form.secret("token"); err != nil {
		return nil, err
	}
	ip, ok := wire.FromIP(c.form.one("client_ip"))
	if !ok {
		return nil, wire.ErrClientIP()
	}
	out, err := o.Service.Introspect(ctx, c.Actor, tokens.IntrospectRequest{
		Secret: secret.NewSecret(c.form.one("token")), ClientIP: ip,
	})
	if err != nil {
		return nil, err
	}
	c.Decision, c.Subject = out.Decision, out.SubjectID()
	return o.describe(&out), nil
}

// describe writes a response. Times are cut to whole seconds, so that a token never seems to last longer than it does.
func (o *Endpoints) describe(in *tokens.Introspection) tokenInfo {
	if !in.Decision.Active() {
		return tokenInfo{}
	}
	out := tokenInfo{
		Active: true, Scope: strings.Join(in.Effective, " "), ClientID: in.Token.ID.String(), Username: in.Token.User,
		TokenType: schemeBearer, Issued: in.IssueTime.Unix(), NotBefore: in.IssueTime.Unix(),
		Subject: in.Token.User, Audience: audienceClaim(in.Audiences), Issuer: o.issuer, ID: in.Token.ID.String(),
	}
	if !in.ExpireTime.IsZero() {
		out.Expires = in.ExpireTime.Unix()
	}
	if in.AccessID != 0 {
		out.ID = in.AccessID.String()
		if in.ClientID != "" {
			out.ClientID = in.ClientID
		}
	}
	return out
}

// audienceClaim returns aud (RFC 7519 section 4.1.3): a text for one audience, a list for several, nil for none.
func audienceClaim(audiences []string) any {
	switch len(audiences) {
	case 0:
		return nil
	case 1:
		return audiences[0]
	default:
		return audiences
	}
}

// revoke serves RFC 7009. Any bearer of a token may revoke it, as for public clients in RFC 7009 section 5; a client
// that authenticates is recorded as the actor. An unknown token gets the same response as a revoked one; a token that
// stays valid gets an error.
func (o *Endpoints) revoke(ctx context.Context, c *oauthCall) (any, error) {
	secret, err := c.form.secret("token")
	if err != nil {
		return nil, err
	}
	if o.isGoodJWT(secret) {
		return nil, tokens.Invalid(fault.ReasonStays, "token", "is a JWT, which lasts until its exp; revoke what it was exchanged for, so that no other follows")
	}
	if err := o.Limits.Revocation(c.Actor); err != nil {
		return nil, err
	}
	return nil, o.Service.RevokeSecret(ctx, c.Actor, secret)
}
