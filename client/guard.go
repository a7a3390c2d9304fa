package client

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// HTTPConfig configures a [Guard]. The zero HTTPConfig is sensible.
type HTTPConfig struct {
	// Audience is the API of the handlers; empty: that of the Checker.
	Audience string
	// Realm is sent in WWW-Authenticate, if it is set.
	Realm string
	// ClientIP returns the address that a request comes from. Nil: the address of the connection. No header is trusted,
	// since anybody can write one; behind a proxy, set a function that trusts this proxy's. The zero Addr is unknown.
	ClientIP func(*http.Request) netip.Addr
}

// Guard lets requests with a token through to net/http handlers, and responds to the others as RFC 6750 requires:
//
//   - 401 without a bearer token, and 401 with error="invalid_token" for one that is not active, whatever the reason;
//   - 403 with error="insufficient_scope" and the required scopes for one that may not;
//   - 400 with error="invalid_request" for more than one Authorization header;
//   - 503 with Retry-After when nothing can be said about the token.
//
// The token is read from the Authorization header alone, never from the URL or the body. Each request is decided anew;
// only the Checker caches decisions between requests.
type Guard struct {
	checker Checker
	config  HTTPConfig
	realm   string
}

// NewGuard makes a Guard.
func NewGuard(c Checker, config HTTPConfig) *Guard {
	g := &Guard{checker: c, config: config}
	if config.Realm != "" {
		g.realm = `realm="` + quoted(config.Realm) + `"`
	}
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
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token, found := bearer(r.Header.Values("Authorization"))
			switch found {
			case noCredential:
				g.refuse(w, http.StatusUnauthorized, "", nil)
				return
			case manyCredentials:
				g.refuse(w, http.StatusBadRequest, "invalid_request", nil)
				return
			}
			out, err := g.checker.Verify(r.Context(), token, Call{Audience: g.config.Audience, Scopes: scopes, ClientIP: g.config.ClientIP(r)})
			switch {
			case err != nil:
				w.Header().Set("Retry-After", "1")
				answer(w, http.StatusServiceUnavailable, "temporarily_unavailable")
			case out.Allowed():
				next.ServeHTTP(w, r.WithContext(NewContext(r.Context(), out)))
			case out.Decision == InsufficientScope:
				g.refuse(w, http.StatusForbidden, "insufficient_scope", scopes)
			default:
				g.refuse(w, http.StatusUnauthorized, "invalid_token", nil)
			}
		})
	}
}

// refuse writes the challenge of RFC 6750 section 3. A request without a credential gets no error code (section 3.1).
func (g *Guard) refuse(w http.ResponseWriter, code int, reason string, scopes []string) {
	var params []string
	if g.realm != "" {
		params = append(params, g.realm)
	}
	if reason != "" {
		params = append(params, `error="`+reason+`"`)
	}
	if len(scopes) > 0 {
		params = append(params, `scope="`+quoted(strings.Join(scopes, " "))+`"`)
	}
	w.Header().Set("WWW-Authenticate", strings.TrimSuffix("Bearer "+strings.Join(params, ", "), " "))
	answer(w, code, reason)
}

// answer writes a refusal that no cache may store.
func answer(w http.ResponseWriter, code int, reason string) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if reason == "" {
		reason = "unauthorized"
	}
	_, _ = w.Write([]byte(`{"error":"` + reason + `"}` + "\n"))
}
