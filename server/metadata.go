package server

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"patd/tokens"
)

// wellKnown is where RFC 8414 section 3 has the metadata of an authorization server.
const wellKnown = "/.well-known/oauth-authorization-server"

// metadataPaths are the paths of the metadata: for an issuer with a path that path comes after the well-known one, and the
// proxy which adds the issuer's path may have taken it away again.
func metadataPaths(issuer string) []string {
	paths := []string{wellKnown}
	if u, err := url.Parse(issuer); err == nil && strings.Trim(u.Path, "/") != "" {
		paths = append(paths, wellKnown+strings.TrimRight(u.Path, "/"))
	}
	return paths
}

// serverMetadata is the document of RFC 8414 section 2. Of lists without elements only the required one stands in it
// (section 3.2).
type serverMetadata struct {
	Issuer          string   `json:"issuer"`
	ScopesSupported []string `json:"scopes_supported,omitempty"`
	ResponseTypes   []string `json:"response_types_supported"`
}

// metadataPage serves the metadata, to everybody.
type metadataPage struct {
	service *tokens.Service
	issuer  string
	timeout time.Duration
}

// ServeHTTP answers the document as of now: what is published is read each time.
func (p *metadataPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), p.timeout)
	defer cancel()
	published, err := p.service.PublishedFeatures(ctx)
	if err != nil {
		x, public := exchangeOf(ctx), publicError(err)
		if x.cause = public.Cause; public.Code == tokens.CodeInternal {
			x.cause = err
		}
		writeError(w, r, toStatus(public, x.requestID))
		return
	}
	writeJSON(w, http.StatusOK, serverMetadata{Issuer: p.issuer, ScopesSupported: published, ResponseTypes: []string{}})
}
