package rest

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"patd/internal/bearer"
	"patd/server/internal/call"
	"patd/server/internal/connection"
	"patd/server/internal/fault"
	"patd/server/internal/httpx"
	"patd/server/internal/metrics"
	"patd/tokens"
)

// shortPath serves some requests before any other step.
type shortPath interface {
	// Serve serves a request if it can. If it returns false, it has done nothing, and the request can still be served.
	Serve(w http.ResponseWriter, r *http.Request) bool
	// Takes reports whether Serve may serve the path.
	Takes(path string) bool
}

// site serves the pages for people, or another tree of paths.
type site interface {
	http.Handler
	// Takes reports whether a path is the site's.
	Takes(path string) bool
}

// Front is the outermost HTTP handler. It adds the request id and the response headers, finds the client's address, and
// rejects what must not reach the gateway.
type Front struct {
	Logger  *slog.Logger
	Metrics *metrics.Set
	Pages   map[string]http.Handler // by exact path; GET and HEAD, open
	Forms   map[string]http.Handler // by exact path; they check methods, bodies and log themselves
	// Gates are like Forms, for requests that a gateway forwards: their headers belong to a request to the company's
	// own API, so their preconditions are not for patd.
	Gates map[string]http.Handler
	// KnowClient returns nil if a request to one of Forms has a good credential in its header.
	KnowClient func(r *http.Request, from netip.Addr) error
	API        http.Handler
	Short      shortPath // nil: none
	Site       site      // nil: none
	SCIM       site      // nil: none; it checks methods, bodies and log itself
	httpx.Senders
	Active sync.WaitGroup
}

// ServeHTTP serves one request.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.Active.Add(1)
	defer f.Active.Done()
	holds, full := f.hold(r)
	defer holds.Release()
	if full == nil && f.Short != nil && f.Short.Serve(w, r) {
		return
	}
	x := &httpx.Exchange{
		RequestID: call.RequestID(
			r.Header.Get("X-Request-Id"),
		),
		Client: f.Client(r),
		Method: knownMethod(r.Method),
		Reads:  httpx.Reads(r),
		Path:   r.URL.EscapedPath(),
		Query:  r.URL.RawQuery,
	}
	h := w.Header()
	h.Set("X-Request-Id", x.RequestID)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	answer := &answer{ResponseWriter: w, exchange: x}
	start := time.Now()
	defer func() {
		if v := recover(); v != nil {
			f.Logger.LogAttrs(r.Context(), slog.LevelError, "panic", slog.String("method", "http"),
				slog.String("panic", call.PanicText(v)), slog.String("request_id", x.RequestID))
			if x.Status == 0 {
				httpx.WriteError(answer, r, fault.Status(fault.Public(nil), x.RequestID))
			}
		}
		if x.Body != nil {
			x.Body.Release()
		}
		f.log(r.Context(), x, start)
	}()
	if full != nil {
		httpx.WriteError(answer, r, full.Status(r.Context(), x.RequestID))
		return
	}
	f.route(answer, r.WithContext(f.Chain.WithHeaders(httpx.WithExchange(r.Context(), x), r.Header)), x)
}

// hold reserves the memory of a request's headers if its connection has shown no good credential. If there is no room,
// a good credential in the headers makes the connection known.
func (f *Front) hold(r *http.Request) (call.Held, *fault.TooOften) {
	c := connection.Of(r.Context())
	if f.Chain == nil || c == nil || c.Known.Load() {
		c.Handled()
		return call.Held{}, nil
	}
	holds := f.Chain.Unknown.Hold(c)
	full := holds.Head(call.SizeOfHeaders(r.Header) + len(r.RequestURI))
	if full != nil && f.known(r) == nil {
		return call.Held{}, nil
	}
	return holds, full
}

// page returns the page of a path, and the path under which it is known; nil: there is none. The path of a protected
// resource follows that of its metadata (RFC 9728 section 3.1).
func (f *Front) page(path string) (page http.Handler, route string) {
	if strings.HasPrefix(path, bearer.WellKnownResource+"/") {
		path = bearer.WellKnownResource
	}
	return f.Pages[path], path
}

func (f *Front) route(w http.ResponseWriter, r *http.Request, x *httpx.Exchange) {
	if encoded(r) {
		w.Header().Set("Accept-Encoding", "identity") // RFC 9110 section 12.5.3
		st := fault.Status(
			tokens.Invalid("CONTENT_ENCODING_UNSUPPORTED", "", "send the body as it is, without Content-Encoding"),
			x.RequestID,
		)
		httpx.WriteErrorAs(w, st, fault.ClassOfDomain(tokens.CodeInvalid), http.StatusUnsupportedMediaType)
		return
	}
	if f.Chain != nil {
		x.Body = f.NewBody(r, http.MaxBytesReader(w, r.Body, call.MaxMessage), f.known)
		x.Body.Identify = func() *status.Status { return f.Identify(r, x) }
		r.Body = x.Body
	}
	if gate, ok := f.Gates[r.URL.Path]; ok {
		x.Route = r.URL.Path
		gate.ServeHTTP(w, r)
		return
	}
	for _, site := range []site{f.Site, f.SCIM} {
		if site != nil && site.Takes(r.URL.Path) {
			site.ServeHTTP(w, r)
			return
		}
	}
	asked := call.Conditional(r.Header)
	if endpoint, ok := f.Forms[r.URL.Path]; ok {
		x.Route = r.URL.Path
		if asked {
			httpx.WriteError(w, r, fault.Status(call.Unconditional(), x.RequestID))
			return
		}
		endpoint.ServeHTTP(w, r)
		return
	}
	if page, route := f.page(r.URL.Path); page != nil {
		x.Route = route
		if !httpx.Reads(r) {
			httpx.AnswerMethod(w, x.RequestID, []string{http.MethodGet, http.MethodHead})
			return
		}
		// A cache may send a tag from elsewhere: pages have none, so it gets the whole page.
		if asked && (r.Header.Get("If-Match") != "" || r.Header.Get("If-Unmodified-Since") != "") {
			httpx.WriteError(w, r, fault.Status(call.Unconditional(), x.RequestID))
			return
		}
		page.ServeHTTP(w, r)
		return
	}
	if asked && f.Short != nil && f.Short.Takes(r.URL.Path) {
		httpx.WriteError(w, r, fault.Status(call.Unconditional(), x.RequestID)) // the short way skips the chain's check
		return
	}
	if e := checkRequest(r); e != nil {
		httpx.WriteError(w, r, fault.Status(e, x.RequestID))
		return
	}
	r.Header.Del("Te")
	if r.Method == http.MethodHead {
		r.Method = http.MethodGet // of this copy; net/http sends the response's headers and drops the body
	}
	f.API.ServeHTTP(w, r)
}

// encoded reports whether the body has a Content-Encoding. None is supported.
func encoded(r *http.Request) bool {
	for _, v := range r.Header["Content-Encoding"] {
		if v != "" && !strings.EqualFold(v, "identity") {
			return true
		}
	}
	return false
}

// known returns nil if the request has a good credential in its header. If it needs none, the caller is unknown until
// the body is read.
func (f *Front) known(r *http.Request) error {
	_, form := f.Forms[r.URL.Path]
	_, gate := f.Gates[r.URL.Path]
	switch {
	case gate || r.URL.Path == pathLeaks || strings.HasPrefix(r.URL.Path, pathLeaks+"/") || f.Site != nil && f.Site.Takes(r.URL.Path):
		return call.UnknownTooLarge()
	case form:
		if f.KnowClient(r, f.Client(r)) != nil {
			return call.UnknownTooLarge()
		}
		return nil
	default:
		return f.Senders.Known(r)
	}
}

var grpcTimeoutForm = regexp.MustCompile(`^[0-9]{1,8}[HMSmun]$`)

// checkRequest rejects what the gateway would silently ignore, repeat in an error, or fail to pass on.
func checkRequest(r *http.Request) *tokens.Error {
	switch {
	case !httpx.CleanText(r.URL.Path):
		return tokens.Invalid("PATH_INVALID", "", "a path is UTF-8 without control characters")
	case lostSegment(r.URL.EscapedPath()):
		return tokens.Invalid("PATH_INVALID", "", "a path has no segment `.` or `..`, percent-encoded or not, "+
			"for it would be lost on the way; reach a record that has such an id over gRPC")
	case !cleanQuery(r.URL.RawQuery):
		return tokens.Invalid(
			"QUERY_INVALID",
			"",
			"a query is UTF-8 in percent-encoding, at most "+strconv.Itoa(maxParameters)+" parameters joined by &",
		)
	case r.ContentLength > call.MaxMessage:
		return call.TooLarge()
	}
	for _, v := range r.Header.Values("Authorization") {
		if !httpx.Printable(v) {
			return call.BadCredential("the Authorization header must be `Bearer` and a token")
		}
	}
	for _, v := range r.Header.Values("Idempotency-Key") {
		if !httpx.Printable(v) {
			return tokens.Invalid("IDEMPOTENCY_KEY_INVALID", "request_id", "an Idempotency-Key is printable ASCII")
		}
	}
	for _, name := range call.ConditionHeaders() {
		for _, v := range r.Header.Values(name) {
			if !httpx.Printable(v) {
				return call.BadTag(name)
			}
		}
	}
	if vs := r.Header.Values("Grpc-Timeout"); len(vs) > 1 || len(vs) == 1 && !grpcTimeoutForm.MatchString(vs[0]) {
		return tokens.Invalid("TIMEOUT_INVALID", "", "Grpc-Timeout is up to 8 digits and one of H, M, S, m, u, n")
	}
	return nil
}

// lostSegment reports whether a proxy might read a segment of an encoded path, or the part of it before a verb, as
// another one. No record can have such an id.
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

// maxParameters bounds the parameters of a query.
const maxParameters = 512

// cleanQuery allows control characters: the domain rejects them with the name of the field.
func cleanQuery(raw string) bool {
	if strings.Count(raw, "&") >= maxParameters {
		return false
	}
	if _, err := url.ParseQuery(raw); err != nil {
		return false
	}
	text, err := url.QueryUnescape(raw)
	return err == nil && utf8.ValidString(text)
}

// log writes the log line of a request that the chain has not seen.
func (f *Front) log(ctx context.Context, x *httpx.Exchange, start time.Time) {
	level, took, code := slog.LevelInfo, time.Since(start), x.Status
	switch {
	case x.Reached && x.Cause == nil:
		return
	case x.Cause != nil:
		level = slog.LevelError
	case code < http.StatusBadRequest: // a probe or a page
		level = slog.LevelDebug
	}
	if !x.Reached {
		f.Metrics.Methods[metrics.MethodHTTP].Observe(codeOfHTTP(code), took)
	}
	attrs := []slog.Attr{
		slog.String("method", metrics.MethodHTTP[1:]), call.DurationAttr(took),
		slog.String("http_method", x.Method), slog.Int("http_status", code), slog.String("request_id", x.RequestID),
	}
	if x.Route != "" {
		attrs = append(attrs, slog.String("http_route", x.Route))
	}
	if x.Reason != "" {
		attrs = append(attrs, slog.String("reason", x.Reason))
	}
	if x.Client.IsValid() {
		attrs = append(attrs, slog.String("peer", x.Client.String()))
	}
	if x.Cause != nil {
		attrs = append(attrs, slog.String("cause", call.LogText(x.Cause.Error())))
	}
	f.Logger.LogAttrs(ctx, level, "request", attrs...)
}

// knownMethod returns an HTTP method for the log, where one that is not known is "OTHER": the caller may send any text.
func knownMethod(method string) string {
	switch method {
	case http.MethodGet,
		http.MethodHead,
		http.MethodPost,
		http.MethodPut,
		http.MethodPatch,
		http.MethodDelete,
		http.MethodOptions:
		return method
	}
	return "OTHER"
}

// codeOfHTTP returns the gRPC code under which the metrics count an HTTP status.
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
		return fault.ClassOf(func(c fault.Class) bool { return c.HTTP == code }).GRPC
	}
}

// answer is a ResponseWriter that records its code in the exchange.
type answer struct {
	http.ResponseWriter
	exchange *httpx.Exchange
}

// WriteHeader records the code.
func (a *answer) WriteHeader(code int) {
	if a.exchange.Status == 0 {
		a.exchange.Status = code
	}
	a.ResponseWriter.WriteHeader(code)
}

// Write records 200 if no code was written.
func (a *answer) Write(p []byte) (int, error) {
	if a.exchange.Status == 0 {
		a.exchange.Status = http.StatusOK
	}
	return a.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// pathLeaks is the REST path for leak reports, and the paths below it are for those of partners. They need no
// credential.
const pathLeaks = "/v1/leaks"
