package call

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"patd/server/internal/fault"
	"patd/tokens"
)

// LogPanic logs a panic's type and stack. It does not log the value, which may hold the caller's input.
func (c *Chain) LogPanic(begun *Call, v any) {
	stack := debug.Stack()
	if elsewhere, ok := v.(interface{ Stack() []byte }); ok { // it comes from another goroutine, such as the store's
		stack = elsewhere.Stack()
	}
	c.logger.LogAttrs(begun, slog.LevelError, "panic",
		slog.String("method", begun.Method.name), slog.String("panic", PanicText(v)),
		slog.String("request_id", begun.RequestID()), slog.String("stack", string(stack)))
}

// PanicText describes a panic's value. Runtime errors hold only indexes and type names, and are returned in full.
func PanicText(v any) string {
	if err, ok := v.(runtime.Error); ok {
		return SafeText(err.Error())
	}
	return fmt.Sprintf("%T", v)
}

// Log writes the log line of a call, and ends its span. Probes and successful introspections are logged at debug level
// only: there is an introspection for each request to the company's APIs, and the metrics count them.
func (c *Chain) Log(done *Call, code codes.Code, took time.Duration) {
	if c.Tracing != nil && !done.tracked && !done.Method.Open {
		c.traceLate(done, took)
	}
	if done.span != nil {
		c.EndSpan(done, code)
	}
	level := slog.LevelInfo
	switch {
	case code == codes.Internal:
		level = slog.LevelError
	case code == codes.Unavailable:
		level = slog.LevelWarn
	case code == codes.OK && done.Method.quiet():
		level = slog.LevelDebug
	}
	if !c.logger.Enabled(done, level) {
		return
	}
	attrs := append(make([]slog.Attr, 0, 16),
		slog.String("method", done.Method.name), slog.String("code", fault.CodeName(code)))
	if took >= 0 {
		attrs = append(attrs, DurationAttr(took))
	}
	if method, route, ok := strings.Cut(done.route(), " "); ok {
		attrs = append(
			attrs,
			slog.String("http_method", method),
			slog.String("http_route", route),
			slog.Int("http_status", done.Status),
		)
	}
	attrs = append(attrs, slog.String("actor", LogText(done.Actor.String())))
	if done.Actor.TokenID != 0 {
		attrs = append(attrs, slog.String("actor_token_id", done.Actor.TokenID.String()))
	}
	if done.Subject != 0 {
		attrs = append(attrs, slog.String("token_id", done.Subject.String()))
	}
	if done.many != nil {
		attrs = append(attrs, done.many.by, slog.Int64("token_count", done.many.count))
	}
	attrs = append(attrs, slog.String("request_id", done.RequestID()))
	if done.Peer.IP.IsValid() {
		attrs = append(attrs, slog.String("peer", done.Peer.IP.String()))
	}
	if done.Decision != 0 {
		attrs = append(attrs, slog.String("decision", done.Decision.String()))
	}
	if done.Reason != "" {
		attrs = append(attrs, slog.String("reason", done.Reason))
	}
	if done.Cause != nil {
		attrs = append(attrs, slog.String("cause", LogText(done.Cause.Error())))
	}
	c.logger.LogAttrs(done, level, "call", attrs...)
}

// DurationAttr returns a duration as every log line has it: milliseconds, to the microsecond.
func DurationAttr(took time.Duration) slog.Attr {
	return slog.Float64("duration_ms", float64(took.Microseconds())/1000)
}

// toStatus maps an error of the domain to a gRPC status, and keeps the private cause for the log.
func (c *Chain) toStatus(begun *Call, err error) error {
	var ours *tokens.Error
	if begun.Method.Open && !errors.As(err, &ours) {
		return err // open methods are not ours, and return their own errors
	}
	return c.refused(begun, err)
}

// refused returns the gRPC status of an error of ours.
func (c *Chain) refused(begun *Call, err error) error {
	public := begun.Explain(err)
	var often *fault.TooOften
	if errors.As(err, &often) {
		return often.Status(begun, begun.RequestID()).Err()
	}
	return fault.Status(public, begun.RequestID()).Err()
}
