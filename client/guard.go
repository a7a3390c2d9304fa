package client

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"patd/client/routes"
	header "patd/internal/bearer"
	"patd/tokens/refusal"
)

// HTTPConfig configures a [Guard]. The zero HTTPConfig is sensible.
type HTTPConfig struct {
	// Audience is the API of the handlers; empty: that of the Checker.
	Audience string
	// Realm is sent in WWW-Authenticate, if it is set.
	Realm string
	// Resource is the resource of the audience (RFC 8707), such as https://api.example.com/v1. If it is set, challenges
	// carry the address of its metadata (RFC 9728), which a proxy in front of the handlers passes on to patd.
	Resource string
	// RenewURL is the page where users renew tokens. If it is set, clients get it in Patd-Token-Renew in a token's last
	// 30 days.
	RenewURL string
	// ClientIP returns the address that a request comes from. Nil: the address of the connection. No header is trusted,
	// since anybody can write one; behind a proxy, set a function that trusts this proxy's. The zero Addr is unknown.
	ClientIP func(*http.Request) netip.Addr
}

// Guard lets requests with a token through to net/http handlers, and responds to the others as RFC 6750 requires:
//
//   - 401 without a bearer token, and 401 with error="invalid_token" for one that is not active;
//   - 403 with error="insufficient_scope" and the required scopes for one that may not;
//   - 400 with error="invalid_request" for more than one Authorization header;
//   - 503 with Retry-After when nothing can be said about the token.
//
// The description and the body of a refusal say why, as patd itself does, once the secret of the token has matched. All
// responses about a token that expires carry Patd-Token-Expires-At.
//
// The token is read from the Authorization header alone, never from the URL or the body. Each request is decided anew;
// only the Checker caches decisions between requests.
type Guard struct {
	checker Checker
	config  HTTPConfig
}

// NewGuard makes a Guard.
func NewGuard(c Checker, config HTTPConfig) *Guard {
	g := &Guard{checker: c, config: config}
	g.config.Realm = quoted(config.Realm)
	if g.config.ClientIP == nil {
		g.config.ClientIP = func(r *http.Request) netip.Addr { return addressOf(r.RemoteAddr) }
	}
	return g
}

// quoted keeps what may stand in a quoted-string (RFC 9110 section 5.6.4) as it is.
func quoted(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, s)
}

// Middleware lets requests with any active token through to next.
func (g *Guard) Middleware(next http.Handler) http.Handler { return g.Require()(next) }

// Require makes a middleware that lets requests through whose token has all the scopes in effect. Without scopes it
// requires an active token only.
func (g *Guard) Require(scopes ...string) func(http.Handler) http.Handler {
	scopes = slices.Clone(scopes)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.decide(w, r, scopes, next) })
	}
}

// Routes makes a middleware for all handlers of a program: what a request needs is in a table of routes. A request that
// the table does not open gets 403, whatever its token.
func (g *Guard) Routes(t *routes.Table) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			scopes, ok := t.Find(r.Method, r.URL.EscapedPath())
			if !ok {
				answer(
					w,
					http.StatusForbidden,
					refusalBody{Error: "forbidden", Description: routeClosed, Reason: "ROUTE_CLOSED"},
				)
				return
			}
			g.decide(w, r, scopes, next)
		})
	}
}

// routeClosed is the description in the response to a request that no token opens.
const routeClosed = "no token opens this route: it is not in the table of routes, or has no scope there"

// decide lets a request through to next, or refuses it.
func (g *Guard) decide(w http.ResponseWriter, r *http.Request, scopes []string, next http.Handler) {
	token, found := bearer(r.Header.Values("Authorization"))
	switch found {
	case noCredential:
		g.refuse(w, http.StatusUnauthorized, header.Challenge{}, refusalBody{
			Error: "unauthorized", Description: needsToken, Reason: reasonRequired,
		})
		return
	case manyCredentials:
		g.refuse(w, http.StatusBadRequest, header.Challenge{Error: header.InvalidRequest}, refusalBody{
			Error: header.InvalidRequest, Description: "give one token, once", Reason: refusal.NotValid,
		})
		return
	}
	out, err := g.checker.Verify(
		r.Context(),
		token,
		Call{Audience: g.config.Audience, Scopes: scopes, ClientIP: g.config.ClientIP(r)},
	)
	if err != nil {
		w.Header().Set("Retry-After", "1")
		answer(w, http.StatusServiceUnavailable, refusalBody{Error: "temporarily_unavailable"})
		return
	}
	at, renew := renewHeaders(out.expires(), g.config.RenewURL, time.Now()) //nolint:forbidigo // it decides nothing
	setRenewal(w.Header(), at, renew)
	if out.Allowed() {
		next.ServeHTTP(w, r.WithContext(NewContext(r.Context(), out)))
		return
	}
	why := out.Refusal(scopes)
	why.RenewURL = renew
	switch {
	case out.Decision == InsufficientScope:
		g.refuse(w, http.StatusForbidden, header.Challenge{
			Error: header.InsufficientScope, Description: why.Text(), Scope: scopeList(scopes),
		}, bodyOf(header.InsufficientScope, why))
	default:
		g.refuse(w, http.StatusUnauthorized, header.Challenge{
			Error: header.InvalidToken, Description: why.Text(),
		}, bodyOf(header.InvalidToken, why))
	}
}

// The response to a request without a token.
const (
	reasonRequired = "CREDENTIAL_REQUIRED"
	needsToken     = "this request needs a token: Authorization: Bearer and a token"
)

// refuse writes the challenge of RFC 6750 section 3. A request without a credential gets no error code (section 3.1).
func (g *Guard) refuse(w http.ResponseWriter, code int, c header.Challenge, body refusalBody) {
	c.Realm, c.ResourceMetadata = g.config.Realm, header.ResourceMetadata(g.config.Resource)
	w.Header().Set("WWW-Authenticate", c.String())
	answer(w, code, body)
}

// answer writes a refusal that no cache may store.
func answer(w http.ResponseWriter, code int, body refusalBody) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // a failed write means that the client has gone
}
