package httpx

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc/status"

	"patd/server/internal/fault"
	"patd/tokens"
)

// Exchange is what the HTTP front knows about one request.
type Exchange struct {
	RequestID string
	Client    netip.Addr
	Method    string // as sent
	Reads     bool   // the method is GET or HEAD
	Path      string // as sent, encoded
	Query     string // as sent, encoded
	Reached   bool   // the chain has the request, and logs it
	Body      *Body
	Status    int    // of the response; 0: none was written yet
	RPC       string // the full name of the method that the gateway found; empty: none
	Route     string // the pattern of the path; empty: the path is not one of ours
	Reason    string // of the error in the response
	Cause     error  // of an internal error made here
}

type exchangeKey struct{}

// WithExchange returns a context from which ExchangeOf returns x.
func WithExchange(ctx context.Context, x *Exchange) context.Context {
	return context.WithValue(ctx, exchangeKey{}, x)
}

// ExchangeOf returns the Exchange of the request that ctx belongs to.
func ExchangeOf(ctx context.Context) *Exchange {
	x, _ := ctx.Value(exchangeKey{}).(*Exchange)
	if x == nil {
		return &Exchange{}
	}
	return x
}

// RefusedBody returns why the request's body was rejected, or nil.
func (x *Exchange) RefusedBody() *tokens.Error {
	if x.Body == nil {
		return nil
	}
	return x.Body.refused
}

// RefusedCaller returns why the request's caller was rejected before its body was decoded, or nil.
func (x *Exchange) RefusedCaller() *status.Status {
	if x.Body == nil {
		return nil
	}
	return x.Body.stranger
}

// Reads reports whether a request only reads. A path with GET also has HEAD (RFC 9110 section 9.1).
func Reads(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

// CleanText reports whether a text is UTF-8 without control characters.
func CleanText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// Printable reports whether a text is printable ASCII.
func Printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// AnswerMethod responds with 405 and the allowed methods. Google's form has no code for it; gRPC uses UNIMPLEMENTED.
func AnswerMethod(w http.ResponseWriter, requestID string, allowed []string) {
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	st := fault.Status(
		tokens.Fail(fault.CodeUnimplemented, "METHOD_NOT_ALLOWED", "this path has no such method"),
		requestID,
	)
	WriteErrorAs(w, st, fault.ClassOfDomain(fault.CodeUnimplemented), http.StatusMethodNotAllowed)
}
