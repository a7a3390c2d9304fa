package oauth

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"patd/server/internal/call"
	"patd/server/internal/fault"
	"patd/server/internal/httpx"
	"patd/server/internal/limit"
	"patd/tokens"
	"patd/tokens/refusal"
	"patd/tokens/secret"
)

// The grants of the token endpoint.
const (
	grantExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
	grantRefresh  = "refresh_token"
	grantClient   = "client_credentials" // RFC 6749 section 4.4, which is not served
)

// Types of tokens (RFC 8693 section 3).
const (
	typeAccess = "urn:ietf:params:oauth:token-type:access_token"
	typeJWT    = "urn:ietf:params:oauth:token-type:jwt"
)

// scopeOffline requests a refresh token. It is not a feature.
const scopeOffline = "offline_access"

// tokenAnswer is the response of the token endpoint: RFC 6749 section 5.1, RFC 8693 section 2.2.1.
type tokenAnswer struct {
	AccessToken     string `json:"access_token"`
	IssuedTokenType string `json:"issued_token_type,omitempty"`
	TokenType       string `json:"token_type"`
	ExpiresIn       int64  `json:"expires_in"`
	Scope           string `json:"scope,omitempty"`
	RefreshToken    string `json:"refresh_token,omitempty"`
}

// token serves the token endpoint.
func (o *Endpoints) token(ctx context.Context, c *oauthCall) (any, error) {
	switch c.form.one("grant_type") {
	case grantExchange:
		return o.exchange(ctx, c)
	case grantRefresh:
		return o.refresh(ctx, c)
	case "":
		return nil, tokens.Invalid(
			"PARAMETER_REQUIRED",
			"grant_type",
			"is required: "+grantExchange+" or "+grantRefresh,
		)
	case grantClient:
		return nil, tokens.Fail(
			tokens.CodeInvalid,
			fault.ReasonGrantType,
			"there are no client credentials: call patd with the service's "+
				"own token; for your own APIs exchange the token of a user made for the service (docs/oauth.md says why)",
		)
	default:
		return nil, tokens.Fail(
			tokens.CodeInvalid,
			fault.ReasonGrantType,
			"the grant_type must be "+grantExchange+" or "+grantRefresh,
		)
	}
}

// exchange serves RFC 8693: a personal access token for a short-lived one.
func (o *Endpoints) exchange(ctx context.Context, c *oauthCall) (any, error) {
	q, err := readExchange(c)
	if err != nil {
		return nil, err
	}
	var bearer tokens.Actor
	err = o.guarded(ctx, c, func(ctx context.Context) error {
		bearer, err = o.subject(ctx, c, q.Subject)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := o.Limits.Exchange(ctx, bearer); err != nil {
		return nil, err
	}
	g, err := o.Service.Exchange(ctx, q)
	if err != nil {
		return nil, err
	}
	answer, err := o.grant(g)
	if err != nil {
		return nil, err
	}
	httpx.SetRenewal(c.header, refusal.Time(g.SubjectExpireTime), o.Service.RenewURL(g.SubjectExpireTime))
	if answer.IssuedTokenType = typeAccess; q.Format == tokens.AccessJWT {
		answer.IssuedTokenType = typeJWT
	}
	return answer, nil
}

// readExchange reads the parameters of RFC 8693 section 2.1.
func readExchange(c *oauthCall) (q tokens.ExchangeRequest, err error) {
	q = tokens.ExchangeRequest{Client: c.client, Caller: c.Actor, Peer: c.Peer}
	if q.Subject, err = c.form.secret("subject_token"); err != nil {
		return q, err
	}
	switch requested := c.form.one("requested_token_type"); {
	case c.form.one("subject_token_type") != typeAccess:
		return q, tokens.Invalid("TOKEN_TYPE_UNSUPPORTED", "subject_token_type", "must be "+typeAccess)
	case requested != "" && requested != typeAccess && requested != typeJWT:
		return q, tokens.Invalid("TOKEN_TYPE_UNSUPPORTED", "requested_token_type", "must be "+typeAccess+" or "+typeJWT)
	case c.form.one("actor_token") != "" || c.form.one("actor_token_type") != "":
		return q, tokens.Invalid("ACTOR_UNSUPPORTED", "actor_token", "nobody acts for another here; leave it out")
	case requested == typeJWT:
		q.Format = tokens.AccessJWT
	}
	q.Scopes, q.Offline, err = readScope(c.form.one("scope"))
	if err == nil {
		q.Audiences, q.Resources, err = readTargets(c.form)
	}
	return q, err
}

// subject identifies the token to exchange, for the log and for its exchange limit. The limit counts tokens with a
// valid secret, so that no caller uses up another's. The error is the one that the token's bearer gets elsewhere.
func (o *Endpoints) subject(ctx context.Context, c *oauthCall, secret tokens.Secret) (tokens.Actor, error) {
	bearer, err := o.Service.Authenticate(ctx, secret, c.Peer)
	var e *tokens.Error
	switch {
	case errors.As(err, &e) && e.Code == tokens.CodeUnauthenticated:
		told := *e
		told.Code = tokens.CodeInvalid // RFC 8693 section 2.2.2: the client's own credential is not what is wrong
		return tokens.Actor{}, &told
	case err == nil && bearer.Kind != tokens.TokenActor:
		return tokens.Actor{}, tokens.Invalid(fault.ReasonSubject, "subject_token", "is no personal access token")
	case err != nil:
		return tokens.Actor{}, err
	}
	c.Subject = bearer.TokenID
	if c.Actor.Kind == tokens.Nobody {
		c.Actor = bearer
	}
	return bearer, nil
}

// refresh serves RFC 6749 section 6: a refresh token for the next one and an access token.
func (o *Endpoints) refresh(ctx context.Context, c *oauthCall) (any, error) {
	q := tokens.RefreshRequest{Client: c.client, Caller: c.Actor, Peer: c.Peer, Admit: o.Limits.Exchange}
	var err error
	if q.Token, err = c.form.secret("refresh_token"); err != nil {
		return nil, err
	}
	if q.Scopes, _, err = readScope(c.form.one("scope")); err != nil {
		return nil, err
	}
	if q.Audiences, q.Resources, err = readTargets(c.form); err != nil {
		return nil, err
	}
	// Refresh tokens are not cached: one that has ended costs a read each time.
	presented := limit.Name(q.Token.Reveal())
	if blocked, after := o.Limits.Ended.Blocked(presented); blocked {
		return nil, o.Limits.Refuse(
			call.LimitExchange,
			after,
			"this refresh token has ended, and is presented too often",
		)
	}
	var g tokens.Granted
	err = o.guarded(ctx, c, func(ctx context.Context) error {
		g, err = o.Service.Refresh(ctx, q)
		return err
	})
	if err != nil {
		if call.HasEnded(err) {
			o.Limits.Ended.Fail(presented)
		}
		return nil, err
	}
	c.Subject = g.TokenID
	return o.grant(g)
}

// grant writes a grant. Its lifetime is cut to whole seconds.
func (o *Endpoints) grant(g tokens.Granted) (*tokenAnswer, error) {
	answer := &tokenAnswer{
		TokenType: schemeBearer, ExpiresIn: int64(g.ExpiresIn / time.Second),
		Scope: strings.Join(g.Scopes, " "), RefreshToken: g.Refresh.Reveal(),
	}
	if g.Format != tokens.AccessJWT {
		answer.AccessToken = g.Access.Reveal()
		return answer, nil
	}
	jwt, err := o.sign(g.Claims)
	if err != nil {
		return nil, err
	}
	answer.AccessToken = jwt.Reveal()
	return answer, nil
}

// readScope parses scopes joined by single spaces (RFC 6749 section 3.3): sorted, without duplicates, nil for none.
// offline reports whether they request a refresh token.
func readScope(text string) (scopes []string, offline bool, err error) {
	if text == "" {
		return nil, false, nil
	}
	for scope := range strings.SplitSeq(text, " ") {
		switch {
		case scope == scopeOffline:
			offline = true
		case tokens.ValidScope(scope):
			scopes = append(scopes, scope)
		default:
			return nil, false, tokens.Invalid(
				fault.ReasonScope,
				"scope",
				"is names of features joined by single spaces (RFC 6749 section 3.3)",
			)
		}
	}
	slices.Sort(scopes)
	return slices.Compact(scopes), offline, nil
}

// readTargets reads the targets of the access token. A text that is not clean names no target.
func readTargets(f form) (audiences, resources []string, err error) {
	audiences, resources = f["audience"], f["resource"]
	for _, target := range slices.Concat(audiences, resources) {
		if !httpx.CleanText(target) || secret.MayContainSecret(target) {
			return nil, nil, tokens.Invalid(fault.ReasonTarget, "", "there is no such audience or resource")
		}
	}
	return audiences, resources, nil
}
