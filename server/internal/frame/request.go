package frame

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sort"
	"time"

	"patd/server/internal/call"
	"patd/server/internal/connection"
	"patd/server/internal/fault"
	"patd/server/internal/httpx"
	"patd/tokens"
)

// Request is one request for a page.
type Request struct {
	Frame *Frame
	W     http.ResponseWriter
	R     *http.Request
	Peer  tokens.Peer
	Now   time.Time
	// In is the session of the browser; zero on pages that need none.
	In tokens.SignedIn
	// Leave is where a message leads; empty: to the list.
	Leave string

	exchange   *httpx.Exchange
	connection *connection.Connection
	ended      tokens.SignedIn // the session that the browser had
}

// Mine is the subject of a call about the caller's own things.
type Mine struct{ TokenID string }

// GetUser returns "me".
func (Mine) GetUser() string { return "me" }

// GetTokenId returns the id of the token that the call is about.
func (m Mine) GetTokenId() string { return m.TokenID } //nolint:revive // as messages over gRPC have it

// Context returns the context of the request.
func (q *Request) Context() context.Context { return q.R.Context() }

// Do makes a call of a method for the user: a gRPC method by its full name, or one of package call by its own. It passes
// the steps of the same call over gRPC.
func (q *Request) Do(method string, req any, do func(context.Context) error) error {
	m, ok := q.Frame.methods[method]
	if !ok {
		m = q.Frame.Chain.Of(method)
	}
	q.exchange.Reached = true
	begun := &call.Call{
		Context: q.R.Context(), Method: m, Peer: q.Peer, Actor: q.In.Actor, ID: q.exchange.RequestID, Connection: q.connection,
	}
	begun.Actor.Peer = q.Peer
	return q.Frame.Chain.Perform(begun, req, do)
}

// maxForm bounds a form, in bytes.
const maxForm = 64 << 10

func (q *Request) readForm() error {
	if q.R.Method != http.MethodPost {
		return nil
	}
	q.R.Body = http.MaxBytesReader(q.W, q.R.Body, maxForm)
	if err := q.R.ParseForm(); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return tokens.Fail(tokens.CodeExhausted, fault.ReasonTooLarge, "the form is too large")
		}
		var ours *tokens.Error
		if errors.As(err, &ours) {
			return ours
		}
		return tokens.Invalid("FORM_INVALID", "", "the form cannot be read")
	}
	return nil
}

// Redirect sends the browser to a local path.
func (q *Request) Redirect(path string) {
	http.Redirect(q.W, q.R, q.Frame.URL(path), http.StatusSeeOther)
}

// Render writes a page. It is rendered before anything is sent.
func (q *Request) Render(code int, name string, data any) {
	text, err := q.Frame.views.render(q, name, data)
	if err != nil {
		q.exchange.Cause = err
		http.Error(q.W, "internal error", http.StatusInternalServerError)
		return
	}
	q.W.Header().Set("Content-Type", "text/html; charset=utf-8")
	q.W.WriteHeader(code)
	if q.R.Method != http.MethodHead {
		_, _ = q.W.Write(text) // a failed write means that the client has gone
	}
}

// message is the data of a page that only says something.
type message struct {
	Key, Detail, RequestID string
	Again                  string     // the address that the form is sent to again; empty: there is no form
	Fields                 []keptPair // of that form
	SignIn                 bool       // the user signs in first
}

type keptPair struct{ Name, Value string }

// Message writes a page that only says something: the texts of a key.
func (q *Request) Message(code int, key string) { q.Render(code, "message", message{Key: key}) }

// retry writes a page that says something and holds the form that was sent, to be sent once more.
func (q *Request) retry(code int, key string) {
	m := message{Key: key, RequestID: q.exchange.RequestID, Again: q.R.URL.Path, SignIn: key == "signin_first"}
	m.Fields = kept(q.R.PostForm)
	q.Render(code, "message", m)
}

func kept(form url.Values) []keptPair {
	var pairs []keptPair
	for name, values := range form {
		for _, v := range values {
			pairs = append(pairs, keptPair{name, v})
		}
	}
	sort.SliceStable(pairs, func(i, j int) bool { return pairs[i].Name < pairs[j].Name })
	return pairs
}

// Fail shows an error that no page of its own shows.
func (q *Request) Fail(err error) {
	code, e := q.Explain(err)
	key := "internal"
	switch e.Code {
	case tokens.CodeNotFound:
		key = "not_found"
	case tokens.CodeDenied:
		key = "denied"
	case tokens.CodeUnavailable, fault.CodeDeadline, fault.CodeCanceled:
		key = "outage"
	case tokens.CodeExhausted:
		key = "limited"
	case tokens.CodeInvalid, tokens.CodePrecondition, tokens.CodeExists, tokens.CodeAborted, tokens.CodeUnauthenticated:
		key = "refused"
	}
	if q.R.Method == http.MethodPost && (key == "outage" || key == "limited") && q.R.PostForm != nil {
		q.retry(code, key)
		return
	}
	q.Render(code, "message", message{Key: key, Detail: q.Reason(e), RequestID: q.exchange.RequestID})
}

// Explain returns the status and the public error for err, sets Retry-After, and keeps the cause for the log.
func (q *Request) Explain(err error) (int, *tokens.Error) {
	public, cause := fault.Explain(err)
	if !q.exchange.Reached && cause != nil {
		q.exchange.Cause = cause
	}
	code := fault.ClassOfDomain(public.Code).HTTP
	var often *fault.TooOften
	switch {
	case errors.As(err, &often):
		q.W.Header().Set("Retry-After", fault.WholeSeconds(often.After))
	case code == http.StatusServiceUnavailable:
		q.W.Header().Set("Retry-After", fault.OutageRetryAfter)
	}
	return code, public
}

// Reason returns the text of an error for the user: that of its reason, or its own.
func (q *Request) Reason(e *tokens.Error) string {
	if text, ok := q.Frame.views.texts["reason."+e.Reason]; ok {
		return text
	}
	return e.Message
}

// Text returns a text by its key.
func (q *Request) Text(key string, args ...any) string { return q.Frame.views.text(key, args...) }
