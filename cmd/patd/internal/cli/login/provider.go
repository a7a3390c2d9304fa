package login

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"patd/internal/loopback"
	"patd/server/signin"
	"patd/tokens"
	"patd/tokens/secret"
)

// Server is how people sign in to one server, as that server says.
type Server struct {
	Issuer     string            `json:"issuer"`
	ClientID   string            `json:"client_id"`
	Scopes     []string          `json:"scopes"`
	Audiences  []string          `json:"audiences"` // of which the token must be for one
	Parameters map[string]string `json:"parameters,omitempty"`
	Port       int               `json:"-"` // of the redirect address; 0: any
}

// ParameterNames returns the parameters of requests to a provider that a server may set. No other is accepted: a server
// must not decide where the provider sends its response.
func ParameterNames() []string { return []string{"audience", "resource", "prompt", "organization"} }

func (s Server) check() error {
	if s.Issuer == "" || s.ClientID == "" || len(s.Audiences) == 0 {
		return errors.New("the server does not say at which provider, as which client and for which audience")
	}
	for name := range s.Parameters {
		if !slices.Contains(ParameterNames(), name) {
			return fmt.Errorf(
				"the server asks for the parameter %q, and may set %s only",
				name,
				strings.Join(ParameterNames(), ", "),
			)
		}
	}
	return nil
}

// Grant is what a provider gives a person who signed in.
type Grant struct {
	Bearer  tokens.Secret // the JWT that the server takes
	Refresh tokens.Secret // zero: none
	Expiry  time.Time     // of Bearer
	Subject string        // `sub` of the ID token; empty: there was none
}

// Provider is an OpenID provider, seen by a public client.
type Provider struct {
	server Server
	users  *signin.SignIn // for its client, which fetches from https and loopback only, within limits
	oidc   *oidc.Provider
	config oauth2.Config
	more   struct {
		Revocation string `json:"revocation_endpoint"`
		Iss        bool   `json:"authorization_response_iss_parameter_supported"`
	}
	now func() time.Time
}

// Discover reads the provider's discovery document. Call Close to release its connections.
func Discover(ctx context.Context, s Server, now func() time.Time) (*Provider, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	users, err := signin.New(
		signin.Config{
			Issuers: []signin.Issuer{{URL: s.Issuer, Audiences: s.Audiences}},
			Timeout: 10 * time.Second,
			Now:     now,
		},
	)
	if err != nil {
		return nil, err
	}
	p := &Provider{server: s, users: users, now: now}
	if p.oidc, err = oidc.NewProvider(p.with(ctx), s.Issuer); err == nil {
		err = p.oidc.Claims(&p.more)
	}
	if err != nil {
		users.Close()
		return nil, fmt.Errorf("read the discovery document of %s: %w", s.Issuer, clip(err))
	}
	end := p.oidc.Endpoint()
	end.AuthStyle = oauth2.AuthStyleInParams // a public client has only its id
	for name, address := range map[string]string{"authorization": end.AuthURL, "token": end.TokenURL, "device": end.DeviceAuthURL, "revocation": p.more.Revocation} {
		if address != "" && !safe(address) {
			users.Close()
			return nil, fmt.Errorf("the %s endpoint of %s is not https", name, s.Issuer)
		}
	}
	p.config = oauth2.Config{ClientID: s.ClientID, Endpoint: end, Scopes: s.Scopes}
	return p, nil
}

// Close releases the connections to the provider.
func (p *Provider) Close() { p.users.Close() }

func (p *Provider) with(ctx context.Context) context.Context {
	return oidc.ClientContext(ctx, p.users.Client())
}

// safe reports whether an address is https, or http on this machine.
func safe(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Host != "" && u.User == nil &&
		(u.Scheme == "https" || u.Scheme == "http" && loopback.Host(u.Hostname()))
}

// clip makes an error short: it may contain a page that a provider sent.
func clip(err error) error {
	if text := err.Error(); len(text) > 300 {
		return errors.New(text[:300] + "…")
	}
	return err
}

// parameters returns the server's parameters for requests to one endpoint. The token endpoint takes resource (RFC 8707
// section 2.2); the others belong to the request that the person sees.
func (p *Provider) parameters(token bool) []oauth2.AuthCodeOption {
	var all []oauth2.AuthCodeOption
	for name, value := range p.server.Parameters {
		if !token || name == "resource" {
			all = append(all, oauth2.SetAuthURLParam(name, value))
		}
	}
	return all
}

// refused makes the error of a request that the provider refused readable. It repeats no token and no code.
func refused(what string, err error) error {
	var r *oauth2.RetrieveError
	if !errors.As(err, &r) {
		return fmt.Errorf("%s: the provider cannot be reached: %w", what, clip(err))
	}
	switch r.ErrorCode {
	case "":
		return fmt.Errorf("%s: the provider responds with %s", what, r.Response.Status)
	case "access_denied":
		return fmt.Errorf("%s: it was denied at the provider", what)
	case "expired_token":
		return fmt.Errorf("%s: the code was not entered in time; start again", what)
	}
	text := fmt.Sprintf("%s: the provider says %s", what, r.ErrorCode)
	if r.ErrorDescription != "" {
		text += ": " + secret.Redact(r.ErrorDescription)
	}
	return clip(errors.New(text))
}

// grant checks a response of the token endpoint. nonce is that of the request; "": there was none. subject is whom an
// earlier ID token named; "": there was none.
func (p *Provider) grant(ctx context.Context, t *oauth2.Token, nonce, subject string) (Grant, error) {
	g := Grant{Refresh: secret.NewSecret(t.RefreshToken), Subject: subject}
	raw, _ := t.Extra("id_token").(string)
	if raw == "" && nonce != "" {
		return Grant{}, errors.New("the provider gave no ID token; --oidc-cli-scopes needs openid")
	}
	if raw != "" {
		id, err := p.oidc.Verifier(&oidc.Config{ClientID: p.server.ClientID, Now: p.now}).Verify(p.with(ctx), raw)
		switch {
		case err != nil:
			return Grant{}, fmt.Errorf("the ID token is not good: %w", clip(err))
		case nonce != "" && id.Nonce != nonce:
			return Grant{}, errors.New("the ID token has another nonce: it is not the response to this request")
		case id.AccessTokenHash != "" && id.VerifyAccessToken(t.AccessToken) != nil:
			return Grant{}, errors.New("the access token is not the ID token's")
		case subject != "" && id.Subject != subject:
			return Grant{}, errors.New("the ID token is of another person")
		}
		g.Subject = id.Subject
	}
	access, id := claimsOf(t.AccessToken), claimsOf(raw)
	switch {
	case p.accepts(access):
		g.Bearer, g.Expiry = secret.NewSecret(t.AccessToken), access.expiry()
	case p.accepts(id):
		g.Bearer, g.Expiry = secret.NewSecret(raw), id.expiry()
	default:
		return Grant{}, fmt.Errorf(
			"the provider gave no token for %s: its access token is %s; the server's --oidc-cli-scopes or --oidc-cli-parameters should ask for it",
			strings.Join(p.server.Audiences, " or "),
			access,
		)
	}
	return g, nil
}

func (p *Provider) accepts(c claims) bool {
	return c.known && c.Issuer == p.server.Issuer &&
		slices.ContainsFunc(c.Audience, func(a string) bool { return slices.Contains(p.server.Audiences, a) })
}

// claims are what a JWT says of itself. Nothing is verified: the server does that with each call.
type claims struct {
	known    bool
	Issuer   string    `json:"iss"`
	Audience audiences `json:"aud"`
	Expiry   float64   `json:"exp"`
}

// audiences is one text or several (RFC 7519 section 4.1.3).
type audiences []string

// UnmarshalJSON reads either form.
func (a *audiences) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*a = audiences{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(a))
}

func claimsOf(jwt string) claims {
	var c claims
	if !signin.LooksLikeJWT(jwt) {
		return c
	}
	body, err := base64.RawURLEncoding.DecodeString(strings.Split(jwt, ".")[1])
	c.known = err == nil && json.Unmarshal(body, &c) == nil
	return c
}

func (c claims) expiry() time.Time { return time.Unix(int64(min(c.Expiry, 1<<40)), 0) }

// String says what the token is for.
func (c claims) String() string {
	if !c.known {
		return "opaque"
	}
	return fmt.Sprintf("for %s, by %s", strings.Join(c.Audience, ", "), c.Issuer)
}

// ErrEnded is the error for a refresh token that the provider does not accept any more.
var ErrEnded = errors.New("the provider ended it")

// Refresh exchanges a refresh token for a new grant of the same person. The provider may have ended the old refresh
// token then, so the grant must be kept before it is used. A refresh token that is over is ErrEnded.
func (p *Provider) Refresh(ctx context.Context, old Grant) (Grant, error) {
	form := url.Values{
		"grant_type":    {"refresh_token"},
		"refresh_token": {old.Refresh.Reveal()},
		"client_id":     {p.server.ClientID},
	}
	if r, ok := p.server.Parameters["resource"]; ok {
		form.Set("resource", r)
	}
	var answer struct {
		oauth2.Token
		ID    string `json:"id_token"`
		Error string `json:"error"`
	}
	status, err := p.post(ctx, p.config.Endpoint.TokenURL, form, &answer)
	switch {
	case err != nil:
		return Grant{}, fmt.Errorf("refresh: %w", clip(err))
	case answer.Error == "invalid_grant":
		return Grant{}, ErrEnded
	case status != http.StatusOK:
		return Grant{}, fmt.Errorf("refresh: the provider responds with %d %.40q", status, answer.Error)
	}
	g, err := p.grant(ctx, answer.WithExtra(map[string]any{"id_token": answer.ID}), "", old.Subject)
	if err == nil && g.Refresh.Reveal() == "" {
		g.Refresh = old.Refresh
	}
	return g, err
}

// Revoke ends a refresh token at the provider (RFC 7009). A provider without such an endpoint is an error.
func (p *Provider) Revoke(ctx context.Context, refresh tokens.Secret) error {
	if p.more.Revocation == "" {
		return errors.New("the provider has no revocation endpoint")
	}
	form := url.Values{
		"token":           {refresh.Reveal()},
		"token_type_hint": {"refresh_token"},
		"client_id":       {p.server.ClientID},
	}
	status, err := p.post(ctx, p.more.Revocation, form, nil)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("the provider responds with %d", status)
	}
	return err
}

// post sends a form, and reads a JSON response unless into is nil.
func (p *Provider) post(ctx context.Context, address string, form url.Values, into any) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	response, err := p.users.Client().Do(r)
	if err != nil {
		return 0, fmt.Errorf("the provider cannot be reached: %w", err)
	}
	defer response.Body.Close()
	if into != nil && json.NewDecoder(response.Body).Decode(into) != nil && response.StatusCode == http.StatusOK {
		return 0, errors.New("the provider's response is no JSON")
	}
	return response.StatusCode, nil
}
