package oauth

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"patd/internal/bearer"
	"patd/server/internal/call"
	"patd/server/internal/connection"
	"patd/server/internal/httpx"
	"patd/tokens"
	"patd/tokens/secret"
)

// The schemes of the Authorization header with which a client may present its service token.
const (
	schemeBasic  = bearer.Basic
	schemeBearer = bearer.Bearer
)

// maxClientID bounds, in bytes, the name of a client without a credential.
const maxClientID = 255

// clientCredential is the name and credential that a client presents.
type clientCredential struct {
	scheme string        // of the Authorization header; empty: in the form, or absent
	name   string        // empty: none was given
	secret tokens.Secret // a service token; empty: none was presented
}

// identifyClient identifies the client. It may present a service token in one way: Basic with the service's name, the
// same in the form (RFC 6749 section 2.3.1), or Bearer (RFC 7662 section 2.1). A token that is presented must be valid.
// A client without one may give a name, which proves nothing.
func (o *Endpoints) identifyClient(ctx context.Context, c *oauthCall, headers []string) error {
	shown, err := readCredential(headers, c.form)
	c.scheme = shown.scheme
	if err == nil && shown.secret.IsEmpty() {
		c.client = tokens.Client{ID: shown.name}
		return nil
	}
	return o.guarded(ctx, c, func(ctx context.Context) error {
		if err != nil {
			return err
		}
		actor, err := o.Service.Authenticate(ctx, shown.secret, c.Peer)
		if err != nil {
			return unlessBadClient(err)
		}
		if actor.Kind != tokens.ServiceActor || shown.scheme != schemeBearer && actor.Name != shown.name {
			return badClient()
		}
		if shown.name != "" && actor.Name != shown.name {
			return errOtherClient()
		}
		c.Actor, c.client = actor, tokens.Client{ID: actor.Name, Authenticated: true}
		c.Connection.Authenticated()
		return nil
	})
}

// KnowClient returns nil if a request from an address has the credential of a service in its header.
func (o *Endpoints) KnowClient(r *http.Request, from netip.Addr) error {
	ctx, cancel := context.WithTimeout(r.Context(), o.Timeout)
	defer cancel()
	c := &oauthCall{Call: &call.Call{Context: ctx, Peer: tokens.Peer{IP: from}, Connection: connection.Of(ctx)}}
	if err := o.identifyClient(ctx, c, r.Header.Values("Authorization")); err != nil {
		return err
	}
	if c.Actor.Kind != tokens.ServiceActor {
		return call.NoCredential()
	}
	return nil
}

// guarded runs a check of the caller's own credential. A bad one is counted, and RATE_LIMITED past the limit of its
// address. The address of a trusted proxy stands for callers that it does not name, and is never limited.
func (o *Endpoints) guarded(ctx context.Context, c *oauthCall, look func(context.Context) error) error {
	if o.Trusted.Has(c.Peer.IP) {
		return look(ctx)
	}
	remembered := o.Limits.FromMemory(ctx, c.Peer.IP)
	if remembered != nil {
		ctx = remembered
	}
	if err := look(ctx); err != nil {
		return o.Limits.Failed(c.Peer.IP, remembered, err)
	}
	return nil
}

// readCredential reads the client's credential from its Authorization headers and its form.
func readCredential(headers []string, f form) (clientCredential, error) {
	name, s := f.one("client_id"), f.one("client_secret")
	if !validClientID(name) {
		return clientCredential{}, tokens.Invalid(
			"CLIENT_ID_INVALID",
			"client_id",
			"is up to 255 printable ASCII characters, and never a secret",
		)
	}
	switch {
	case len(headers) > 1, len(headers) == 1 && s != "":
		return clientCredential{}, tokens.Invalid(
			"AUTHENTICATION_REPEATED",
			"",
			"show one credential, in one way (RFC 6749 section 2.3)",
		)
	case len(headers) == 1:
		return readHeader(headers[0], name)
	case s != "" && name == "":
		return clientCredential{}, tokens.Invalid(
			"CLIENT_ID_REQUIRED",
			"client_id",
			"is required with client_secret: the name of the service",
		)
	case s != "":
		return clientCredential{name: name, secret: secret.NewSecret(s)}, nil
	default:
		return clientCredential{name: name}, nil
	}
}

// readHeader parses the Authorization header. name is the client_id of the form, which may repeat the name.
func readHeader(header, name string) (clientCredential, error) {
	scheme, text := bearer.Split(header)
	switch {
	case strings.EqualFold(scheme, schemeBearer):
		shown := clientCredential{schemeBearer, name, secret.NewSecret(text)}
		if text == "" {
			return shown, badClient()
		}
		return shown, nil
	case strings.EqualFold(scheme, schemeBasic):
		id, secret, ok := readBasic(text)
		shown := clientCredential{schemeBasic, id, secret}
		switch {
		case !ok:
			return shown, badClient()
		case name != "" && name != id:
			return shown, errOtherClient()
		}
		return shown, nil
	default:
		return clientCredential{}, tokens.Fail(
			tokens.CodeUnauthenticated,
			"CREDENTIAL_INVALID",
			"the Authorization header must be Basic or Bearer",
		)
	}
}

// readBasic parses the name and secret of a Basic credential (RFC 7617). RFC 6749 section 2.3.1 form-encodes each
// first, which some clients do and some do not. No service name or token contains a character that makes a difference,
// so decoding is right for both.
func readBasic(text string) (name string, s tokens.Secret, ok bool) {
	id, password, ok := bearer.ParseBasic(text)
	if !ok {
		return "", tokens.Secret{}, false
	}
	id, idErr := url.QueryUnescape(id)
	password, passwordErr := url.QueryUnescape(password)
	if idErr != nil || passwordErr != nil || id == "" || password == "" {
		return "", tokens.Secret{}, false
	}
	return id, secret.NewSecret(password), true
}

// validClientID reports whether a client may use the name: VSCHAR (RFC 6749 appendix A.1), not empty.
func validClientID(s string) bool {
	return len(s) <= maxClientID && httpx.Printable(s) && !secret.MayContainSecret(s)
}

func badClient() *tokens.Error {
	return tokens.Fail(
		tokens.CodeUnauthenticated,
		"CREDENTIAL_INVALID",
		"the client credential is invalid: use the service's name and its token",
	)
}

// unlessBadClient adds to a bad credential's error what is expected. An outage is returned unchanged, and so is why a
// service's own token has ended.
func unlessBadClient(err error) error {
	if call.IsBadCredential(err) && !call.HasEnded(err) {
		bad := badClient()
		bad.Cause = call.CauseOf(err)
		return bad
	}
	return err
}

func errOtherClient() *tokens.Error {
	return tokens.Invalid(
		"CLIENT_ID_INVALID",
		"client_id",
		"is not the name of the service whose token authenticates the request",
	)
}
