package oauth

import (
	"context"
	"net/http"
	"strings"
	"time"

	"patd/internal/bearer"
	"patd/server/internal/httpx"
	"patd/tokens"
)

// PathProtected is the path of the metadata of protected resources (RFC 9728 section 3). The path of a resource follows
// it.
const PathProtected = bearer.WellKnownResource

// resourceMetadata is the document of RFC 9728 section 2. Empty lists are left out (section 3.2).
type resourceMetadata struct {
	Resource             string   `json:"resource"`
	AuthorizationServers []string `json:"authorization_servers"`
	ScopesSupported      []string `json:"scopes_supported,omitempty"`
	BearerMethods        []string `json:"bearer_methods_supported"`
	ResourceName         string   `json:"resource_name,omitempty"`
}

// protectedPage serves the metadata of the resource whose host the request names: a gateway in front of that resource
// passes the request on, with its Host. Nothing else of the request counts, so that no client reads another document
// than that of the address that it asked for (section 3.3).
type protectedPage struct {
	service *tokens.Service
	issuer  string
	timeout time.Duration
}

// NewProtectedPage returns the page for the resources of the audiences. timeout bounds the read.
func NewProtectedPage(service *tokens.Service, issuer string, timeout time.Duration) http.Handler {
	return &protectedPage{service: service, issuer: issuer, timeout: timeout}
}

// ServeHTTP serves one document, or 404.
func (p *protectedPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), p.timeout)
	defer cancel()
	address := r.Host + strings.TrimPrefix(r.URL.EscapedPath(), PathProtected)
	if r.URL.RawQuery != "" {
		address += "?" + r.URL.RawQuery
	}
	found, err := p.service.ProtectedResource(ctx, address)
	if err != nil {
		writeFault(w, r, err)
		return
	}
	httpx.WriteJSON(w, http.StatusOK, resourceMetadata{
		Resource: found.Resource, AuthorizationServers: []string{p.issuer}, ScopesSupported: found.Scopes,
		BearerMethods: []string{"header"}, ResourceName: found.Name,
	})
}
