package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"patd/internal/bearer"
	"patd/server/internal/call"
	"patd/server/internal/fault"
	"patd/server/internal/httpx"
	"patd/tokens"
	"patd/tokens/refusal"
)

// Paths of the OAuth endpoints, below the issuer.
const (
	pathTokenInfo = "/oauth2/introspect" // RFC 7662
	pathRevoke    = "/oauth2/revoke"     // RFC 7009
	pathGrant     = "/oauth2/token"      // RFC 8693, and RFC 6749 section 6
	PathKeys      = "/.well-known/jwks.json"
)

// Names of the OAuth endpoints in logs and metrics.
const (
	methodTokenInfo = "oauth2.introspect"
	methodRevoke    = "oauth2.revoke"
	methodGrant     = "oauth2.token"
)

// Endpoints are the OAuth endpoints. They accept the HTML forms of the RFCs, and so bypass the gateway; the caller is
// identified, limited, logged and counted as in every other call.
type Endpoints struct {
	*call.Chain
	issuer string
}

// New returns the endpoints. issuer is the iss of every response, byte for byte.
func New(network *call.Chain, issuer string) *Endpoints {
	return &Endpoints{Chain: network, issuer: issuer}
}

// Handlers returns the handlers by exact path.
func (o *Endpoints) Handlers() map[string]http.Handler {
	return map[string]http.Handler{
		pathTokenInfo: &oauthEndpoint{o, o.Page(methodTokenInfo, call.Right{Hot: true, Reads: true}), o.introspect},
		pathRevoke:    &oauthEndpoint{o, o.Page(methodRevoke, call.Right{}), o.revoke},
		pathGrant:     &oauthEndpoint{o, o.Page(methodGrant, call.Right{}), o.token},
	}
}

// oauthCall is one request to an OAuth endpoint.
type oauthCall struct {
	*call.Call
	form   form
	scheme string // of the credential in the Authorization header; empty: none
	client tokens.Client
	header http.Header // of the response
}

// oauthEndpoint is one endpoint: a form in, JSON out.
type oauthEndpoint struct {
	*Endpoints
	method *call.Method
	// serve returns the value to write as JSON; nil: an empty body.
	serve func(context.Context, *oauthCall) (any, error)
}

// ServeHTTP serves one request and writes its log line, whatever the result.
func (e *oauthEndpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), e.Timeout)
	defer cancel()
	served := httpx.Begin(ctx, e.Chain, e.method, "")
	begun := served.Call
	c := &oauthCall{Call: begun, header: w.Header()}
	ctx = e.TraceHTTP(ctx, begun, r.Header)
	defer served.End(func(err error) codes.Code { return e.fail(w, c, err) })
	w.Header().Set("Pragma", "no-cache") // RFC 6749 section 5.1
	text, err := e.answer(ctx, w, r, c)
	if expires := e.TokenExpires(begun); expires != nil && w.Header()[refusal.HeaderExpiresAt] == nil {
		w.Header()[refusal.HeaderExpiresAt] = expires
	}
	if err != nil {
		served.Code = e.fail(w, c, err)
		return
	}
	if served.Code = codes.OK; text == nil {
		w.WriteHeader(http.StatusOK)
		return
	}
	httpx.WriteText(w, http.StatusOK, text) // without a newline: the response for an inactive token is one exact text
}

// answer returns the body of a success; nil: there is none.
func (e *oauthEndpoint) answer(
	ctx context.Context,
	w http.ResponseWriter,
	r *http.Request,
	c *oauthCall,
) ([]byte, error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, tokens.Fail(fault.CodeUnimplemented, "METHOD_NOT_ALLOWED", "send a POST with a form")
	}
	if !e.method.Reads && len(r.Header.Values("Idempotency-Key")) > 0 {
		return nil, call.ErrKeyUnsupported()
	}
	var err error
	if c.form, err = readForm(w, r); err != nil {
		return nil, err
	}
	if err := e.identifyClient(ctx, c, r.Header.Values("Authorization")); err != nil {
		return nil, err
	}
	answer, err := e.serve(ctx, c)
	if err != nil || answer == nil {
		return nil, err
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return nil, fmt.Errorf("write an answer: %w", err)
	}
	return text, nil
}

// oauthErrorBody is the JSON of RFC 6749 section 5.2.
type oauthErrorBody struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
	Reason      string `json:"reason"` // patd's own, as in every other error
}

// challenge sets the challenges of a 401, for the scheme used (RFC 6749 section 5.2) or for all schemes, and that of a
// 403. The subject of an exchange is no credential of the client's, so it gets none, but learns when it expires.
func (c *oauthCall) challenge(h http.Header, code int, st *status.Status) {
	switch {
	case code != http.StatusUnauthorized && (code != http.StatusForbidden || c.scheme != schemeBearer):
		_, metadata := fault.Info(st)
		httpx.SetRenewal(h, metadata[refusal.KeyExpireTime], metadata[refusal.KeyRenewURL])
	case c.scheme == schemeBasic:
		h.Set("WWW-Authenticate", httpx.BasicChallenge)
	default:
		httpx.SetRefusal(h, st, httpx.Refused{NoToken: c.scheme == "", Basic: c.scheme == ""})
	}
}

// fail responds with an error, keeps its private cause for the log, and returns the code for metrics.
func (e *oauthEndpoint) fail(w http.ResponseWriter, c *oauthCall, err error) codes.Code {
	public := c.Explain(err)
	known, header := fault.OAuthOf(public), w.Header()
	var often *fault.TooOften
	switch {
	case errors.As(err, &often):
		header.Set("Retry-After", fault.WholeSeconds(often.After))
	case known.HTTP == http.StatusServiceUnavailable || known.HTTP == http.StatusTooManyRequests:
		header.Set("Retry-After", fault.OutageRetryAfter)
	}
	c.challenge(header, known.HTTP, fault.Status(public, c.RequestID()))
	httpx.WriteJSON(w, known.HTTP, oauthErrorBody{known.Name, describable(public.Message), public.Reason})
	return fault.ClassOfDomain(public.Code).GRPC
}

// describable returns a text as an error_description may contain it: printable ASCII without quotes and backslashes
// (RFC 6749 section 5.2), and without secrets.
func describable(text string) string {
	return bearer.Printable(call.SafeText(text))
}
