package page

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"patd/server/signin"
	"patd/tokens"
)

// Provider is the OpenID provider at which users sign in, with this server as its confidential client.
type Provider struct {
	Issuer   string
	ClientID string
	// Secret returns the client's secret. It is called for each sign-in, so that the file may change.
	Secret func() (tokens.Secret, error)
	Scopes []string // beside openid
	// Identify reads who the bearer of verified claims is, see signin.SignIn.Identify.
	Identify func(issuer string, claims []byte) (signin.Identity, error)
	// NeedsClaim reports whether claims lack one that Identify reads.
	NeedsClaim func(issuer string, claims []byte) bool
	// VerifySignature returns the payload of a JWT that the issuer signed, see signin.SignIn.VerifySignature.
	VerifySignature func(ctx context.Context, issuer, jwt string) ([]byte, error)
	Client          *http.Client
	Now             func() time.Time

	mu     sync.Mutex
	found  *discovered
	failed time.Time // when the last discovery failed
	cause  error
}

// discovered is what the provider's discovery document says.
type discovered struct {
	provider *oidc.Provider
	at       time.Time
	more     struct {
		EndSession string `json:"end_session_endpoint"`
		Iss        bool   `json:"authorization_response_iss_parameter_supported"`
	}
}

const (
	rediscover    = time.Hour       // an older document is fetched again
	discoverAgain = 3 * time.Second // a provider that failed gets no request for this long
)

// with returns a context for requests to the provider.
func (p *Provider) with(ctx context.Context) context.Context {
	return oidc.ClientContext(ctx, p.Client)
}

// discover returns the provider's discovery document. An old one serves while the provider does not answer.
func (p *Provider) discover(ctx context.Context) (*discovered, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.Now()
	if p.found != nil && now.Sub(p.found.at) < rediscover {
		return p.found, nil
	}
	if since := now.Sub(p.failed); p.cause != nil && since >= 0 && since < discoverAgain {
		return p.stale(p.cause)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	found := &discovered{at: now}
	provider, err := oidc.NewProvider(p.with(ctx), p.Issuer)
	if err == nil {
		found.provider = provider
		err = provider.Claims(&found.more)
	}
	if err != nil {
		p.failed, p.cause = now, fmt.Errorf("discover the provider: %w", clip(err))
		return p.stale(p.cause)
	}
	p.found, p.cause = found, nil
	return found, nil
}

func (p *Provider) stale(cause error) (*discovered, error) {
	if p.found != nil {
		return p.found, nil
	}
	return nil, outage(cause)
}

// clip makes an error short: it may contain a page that a provider sent.
func clip(err error) error {
	if text := err.Error(); len(text) > 200 {
		return errors.New(text[:200] + "…")
	}
	return err
}

func outage(cause error) error {
	return &tokens.Error{
		Code:    tokens.CodeUnavailable,
		Reason:  "SIGNIN_UNAVAILABLE",
		Message: "the identity provider does not answer; try again",
		Cause:   cause,
	}
}

// Origins returns the origins of the provider that a form may lead to.
func (p *Provider) Origins() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	addresses := []string{p.Issuer}
	if p.found != nil {
		addresses = append(addresses, p.found.provider.Endpoint().AuthURL, p.found.more.EndSession)
	}
	var origins []string
	for _, a := range addresses {
		u, err := url.Parse(a)
		if err != nil || u.Host == "" {
			continue
		}
		if o := u.Scheme + "://" + u.Host; len(origins) == 0 || origins[len(origins)-1] != o {
			origins = append(origins, o)
		}
	}
	return origins
}

func (p *Provider) config(d *discovered, redirect string) oauth2.Config {
	return oauth2.Config{
		ClientID:    p.ClientID,
		Endpoint:    d.provider.Endpoint(),
		RedirectURL: redirect,
		Scopes:      append([]string{oidc.ScopeOpenID}, p.Scopes...),
	}
}

// errProvider is the error for a sign-in that the provider refused or that does not hold. why is for the log.
func errProvider(why error) error {
	return &tokens.Error{
		Code: tokens.CodeUnauthenticated, Reason: "SIGNIN_FAILED", Message: "signing in did not work; try again",
		Cause: fmt.Errorf("sign in: %w", clip(why)),
	}
}

// redeem exchanges a code for the user's identity. It also returns the ID token, which names the session when the user
// signs out at the provider.
func (p *Provider) redeem(
	ctx context.Context,
	d *discovered,
	redirect, code, nonce, verifier string,
) (signin.Identity, string, error) {
	ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	ctx = p.with(ctx)
	secret, err := p.Secret()
	if err != nil {
		return signin.Identity{}, "", outage(fmt.Errorf("read the client's secret: %w", err))
	}
	c := p.config(d, redirect)
	c.ClientSecret = secret.Reveal()
	token, err := c.Exchange(ctx, code, oauth2.VerifierOption(verifier))
	if err != nil {
		var refused *oauth2.RetrieveError
		if errors.As(err, &refused) && refused.Response.StatusCode < http.StatusInternalServerError {
			return signin.Identity{}, "", errProvider(
				fmt.Errorf(
					"exchange the code: the provider says %d %q",
					refused.Response.StatusCode,
					refused.ErrorCode,
				),
			)
		}
		return signin.Identity{}, "", outage(clip(err))
	}
	raw, _ := token.Extra("id_token").(string)
	keys := &keySet{provider: p}
	verified, err := oidc.NewVerifier(p.Issuer, keys, &oidc.Config{
		ClientID: p.ClientID,
		Now:      p.Now,
		SupportedSigningAlgs: []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384,
			oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA}, // those that are configured count
	}).Verify(ctx, raw)
	if keys.outage != nil {
		return signin.Identity{}, "", keys.outage
	}
	if err != nil {
		return signin.Identity{}, "", errProvider(errors.New("the ID token is invalid"))
	}
	if verified.Nonce != nonce {
		return signin.Identity{}, "", errProvider(errors.New("the ID token has another nonce"))
	}
	if verified.AccessTokenHash != "" && verified.VerifyAccessToken(token.AccessToken) != nil {
		return signin.Identity{}, "", errProvider(errors.New("the access token is not the ID token's"))
	}
	var claims json.RawMessage
	if err := verified.Claims(&claims); err != nil {
		return signin.Identity{}, "", errProvider(errors.New("the claims of the ID token cannot be read"))
	}
	if p.NeedsClaim(p.Issuer, claims) && d.provider.UserInfoEndpoint() != "" {
		if claims, err = p.more(ctx, d, token, verified.Subject, claims); err != nil {
			return signin.Identity{}, "", err
		}
	}
	who, err := p.Identify(p.Issuer, claims)
	if err != nil {
		return signin.Identity{}, "", errProvider(err)
	}
	return who, raw, nil
}

// keySet verifies the signature of an ID token by the same keys as those of every other JWT.
type keySet struct {
	provider *Provider
	outage   error // the keys could not be fetched
}

// VerifySignature implements oidc.KeySet.
func (k *keySet) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	payload, err := k.provider.VerifySignature(ctx, k.provider.Issuer, jwt)
	var e *tokens.Error
	if errors.As(err, &e) && e.Code == tokens.CodeUnavailable {
		k.outage = err
	}
	return payload, err
}

// more adds the claims of userinfo that the ID token lacks (OpenID Connect Core 1.0 section 5.3).
func (p *Provider) more(
	ctx context.Context,
	d *discovered,
	token *oauth2.Token,
	subject string,
	claims json.RawMessage,
) (json.RawMessage, error) {
	info, err := d.provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		return nil, outage(fmt.Errorf("read userinfo: %w", clip(err)))
	}
	if info.Subject != subject {
		return nil, errProvider(errors.New("userinfo is of another user"))
	}
	var known, more map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(claims, &known), info.Claims(&more)); err != nil {
		return nil, errProvider(errors.New("the claims of userinfo cannot be read"))
	}
	for name, value := range known {
		more[name] = value
	}
	return json.Marshal(more)
}
