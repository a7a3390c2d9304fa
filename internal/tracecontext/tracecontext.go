// Package tracecontext holds the trace that a call belongs to, in the form of W3C Trace Context, and passes it on: from
// the caller to the company's feature source, to the database, and to webhooks. It knows no SDK and makes no spans.
package tracecontext

import (
	"context"
	"encoding/hex"
)

// Names of the headers, in lower case as gRPC metadata has them.
const (
	HeaderParent = "traceparent"
	HeaderState  = "tracestate"
)

// MaxState is the longest tracestate, in bytes, that is passed on. A longer one is dropped, as the standard allows.
const MaxState = 512

// length is that of a traceparent of version 00.
const length = 55

// Context is one position in a trace: the trace, and the span that what follows is a child of. The zero value is none.
type Context struct {
	TraceID [16]byte
	SpanID  [8]byte
	Sampled bool
	State   string // tracestate; empty: none
}

// Valid reports whether c is a position in a trace.
func (c Context) Valid() bool { return c.TraceID != [16]byte{} && c.SpanID != [8]byte{} }

// Parse reads a traceparent (W3C Trace Context section 3.2). It returns the zero Context for anything else than a
// valid one. Of later versions it reads what version 00 has.
func Parse(parent string) (c Context) {
	if len(parent) < length || parent[2] != '-' || parent[35] != '-' || parent[52] != '-' {
		return Context{}
	}
	var version, flags [1]byte
	if !digits(version[:], parent[0:2]) || !digits(c.TraceID[:], parent[3:35]) || !digits(c.SpanID[:], parent[36:52]) ||
		!digits(flags[:], parent[53:55]) || version[0] == 0xff ||
		version[0] == 0 && len(parent) > length || len(parent) > length && parent[length] != '-' || !c.Valid() {
		return Context{}
	}
	c.Sampled = flags[0]&1 == 1
	return c
}

// digits decodes hexadecimal digits in lower case.
func digits(to []byte, text string) bool {
	for i := range text {
		if c := text[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	_, err := hex.Decode(to, []byte(text))
	return err == nil
}

// Parent returns the traceparent; empty: c is not valid.
func (c Context) Parent() string {
	if !c.Valid() {
		return ""
	}
	b := make([]byte, 0, length)
	b = hex.AppendEncode(append(b, "00-"...), c.TraceID[:])
	b = hex.AppendEncode(append(b, '-'), c.SpanID[:])
	if c.Sampled {
		return string(append(b, "-01"...))
	}
	return string(append(b, "-00"...))
}

// Key is the key of a context's value, which is a Context or a *Context. A context.Context that knows its trace by
// itself answers to it.
type Key struct{}

// With returns a context of which Of returns c.
func With(ctx context.Context, c Context) context.Context { return context.WithValue(ctx, Key{}, &c) }

// Of returns the position in a trace that ctx belongs to, or the zero Context.
func Of(ctx context.Context) Context {
	if c, ok := ctx.Value(Key{}).(*Context); ok && c != nil {
		return *c
	}
	return Context{}
}

// SQLComment returns the comment by which PostgreSQL's log and its views show the trace that a statement belongs to, as
// sqlcommenter writes it; empty: ctx is in no trace that is sampled. It goes to the end of the statement, on a line of
// its own.
func SQLComment(ctx context.Context) string {
	c := Of(ctx)
	if !c.Sampled || !c.Valid() {
		return ""
	}
	return "\n/*" + HeaderParent + "='" + c.Parent() + "'*/"
}

// Header is what a request to another program is given; http.Header is one.
type Header interface{ Set(name, value string) }

// Inject adds the position of ctx to the headers of a request that leaves patd.
func Inject(ctx context.Context, h Header) {
	c := Of(ctx)
	if !c.Valid() {
		return
	}
	h.Set(HeaderParent, c.Parent())
	if c.State != "" {
		h.Set(HeaderState, c.State)
	}
}
