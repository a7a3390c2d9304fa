package oauth

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"patd/server/internal/fault"
	"patd/server/internal/httpx"
	"patd/tokens"
)

// wellKnown is the metadata path of RFC 8414 section 3.
const wellKnown = "/.well-known/oauth-authorization-server"

// MetadataPaths returns the paths of the metadata. If the issuer has a path, it comes after the well-known one; the
// proxy that adds the issuer's path may have removed it again.
func MetadataPaths(issuer string) []string {
	paths := []string{wellKnown}
	if u, err := url.Parse(issuer); err == nil && strings.Trim(u.Path, "/") != "" {
		paths = append(paths, wellKnown+strings.TrimRight(u.Path, "/"))
	}
	return paths
}

// serverMetadata is the document of RFC 8414 section 2. Empty lists are omitted (section 3.2) except the required one:
// there is no authorization endpoint, and so no response type. "none" as an authentication method means that possession
// of the presented token suffices. Bearer is a service token by itself (RFC 7662 section 2.1).
type serverMetadata struct {
	Issuer            string   `json:"issuer"`
	TokenEndpoint     string   `json:"token_endpoint"`
	KeysAddress       string   `json:"jwks_uri"`
	ScopesSupported   []string `json:"scopes_supported,omitempty"`
	ResponseTypes     []string `json:"response_types_supported"`
	Grants            []string `json:"grant_types_supported"`
	TokenAuth         []string `json:"token_endpoint_auth_methods_supported"`
	Revocation        string   `json:"revocation_endpoint"`
	RevocationAuth    []string `json:"revocation_endpoint_auth_methods_supported"`
	Introspection     string   `json:"introspection_endpoint"`
	IntrospectionAuth []string `json:"introspection_endpoint_auth_methods_supported"`
}

// describeServer returns the metadata of an issuer's server, with its published scopes. The issuer stays as the
// operator wrote it, since clients compare it byte by byte (RFC 8414 section 3.3); no address has two slashes where its
// path begins.
func describeServer(issuer string, published []string) serverMetadata {
	const basic, post, none = "client_secret_basic", "client_secret_post", "none"
	base := strings.TrimRight(issuer, "/")
	return serverMetadata{
		Issuer: issuer, TokenEndpoint: base + pathGrant, KeysAddress: base + PathKeys, ScopesSupported: published,
		ResponseTypes: []string{}, Grants: []string{grantExchange, grantRefresh},
		TokenAuth:  []string{basic, post, none},
		Revocation: base + pathRevoke, RevocationAuth: []string{basic, post, none},
		Introspection: base + pathTokenInfo, IntrospectionAuth: []string{basic, post, schemeBearer},
	}
}

// metadataPage serves the metadata to every client.
type metadataPage struct {
	service *tokens.Service
	issuer  string
	timeout time.Duration
}

// NewMetadataPage returns the page of an issuer. timeout bounds the read of the published scopes.
func NewMetadataPage(service *tokens.Service, issuer string, timeout time.Duration) http.Handler {
	return &metadataPage{service: service, issuer: issuer, timeout: timeout}
}

// ServeHTTP returns the current document: the published scopes are read each time.
func (p *metadataPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), p.timeout)
	defer cancel()
	published, err := p.service.PublishedFeatures(ctx)
	if err != nil {
		writeFault(w, r, err)
		return
	}
	httpx.WriteJSON(w, http.StatusOK, describeServer(p.issuer, published))
}

// writeFault writes the error of a page of metadata, which is patd's own, and notes its cause for the log.
func writeFault(w http.ResponseWriter, r *http.Request, err error) {
	x, public := httpx.ExchangeOf(r.Context()), fault.Public(err)
	if x.Cause = public.Cause; public.Code == tokens.CodeInternal {
		x.Cause = err
	}
	httpx.WriteError(w, r, fault.Status(public, x.RequestID))
}
