package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"patd/tokens"
)

// Where the OAuth endpoints are, below the issuer.
const (
	pathTokenInfo = "/oauth2/introspect" // RFC 7662
	pathRevoke    = "/oauth2/revoke"     // RFC 7009
	pathGrant     = "/oauth2/token"      // RFC 8693, and RFC 6749 section 6
	pathKeys      = "/.well-known/jwks.json"
)

// Names of the OAuth endpoints in logs and metrics.
const (
	methodTokenInfo = "oauth2.introspect"
	methodRevoke    = "oauth2.revoke"
	methodGrant     = "oauth2.token"
)

// oauthRetryAfter is what Retry-After says in an outage, in seconds: nobody knows when it ends.
const oauthRetryAfter = "1"

// oauth is the OAuth endpoints. They take the HTML forms that the RFCs want, and so stand beside the gateway; who calls
// is found out, limited, logged and counted as for every other call.
type oauth struct {
	*chain
	issuer string
}

// newOAuth makes the endpoints. issuer is the iss of every answer, to the byte.
func newOAuth(network *chain, issuer string) *oauth { return &oauth{chain: network, issuer: issuer} }

// endpoints are served by exact path.
func (o *oauth) endpoints() map[string]http.Handler {
	return map[string]http.Handler{
		pathTokenInfo: &oauthEndpoint{o, o.page(methodTokenInfo, right{hot: true, reads: true}), o.introspect},
		pathRevoke:    &oauthEndpoint{o, o.page(methodRevoke, right{}), o.revoke},
		pathGrant:     &oauthEndpoint{o, o.page(methodGrant, right{}), o.token},
	}
}

// oauthCall is one request to an OAuth endpoint.
type oauthCall struct {
	*call
	form   form
	scheme string // of the credential that stood in the Authorization header; empty: there was none
	client tokens.Client
}

// oauthEndpoint is one endpoint: a form in, JSON out.
type oauthEndpoint struct {
	*oauth
	method *method
	// serve answers what is to be written as JSON; nil: a body without content.
	serve func(context.Context, *oauthCall) (any, error)
}

// ServeHTTP serves one request and writes its one log line, whatever becomes of it.
func (e *oauthEndpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), e.timeout)
	defer cancel()
	x, start, code := exchangeOf(ctx), time.Now(), codes.Internal
	x.reached = true
	begun := &call{Context: ctx, method: e.method, id: x.requestID, peer: tokens.Peer{IP: x.client}, connection: connectionOf(ctx)}
	begun.actor.Peer = begun.peer
	c := &oauthCall{call: begun}
	defer func() {
		if v := recover(); v != nil {
			e.logPanic(begun, v)
			code = e.fail(w, c, errPanic)
		}
		took := time.Since(start)
		e.method.metrics.observe(code, took)
		e.log(begun, code, took)
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
	writeText(w, http.StatusOK, text) // without the end of a line: what is inactive is answered by exactly one text
}

// answer is the body of a success; nil: there is none.
func (e *oauthEndpoint) answer(ctx context.Context, w http.ResponseWriter, r *http.Request, c *oauthCall) ([]byte, error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, tokens.Fail(codeUnimplemented, "METHOD_NOT_ALLOWED", "send a POST with a form")
	}
	if !e.method.reads && len(r.Header.Values("Idempotency-Key")) > 0 {
		return nil, errKeyUnsupported()
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
	public := publicError(err)
	if c.cause = public.Cause; public.Code == tokens.CodeInternal && !errors.Is(err, errPanic) {
		c.cause = err
	}
	known, header := oauthErrorOf(public), w.Header()
	var often *tooOften
	switch {
	case errors.As(err, &often):
		header.Set("Retry-After", wholeSeconds(often.after))
	case known.http == http.StatusServiceUnavailable || known.http == http.StatusTooManyRequests:
		header.Set("Retry-After", oauthRetryAfter)
	case known.http == http.StatusUnauthorized:
		header["Www-Authenticate"] = clientChallenges(c.scheme)
	case known.http == http.StatusForbidden && c.scheme == schemeBearer:
		header.Set("WWW-Authenticate", bearerChallenge("insufficient_scope", public.Metadata[keyPermission]))
	}
	writeJSON(w, known.http, oauthErrorBody{known.name, describable(public.Message)})
	return classOfDomain(public.Code).grpc
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
	}, safeText(text))
}
