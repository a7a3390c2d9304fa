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
	// Nav are the links of an operator's page to the others.
	Nav []Link

	exchange   *httpx.Exchange
	whole      context.Context // of the HTTP request, without the limit of a call
	connection *connection.Connection
	ended      tokens.SignedIn // the session that the browser had
}

// Link is a link of a page.
type Link struct {
	Text, URL string
	Here      bool // it leads to the page that has it
}

// Mine is the subject of a call about the caller's own things.
type Mine struct{ TokenID string }

// GetUser returns "me".
func (Mine) GetUser() string { return "me" }

// GetTokenId returns the id of the token that the call is about.
func (m Mine) GetTokenId() string { return m.TokenID } //nolint:revive // as messages over gRPC have it

// Context returns the context of the request.
func (q *Request) Context() context.Context { return q.R.Context() }

// Of is the subject of a call about a user, or about one of its tokens.
type Of struct{ User, TokenID, Name string }

// GetUser returns the user's id.
func (o Of) GetUser() string { return o.User }

// GetTokenId returns the id of the token that the call is about.
func (o Of) GetTokenId() string { return o.TokenID } //nolint:revive // as messages over gRPC have it

// GetName returns the name of the service that the call is about.
func (o Of) GetName() string { return o.Name }

// Do makes a call of a method for the user: a gRPC method by its full name, or one of package call by its own. It
// passes the steps of the same call over gRPC.
func (q *Request) Do(method string, req any, do func(context.Context) error) error {
	return q.perform(method, q.In.Actor, req, do)
}

// Operate is Do for an operator, who acts as one even about its own things. do gets the operator. Another user is
// refused, by an error that says which permission it lacks.
func (q *Request) Operate(method string, req any, do func(context.Context, tokens.Actor) error) error {
	op := q.In.Actor.AsOperator()
	if op.Kind != tokens.OperatorActor {
		req = nil // as a user it would reach its own things
	}
	err := q.perform(method, op, req, func(ctx context.Context) error { return do(ctx, call.ActorOf(ctx)) })
	var refused *tokens.Error
	if op.Kind != tokens.OperatorActor && errors.As(err, &refused) && refused.Code == tokens.CodeDenied {
		return call.Denied(q.method(method).Right, tokens.Actor{Kind: tokens.OperatorActor})
	}
	return err
}

// Operator reports whether the pages of operators have something for the user.
func (q *Request) Operator() bool { return q.May(call.AdminHealth) }

// May reports whether the user may make a call as an operator, so that a page shows what it can do and nothing else.
// The call itself is checked again.
func (q *Request) May(method string) bool {
	op := q.In.Actor.AsOperator()
	return op.Kind == tokens.OperatorActor && q.method(method).Allows(op)
}

func (q *Request) method(name string) *call.Method {
	if m, ok := q.Frame.methods[name]; ok {
		return m
	}
	return q.Frame.Chain.Of(name)
}

func (q *Request) perform(method string, caller tokens.Actor, req any, do func(context.Context) error) error {
	q.exchange.Reached = true
	begun := &call.Call{
		Context:    q.R.Context(),
		Method:     q.method(method),
		Peer:       q.Peer,
		Actor:      caller,
		ID:         q.exchange.RequestID,
		Connection: q.connection,
	}
	begun.Actor.Peer = q.Peer
	q.Frame.Chain.TraceDirect(begun, q.R.Header)
	return q.Frame.Chain.Perform(begun, req, do)
}

// Lasting gives a request so long that is answered bit by bit, and not the time of a call. It ends with the browser's
// interest, when the server begins to stop, and when stop is called.
func (q *Request) Lasting(within time.Duration) (stop func()) {
	ctx, cancel := context.WithTimeout(q.whole, within)
	stopped := context.AfterFunc(q.Frame.Chain.Draining, cancel)
	q.R = q.R.WithContext(ctx)
	return func() { stopped(); cancel() }
}

// BreakOff ends the connection of an answer that has begun and cannot go on, so that the browser knows.
func (q *Request) BreakOff(err error) {
	q.exchange.Cause = err
	_ = http.NewResponseController(q.W).SetWriteDeadline(time.Unix(1, 0)) // the end of the answer cannot be written
}

// maxForm bounds a form, in bytes, and maxOpenForm one that needs no session, such as that for signing out.
const maxForm, maxOpenForm = 64 << 10, 1 << 10

func (q *Request) readForm(most int64) error {
	if q.R.Method != http.MethodPost {
		return nil
	}
	q.R.Body = http.MaxBytesReader(q.W, q.R.Body, most)
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

// OtherList reports whether err says that the page which the address names is of another list, or of before. A handler
// that returns such an error has the browser sent to the first page of the list, with the same filter.
func OtherList(err error) bool {
	var ours *tokens.Error
	return errors.As(err, &ours) && ours.Reason == "PAGE_TOKEN_INVALID"
}

// firstPage sends the browser to the first page of the list that it asked for.
func (q *Request) firstPage() {
	at := *q.R.URL
	query := at.Query()
	query.Del("page")
	at.RawQuery = query.Encode()
	q.Redirect(at.RequestURI())
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
	m := message{Key: key, RequestID: q.exchange.RequestID, Again: q.R.URL.RequestURI(), SignIn: key == "signin_first"}
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
