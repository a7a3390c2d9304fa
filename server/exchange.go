package server

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"patd/tokens"
)

// exchange is what the HTTP front knows of one request.
type exchange struct {
	requestID string
	client    netip.Addr
	get       bool   // it reads, by GET or HEAD
	path      string // as sent, encoded
	query     string // as sent, encoded
	reached   bool   // the chain has it, and logs it
	body      *body
	cause     error // what lies behind an internal error made here
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	if x == nil {
		return &exchange{}
	}
	return x
}

func (x *exchange) refusedBody() *tokens.Error {
	if x.body == nil {
		return nil
	}
	return x.body.refused
}

// reads reports whether a request reads: what has GET has HEAD (RFC 9110 section 9.1).
func reads(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

func cleanText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// answerMethod answers 405 with the methods that there are. Google's form has no code for it; UNIMPLEMENTED is what gRPC says.
func answerMethod(w http.ResponseWriter, requestID string, allowed []string) {
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	st := toStatus(tokens.Fail(codeUnimplemented, "METHOD_NOT_ALLOWED", "this path has no such method"), requestID)
	writeErrorAs(w, st, classOfDomain(codeUnimplemented), http.StatusMethodNotAllowed)
}
