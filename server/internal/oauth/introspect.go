package oauth

import (
	"context"
	"strings"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/fault"
	"patd/server/internal/limit"
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
		return nil, tokens.Fail(
			tokens.CodeUnauthenticated,
			"CREDENTIAL_REQUIRED",
			"this call needs a client: a service's name with that service's token",
		)
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
		return nil, tokens.Invalid(
			fault.ReasonStays,
			"token",
			"is a JWT, which lasts until its exp; revoke what it was exchanged for, so that no other follows",
		)
	}
	if c.Actor.Kind == tokens.ServiceActor {
		return nil, o.revokeFor(ctx, c, secret)
	}
	return nil, o.revokeForBearer(ctx, c, secret)
}

// revokeFor revokes for a service, which pays for what it sends.
func (o *Endpoints) revokeFor(ctx context.Context, c *oauthCall, text tokens.Secret) error {
	if err := o.Limits.Revocation(c.Actor); err != nil {
		return err
	}
	found, err := o.Service.FindSecret(ctx, text)
	if err != nil {
		return c.unlessNotLive(err)
	}
	c.Subject = found.TokenID
	return found.Revoke(ctx, c.Actor)
}

// revokeForBearer revokes for a caller without a credential. Only the secret speaks for it, so that the secret is
// looked at first, as a credential is: what others at its address send does not keep the bearer of a live one from
// revoking it.
func (o *Endpoints) revokeForBearer(ctx context.Context, c *oauthCall, text tokens.Secret) error {
	presented := limit.Name(text.Reveal())
	if blocked, after := o.Limits.Ended.Blocked(presented); blocked {
		return o.Limits.Refuse(call.LimitRevoke, after, "this token has ended, and is presented too often")
	}
	var found tokens.FoundSecret
	err := o.guarded(ctx, c, func(ctx context.Context) (err error) {
		found, err = o.Service.FindSecret(ctx, text)
		return err
	})
	if err != nil {
		if call.HasEnded(err) {
			o.Limits.Ended.Fail(presented)
		}
		return c.unlessNotLive(err)
	}
	c.Subject = found.TokenID
	if err := o.Limits.Revocation(c.Actor); err != nil {
		return err
	}
	return found.Revoke(ctx, c.Actor)
}

// unlessNotLive returns nil for the error of a secret that is not live (RFC 7009 section 2.2), and notes for the log
// which token it was of, if it is right.
func (c *oauthCall) unlessNotLive(err error) error {
	if !call.IsBadCredential(err) {
		return err
	}
	c.Subject = call.EndedToken(err)
	return nil
}
