package secevent

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"

	"patd/server/internal/call"
	"patd/server/internal/fault"
	"patd/server/internal/httpx"
	"patd/server/signin"
	"patd/tokens"
	"patd/tokens/secret"
)

// Path is the path of the endpoint.
const Path = "/v1/security-events"

// contentType is that of a security event token (RFC 8935 section 2).
const contentType = "application/secevent+jwt"

// Verifier verifies security event tokens, see signin.Events.
type Verifier interface {
	Verify(ctx context.Context, set tokens.Secret) (signin.SecurityEvent, error)
}

var _ Verifier = (*signin.Events)(nil)

// Config says whose events are taken, and what they do.
type Config struct {
	Verifier Verifier // nil: none are taken
	// Actions is what each type of event does, see signin.EventTypes. One that is missing only stands in the audit log.
	Actions map[string]tokens.SecurityAction
}

// Endpoint takes security events.
type Endpoint struct {
	*call.Chain
	service *tokens.Service
	method  *call.Method
	config  Config
}

// New returns the endpoint. method is call.SecurityEvents.
func New(chain *call.Chain, method *call.Method, service *tokens.Service, c Config) *Endpoint {
	return &Endpoint{chain, service, method, c}
}

// ServeHTTP serves one request and writes its log line, whatever the result.
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), e.Timeout)
	defer cancel()
	served := httpx.Begin(ctx, e.Chain, e.method, "")
	begun := served.Call
	e.TraceDirect(begun, r.Header)
	defer served.End(func(err error) codes.Code { return e.fail(w, begun, err) })
	if err := e.take(begun, w, r); err != nil {
		served.Code = e.fail(w, begun, err)
		return
	}
	served.Code = codes.OK
	w.WriteHeader(http.StatusAccepted) // RFC 8935 section 2.2
}

// take reads an event, verifies it, and does what it says.
func (e *Endpoint) take(begun *call.Call, w http.ResponseWriter, r *http.Request) error {
	switch {
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		return tokens.Fail(fault.CodeUnimplemented, "METHOD_NOT_ALLOWED", "send a POST with a security event token")
	case e.config.Verifier == nil:
		return tokens.Fail(
			tokens.CodeNotFound,
			"PATH_NOT_FOUND",
			"this server takes no security events: it has no --security-event-issuer",
		)
	case len(r.Header.Values("Idempotency-Key")) > 0:
		return call.ErrKeyUnsupported()
	case !isEvent(r.Header.Values("Content-Type")):
		return tokens.Invalid(
			"CONTENT_TYPE_INVALID",
			"",
			"send a security event token, with Content-Type: "+contentType,
		)
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, call.MaxUnknown))
	if err != nil {
		return httpx.UnreadBody(err)
	}
	var event signin.SecurityEvent
	err = e.Identify(begun, begun.Peer, func(ctx context.Context) error {
		event, err = e.config.Verifier.Verify(ctx, secret.NewSecret(strings.TrimSpace(string(text))))
		return refusedEvent(err)
	})
	if err != nil {
		return err
	}
	begun.Actor = tokens.Actor{Kind: tokens.IssuerActor, Name: event.Issuer, Peer: begun.Peer}
	begun.Connection.Authenticated()
	if len(event.Types) == 0 { // such as the verification of a stream
		return nil
	}
	if err := e.Limits.Revocation(begun.Actor); err != nil {
		return err
	}
	return e.service.TakeSecurityEvent(begun, begun.Peer, tokens.SecurityEvent{
		Issuer: event.Issuer, ID: event.ID, IssueTime: event.IssueTime, User: event.User, Types: event.Types,
		Action: e.action(event.Types),
	})
}

// action returns what events of these types do. An end of sessions ends those of patd's page, too.
func (e *Endpoint) action(types []string) (a tokens.SecurityAction) {
	for _, name := range types {
		a |= e.config.Actions[name]
		if name == "session-revoked" {
			a |= tokens.SecurityEndSessions
		}
	}
	return a
}

// isEvent reports whether a request says that its body is a security event token.
func isEvent(kinds []string) bool {
	if len(kinds) != 1 {
		return false
	}
	kind, _, err := mime.ParseMediaType(kinds[0])
	return err == nil && kind == contentType
}

// refusal is a fault of an event, as RFC 8935 section 2.4 names it.
type refusal struct {
	public *tokens.Error
	name   string
}

// Error returns the text of the fault.
func (r *refusal) Error() string { return r.public.Error() }

// Unwrap returns the error of the domain.
func (r *refusal) Unwrap() error { return r.public }

// refusedEvent returns the error of an event that could not be verified. One without a known signer is a bad
// credential, and is counted as such for its address.
func refusedEvent(err error) error {
	var bad *signin.EventError
	if !errors.As(err, &bad) {
		return err
	}
	public := tokens.Invalid("EVENT_INVALID", "", bad.Error())
	if bad.Fault != signin.FaultRequest {
		public = tokens.Fail(tokens.CodeUnauthenticated, "EVENT_INVALID", bad.Error())
	}
	return &refusal{public, bad.Fault}
}

// errorBody is the JSON of an error (RFC 8935 section 2.3), with patd's own reason, as in every other error.
type errorBody struct {
	Name        string `json:"err"`
	Description string `json:"description"`
	Reason      string `json:"reason"`
}

// fail responds with an error, keeps its private cause for the log, and returns the code for metrics. What is wrong
// with the event itself is 400 (RFC 8935 section 2.3).
func (e *Endpoint) fail(w http.ResponseWriter, begun *call.Call, err error) codes.Code {
	public := begun.Explain(err)
	class := fault.ClassOfDomain(public.Code)
	code, name := class.HTTP, signin.FaultRequest
	var bad *refusal
	var often *fault.TooOften
	switch {
	case errors.As(err, &often):
		w.Header().Set("Retry-After", fault.WholeSeconds(often.After))
	case code == http.StatusServiceUnavailable || code == http.StatusTooManyRequests:
		w.Header().Set("Retry-After", fault.OutageRetryAfter)
	}
	switch {
	case errors.As(err, &often):
	case errors.As(err, &bad):
		code, name = http.StatusBadRequest, bad.name
	case public.Code == tokens.CodeExists, public.Code == tokens.CodePrecondition:
		code = http.StatusBadRequest
	case public.Reason == fault.ReasonTooLarge:
		code = http.StatusRequestEntityTooLarge
	case public.Reason == "CONTENT_TYPE_INVALID":
		code = http.StatusUnsupportedMediaType
	case public.Code == fault.CodeUnimplemented:
		code = http.StatusMethodNotAllowed
	}
	httpx.WriteJSON(w, code, errorBody{name, call.SafeText(public.Message), public.Reason})
	return class.GRPC
}
