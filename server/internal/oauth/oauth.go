package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"patd/server/internal/call"
	"patd/server/internal/connection"
	"patd/server/internal/fault"
	"patd/server/internal/httpx"
	"patd/tokens"
)

// Where the OAuth endpoints are, below the issuer.
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

// Endpoints is the OAuth endpoints. They take the HTML forms that the RFCs want, and so stand beside the gateway; who calls
// is found out, limited, logged and counted as for every other call.
type Endpoints struct {
	*call.Chain
	issuer string
}

// New makes the endpoints. issuer is the iss of every answer, to the byte.
func New(network *call.Chain, issuer string) *Endpoints {
	return &Endpoints{Chain: network, issuer: issuer}
}

// Handlers are served by exact path.
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
	scheme string // of the credential that stood in the Authorization header; empty: there was none
	client tokens.Client
}

// oauthEndpoint is one endpoint: a form in, JSON out.
type oauthEndpoint struct {
	*Endpoints
	method *call.Method
	// serve answers what is to be written as JSON; nil: a body without content.
	serve func(context.Context, *oauthCall) (any, error)
}

// ServeHTTP serves one request and writes its one log line, whatever becomes of it.
func (e *oauthEndpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), e.Timeout)
	defer cancel()
	x, start, code := httpx.ExchangeOf(ctx), time.Now(), codes.Internal
	x.Reached = true
	begun := &call.Call{Context: ctx, Method: e.method, ID: x.RequestID, Peer: tokens.Peer{IP: x.Client}, Connection: connection.Of(ctx)}
	begun.Actor.Peer = begun.Peer
	c := &oauthCall{Call: begun}
	defer func() {
		if v := recover(); v != nil {
			e.LogPanic(begun, v)
			code = e.fail(w, c, fault.ErrPanic)
		}
		took := time.Since(start)
		e.method.Metrics.Observe(code, took)
		e.Log(begun, code, took)
	}()
	w.Header().Set("Pragma", "no-cache") // RFC 6749 section 5.1
	text, err := e.answer(ctx, w, r, c)
	if err != nil {
		code = e.fail(w, c, err)
		return
	}
	if code = codes.OK; text == nil {
		w.WriteHeader(http.StatusOK)
		return
	}
	httpx.WriteText(w, http.StatusOK, text) // without the end of a line: what is inactive is answered by exactly one text
}

// answer is the body of a success; nil: there is none.
func (e *oauthEndpoint) answer(ctx context.Context, w http.ResponseWriter, r *http.Request, c *oauthCall) ([]byte, error) {
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
}

// fail answers with an error, keeps for the log what the client is not told, and tells the code for metrics.
func (e *oauthEndpoint) fail(w http.ResponseWriter, c *oauthCall, err error) codes.Code {
	public, cause := fault.Explain(err)
	c.Cause = cause
	known, header := fault.OAuthOf(public), w.Header()
	var often *fault.TooOften
	switch {
	case errors.As(err, &often):
		header.Set("Retry-After", fault.WholeSeconds(often.After))
	case known.HTTP == http.StatusServiceUnavailable || known.HTTP == http.StatusTooManyRequests:
		header.Set("Retry-After", fault.OutageRetryAfter)
	case known.HTTP == http.StatusUnauthorized:
		header["Www-Authenticate"] = clientChallenges(c.scheme)
	case known.HTTP == http.StatusForbidden && c.scheme == schemeBearer:
		header.Set("WWW-Authenticate", httpx.BearerChallenge("insufficient_scope", public.Metadata[fault.KeyPermission]))
	}
	httpx.WriteJSON(w, known.HTTP, oauthErrorBody{known.Name, describable(public.Message)})
	return fault.ClassOfDomain(public.Code).GRPC
}

// describable is a text as an error_description may hold it: printable ASCII without quotes and backslashes
// (RFC 6749 section 5.2), and without secrets.
func describable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '"' || r == '`':
			return '\''
		case r < ' ' || r > '~' || r == '\\':
			return '?'
		default:
			return r
		}
	}, call.SafeText(text))
}
