package server

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"

	"patd/tokens"
)

// shortPath serves some requests by itself, before anything else is done with them.
type shortPath interface {
	// serve serves a request if it can. False: nothing has happened, and the request is whole.
	serve(w http.ResponseWriter, r *http.Request) bool
	// takes reports whether the path is one of those that it may serve.
	takes(path string) bool
}

// front is the outermost HTTP handler. It gives every request its id and every answer its headers, finds the client's
// address, and refuses what must not reach the gateway.
type front struct {
	logger  *slog.Logger
	metrics *metrics
	pages   map[string]http.Handler // by exact path; GET and HEAD, open
	oauth   map[string]http.Handler // by exact path; they look after methods, bodies and logs themselves
	// gates are as oauth, for requests that a gateway forwards: their headers are those of a request to the company's own API,
	// whose preconditions are not for patd.
	gates map[string]http.Handler
	api   http.Handler
	short shortPath // nil: there is none
	senders
	active sync.WaitGroup
}

// ServeHTTP serves one request.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.active.Add(1)
	defer f.active.Done()
	holds, full := f.hold(r)
	defer holds.release()
	if full == nil && f.short != nil && f.short.serve(w, r) {
		return
	}
	x := &exchange{
		requestID: requestID(r.Header.Get("X-Request-Id")), client: f.client(r), get: reads(r),
		path: r.URL.EscapedPath(), query: r.URL.RawQuery,
	}
	h := w.Header()
	h.Set("X-Request-Id", x.requestID)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	answer := &answer{ResponseWriter: w}
	start := time.Now()
	defer func() {
		if v := recover(); v != nil {
			f.logger.LogAttrs(r.Context(), slog.LevelError, "panic", slog.String("method", "http"),
				slog.String("panic", panicText(v)), slog.String("request_id", x.requestID))
			if answer.code == 0 {
				writeError(answer, r, toStatus(publicError(nil), x.requestID))
			}
		}
		if x.body != nil {
			x.body.release()
		}
		f.log(r.Context(), x, answer.code, start)
	}()
	if full != nil {
		writeError(answer, r, full.status(r.Context(), x.requestID))
		return
	}
	f.serve(answer, r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x)), x)
}

// hold reserves what the headers of a request hold whose connection has shown no good credential. Over HTTP/1.1 that is no more than
// the connection itself.
func (f *front) hold(r *http.Request) (held, *tooOften) {
	if r.ProtoMajor < 2 || f.chain == nil {
		return held{}, nil
	}
	return f.chain.unknown.hold(connectionOf(r.Context()), sizeOfHeaders(r.Header))
}

func (f *front) serve(w http.ResponseWriter, r *http.Request, x *exchange) {
	if encoded(r) {
		w.Header().Set("Accept-Encoding", "identity") // RFC 9110 section 12.5.3
		st := toStatus(tokens.Invalid("CONTENT_ENCODING_UNSUPPORTED", "", "send the body as it is, without Content-Encoding"), x.requestID)
		writeErrorAs(w, st, classOfDomain(tokens.CodeInvalid), http.StatusUnsupportedMediaType)
		return
	}
	if f.chain != nil {
		x.body = f.newBody(r, http.MaxBytesReader(w, r.Body, maxMessage), f.known)
		r.Body = x.body
	}
	if gate, ok := f.gates[r.URL.Path]; ok {
		gate.ServeHTTP(w, r)
		return
	}
	asked := conditional(r.Header)
	if endpoint, ok := f.oauth[r.URL.Path]; ok {
		if asked {
			writeError(w, r, toStatus(unconditional(), x.requestID))
			return
		}
		endpoint.ServeHTTP(w, r)
		return
	}
	if page, ok := f.pages[r.URL.Path]; ok {
		if !reads(r) {
			answerMethod(w, x.requestID, []string{http.MethodGet, http.MethodHead})
			return
		}
		// A cache may ask with a tag that it has from elsewhere: pages have none, so that it gets the page.
		if asked && (r.Header.Get("If-Match") != "" || r.Header.Get("If-Unmodified-Since") != "") {
			writeError(w, r, toStatus(unconditional(), x.requestID))
			return
		}
		page.ServeHTTP(w, r)
		return
	}
	if asked && f.short != nil && f.short.takes(r.URL.Path) {
		writeError(w, r, toStatus(unconditional(), x.requestID)) // here, for those calls do not pass where others are asked
		return
	}
	if e := checkRequest(r); e != nil {
		writeError(w, r, toStatus(e, x.requestID))
		return
	}
	r.Header.Del("Te")
	if r.Method == http.MethodHead {
		r.Method = http.MethodGet // of this copy; net/http sends the headers of the answer and leaves out the body
	}
	f.api.ServeHTTP(w, r)
}

// encoded reports whether the body has a Content-Encoding, none of which is supported.
func encoded(r *http.Request) bool {
	for _, v := range r.Header["Content-Encoding"] {
		if v != "" && !strings.EqualFold(v, "identity") {
			return true
		}
	}
	return false
}

// known returns nil if the request shows a good credential in its header. Where a body needs none, and where the client may
// show it in the body itself, nobody is known before the body was read.
func (f *front) known(r *http.Request) error {
	_, inBody := f.oauth[r.URL.Path]
	_, gate := f.gates[r.URL.Path]
	if inBody || gate || r.URL.Path == pathLeaks {
		return unknownTooLarge()
	}
	return f.senders.known(r)
}

var grpcTimeoutForm = regexp.MustCompile(`^[0-9]{1,8}[HMSmun]$`)

// checkRequest refuses what the gateway would pass over in silence, repeat in an error, or fail to pass on.
func checkRequest(r *http.Request) *tokens.Error {
	switch {
	case !cleanText(r.URL.Path):
		return tokens.Invalid("PATH_INVALID", "", "a path is UTF-8 without control characters")
	case lostSegment(r.URL.EscapedPath()):
		return tokens.Invalid("PATH_INVALID", "", "a path has no segment `.` or `..`, percent-encoded or not, "+
			"for it would be lost on the way; reach a record that has such an id over gRPC")
	case !cleanQuery(r.URL.RawQuery):
		return tokens.Invalid("QUERY_INVALID", "", "a query is UTF-8 in percent-encoding, joined by &")
	case r.ContentLength > maxMessage:
		return tooLarge()
	}
	for _, v := range r.Header.Values("Authorization") {
		if !printable(v) {
			return badCredential("the Authorization header must be `Bearer` and a token")
		}
	}
	for _, v := range r.Header.Values("Idempotency-Key") {
		if !printable(v) {
			return tokens.Invalid("IDEMPOTENCY_KEY_INVALID", "request_id", "an Idempotency-Key is printable ASCII")
		}
	}
	for _, name := range conditionHeaders() {
		for _, v := range r.Header.Values(name) {
			if !printable(v) {
				return badTag(name)
			}
		}
	}
	if vs := r.Header.Values("Grpc-Timeout"); len(vs) > 1 || len(vs) == 1 && !grpcTimeoutForm.MatchString(vs[0]) {
		return tokens.Invalid("TIMEOUT_INVALID", "", "Grpc-Timeout is up to 8 digits and one of H, M, S, m, u, n")
	}
	return nil
}

// lostSegment reports whether a segment of an encoded path, or what stands in it before a verb, may be another one to a proxy.
// No id that a record can get is.
func lostSegment(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		id := segment
		if verb := strings.LastIndexByte(segment, ':'); verb > 0 {
			id = segment[:verb]
		}
		for _, part := range [...]string{segment, id} {
			if text, err := url.PathUnescape(part); err != nil || tokens.LostInPath(text) {
				return true
			}
		}
	}
	return false
}

// cleanQuery lets control characters through: they are for the domain to refuse, by the name of the field.
func cleanQuery(raw string) bool {
	if _, err := url.ParseQuery(raw); err != nil {
		return false
	}
	text, err := url.QueryUnescape(raw)
	return err == nil && utf8.ValidString(text)
}

// log writes the one line of a request that the chain has not seen.
func (f *front) log(ctx context.Context, x *exchange, code int, start time.Time) {
	level, took := slog.LevelInfo, time.Since(start)
	switch {
	case x.reached && x.cause == nil:
		return
	case x.cause != nil:
		level = slog.LevelError
	case code < http.StatusBadRequest: // a probe or a page
		level = slog.LevelDebug
	}
	if !x.reached {
		f.metrics.methods[methodHTTP].observe(codeOfHTTP(code), took)
	}
	attrs := []slog.Attr{
		slog.String("method", methodHTTP[1:]), slog.Int("status", code), slog.Duration("duration", took),
		slog.String("request_id", x.requestID),
	}
	if x.client.IsValid() {
		attrs = append(attrs, slog.String("peer", x.client.String()))
	}
	if x.cause != nil {
		attrs = append(attrs, slog.String("cause", logText(x.cause.Error())))
	}
	f.logger.LogAttrs(ctx, level, "request", attrs...)
}

// codeOfHTTP is the gRPC code that an HTTP status stands for in metrics.
func codeOfHTTP(code int) codes.Code {
	switch {
	case code < http.StatusBadRequest:
		return codes.OK
	case code == http.StatusMethodNotAllowed:
		return codes.Unimplemented
	case code == http.StatusUnsupportedMediaType:
		return codes.InvalidArgument
	case code == http.StatusRequestEntityTooLarge:
		return codes.ResourceExhausted
	default:
		return classOf(func(c errorClass) bool { return c.http == code }).grpc
	}
}

// answer is a ResponseWriter that remembers its code.
type answer struct {
	http.ResponseWriter
	code int
}

// WriteHeader remembers the code.
func (a *answer) WriteHeader(code int) {
	if a.code == 0 {
		a.code = code
	}
	a.ResponseWriter.WriteHeader(code)
}

// Write stands for 200 when no code was written.
func (a *answer) Write(p []byte) (int, error) {
	if a.code == 0 {
		a.code = http.StatusOK
	}
	return a.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// pathLeaks is where leaks are reported over REST. Nobody needs a credential there.
const pathLeaks = "/v1/leaks"
