package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/proto"

	"patd/tokens"
)

// maxMessage is the limit on what a caller may send at once.
const maxMessage = 1 << 20

// Private metadata keys, written by the HTTP front and believed only on the in-process listener.
const (
	keyRequestID = "patd-request-id"
	keyClient    = "patd-client"
	keyEmptyBody = "patd-empty-body"
)

// call is what the chain knows of one call. Its interceptors fill it in, in their order; handlers only read it.
type call struct {
	method    string
	open      bool // everybody may call the method: a probe, most likely
	requestID string
	peer      tokens.Peer
	md        metadata.MD
	actor     tokens.Actor
	cause     error // what lies behind an error that tells the caller nothing
}

type callKey struct{}

func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	if c == nil {
		return &call{}
	}
	return c
}

// actorOf is who makes the call that ctx belongs to.
func actorOf(ctx context.Context) tokens.Actor { return callOf(ctx).actor }

// chain is the interceptors that every call passes.
type chain struct {
	authenticator
	logger  *slog.Logger
	metrics *metrics
	limits  *limits
	rights  map[string]right
	trusted trusted
	timeout time.Duration
	// draining ends when the server starts to stop.
	draining context.Context
	// behindGateway marks the chain of the in-process listener, where metadata was written by the HTTP front.
	behindGateway bool
}

// unary lists the interceptors in their order.
func (c *chain) unary() []grpc.UnaryServerInterceptor {
	return []grpc.UnaryServerInterceptor{
		c.recoverPanics,
		c.observe,
		c.mapErrors,
		c.identify,
		c.authorize,
		c.limitSize,
	}
}

// recoverPanics starts a call, and turns a panic anywhere below it into an internal error. The panic's value stays out
// of the log, since it may hold what the caller sent; its type and the stack are enough to find it.
func (c *chain) recoverPanics(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	begun := c.begin(ctx, info.FullMethod)
	defer func() {
		if v := recover(); v != nil {
			c.logPanic(ctx, begun, v)
			resp, err = nil, toStatus(publicError(nil), begun.requestID).Err()
		}
	}()
	return next(context.WithValue(ctx, callKey{}, begun), req)
}

func (c *chain) logPanic(ctx context.Context, begun *call, v any) {
	c.logger.LogAttrs(ctx, slog.LevelError, "panic",
		slog.String("method", begun.method), slog.String("panic", panicText(v)),
		slog.String("request_id", begun.requestID), slog.String("stack", string(debug.Stack())))
}

// panicText describes a panic's value. The runtime's own errors hold indexes and type names only, and are told in full.
func panicText(v any) string {
	if err, ok := v.(runtime.Error); ok {
		return safeText(err.Error())
	}
	return fmt.Sprintf("%T", v)
}

// begin reads the request id and the caller's address.
func (c *chain) begin(ctx context.Context, method string) *call {
	md, _ := metadata.FromIncomingContext(ctx)
	begun := &call{method: strings.TrimPrefix(method, "/"), open: c.rights[method].open, md: md}
	if c.behindGateway {
		begun.requestID = first(md, keyRequestID)
		if a, err := netip.ParseAddr(first(md, keyClient)); err == nil {
			begun.peer.IP = a
		}
		return begun
	}
	begun.requestID = requestID(first(md, "x-request-id"))
	if p, ok := peer.FromContext(ctx); ok {
		if tcp, ok := p.Addr.(*net.TCPAddr); ok {
			begun.peer.IP = c.trusted.client(tcp.AddrPort().Addr(), md.Get("x-forwarded-for"))
		}
	}
	return begun
}

func first(md metadata.MD, key string) string {
	if vs := md.Get(key); len(vs) > 0 {
		return vs[0]
	}
	return ""
}

// observe counts and times the call and writes its one log line, whatever becomes of it.
func (c *chain) observe(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	start, code := time.Now(), codes.Internal
	defer func() {
		took := time.Since(start)
		c.metrics.observe(info.FullMethod, code, took)
		c.log(ctx, callOf(ctx), code, took)
	}()
	resp, err := next(ctx, req)
	code = status.Code(err)
	return resp, err
}

func (c *chain) log(ctx context.Context, done *call, code codes.Code, took time.Duration) {
	level := slog.LevelInfo
	switch {
	case code == codes.Internal:
		level = slog.LevelError
	case code == codes.Unavailable:
		level = slog.LevelWarn
	case code == codes.OK && done.open:
		level = slog.LevelDebug
	}
	if !c.logger.Enabled(ctx, level) {
		return
	}
	attrs := append(make([]slog.Attr, 0, 8),
		slog.String("method", done.method), slog.String("code", classOfCode(code)), slog.Duration("duration", took),
		slog.String("actor", safeText(done.actor.String())))
	if done.actor.TokenID != 0 {
		attrs = append(attrs, slog.String("token_id", done.actor.TokenID.String()))
	}
	attrs = append(attrs, slog.String("request_id", done.requestID))
	if done.peer.IP.IsValid() {
		attrs = append(attrs, slog.String("peer", done.peer.IP.String()))
	}
	if done.cause != nil {
		attrs = append(attrs, slog.String("cause", safeText(done.cause.Error())))
	}
	c.logger.LogAttrs(ctx, level, "call", attrs...)
}

// classOfCode is a code's name as the JSON errors have it.
func classOfCode(code codes.Code) string {
	if code == codes.OK {
		return "OK"
	}
	return classOfGRPC(code).name
}

// mapErrors turns errors of the domain into those of the wire, and keeps for the log what the caller is not told.
func (c *chain) mapErrors(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	resp, err := next(ctx, req)
	if err == nil || c.rights[info.FullMethod].open {
		return resp, err // open methods are not ours, and speak for themselves
	}
	begun, public := callOf(ctx), publicError(err)
	if begun.cause = public.Cause; public.Code == tokens.CodeInternal {
		begun.cause = err
	}
	var often *tooOften
	if errors.As(err, &often) {
		return nil, often.status(ctx, begun.requestID).Err()
	}
	return nil, toStatus(public, begun.requestID).Err()
}

// tap gives a call its deadline; an earlier one of the caller's stays. It counts from the first byte on, so that a call
// whose message never comes ends too. The streams that are served, which are open, end when the server starts to stop.
func (c *chain) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	if c.rights[info.FullMethodName].stream {
		// The end of its context is what wakes a stream that waits for its caller.
		lasting, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(c.draining, cancel)
		context.AfterFunc(ctx, func() { stop(); cancel() })
		return lasting, nil
	}
	bounded, cancel := context.WithTimeout(ctx, c.timeout) //nolint:gosec // G118: see the next line
	_ = cancel                                             // the transport ends ctx with the call, and with it this one and its timer
	return bounded, nil
}

// identify finds out who calls. Open methods, such as health, do not look at credentials, and are never limited. An
// address from which too many were bad is refused before the next one is looked at, since looking is what costs; a good one
// is refused with them.
func (c *chain) identify(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	begun := callOf(ctx)
	begun.actor.Peer = begun.peer
	if begun.open {
		return next(ctx, req)
	}
	// A trusted proxy's own address stands for callers whom it does not name, which are not to pay for each other.
	limited := len(begun.md.Get("authorization")) > 0 && !c.trusted.has(begun.peer.IP)
	if limited {
		if err := c.limits.attempt(begun.peer.IP); err != nil {
			return nil, err
		}
	}
	actor, err := c.authenticate(ctx, begun.md, begun.peer)
	if err != nil {
		if limited {
			c.limits.failed(begun.peer.IP, err)
		}
		return nil, err
	}
	begun.actor = actor
	return next(ctx, req)
}

// authorize asks the table of rights, before the handler does anything, and refuses a caller that mints too often. A
// change that an authenticated caller was refused is recorded, as far as it does not try too often.
func (c *chain) authorize(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	r, actor := c.rights[info.FullMethod], actorOf(ctx)
	switch {
	case r.open:
		return next(ctx, req)
	case r.allows(actor) && reaches(actor, req):
		if err := c.limits.spend(r, actor); err != nil {
			return nil, err
		}
		return next(ctx, req)
	case actor.Kind == tokens.Nobody:
		return nil, noCredential()
	}
	refused := tokens.Fail(tokens.CodeDenied, "PERMISSION_DENIED", denial(r, actor))
	if r.action != "" {
		if err := c.service.RecordRefusal(ctx, actor, refusal(r.action, refused.Reason, req)); err != nil {
			c.logger.LogAttrs(ctx, slog.LevelWarn, "a refused attempt could not be recorded",
				slog.String("request_id", callOf(ctx).requestID), slog.String("cause", safeText(err.Error())))
		}
	}
	return nil, refused
}

// reaches tells whether what a request is about is within the caller's reach: of a signed-in user, its own things. The
// domain decides that again; here another user's request ends alike whether that user exists and whether it is well formed.
func reaches(a tokens.Actor, req any) bool {
	if a.Kind != tokens.UserActor {
		return true
	}
	r, ok := req.(interface{ GetUser() string })
	return ok && (r.GetUser() == "me" || r.GetUser() == a.User)
}

// denial says what the caller would have needed.
func denial(r right, a tokens.Actor) string {
	switch {
	case r.bearer:
		return "this call is for the bearer of a personal access token"
	case a.Kind == tokens.TokenActor:
		return "a personal access token may not make this call"
	case a.Kind == tokens.UserActor && r.user:
		return "a signed-in user reaches only what is its own"
	case a.Kind == tokens.UserActor:
		return "a signed-in user may not make this call"
	case r.any != 0:
		return "this call needs the permission " + strings.Join((r.any|tokens.PermAdmin).Names(), " or ")
	default:
		return "nobody may make this call"
	}
}

// refusal names what a refused call was about, as far as its request holds well-formed names.
func refusal(action tokens.Action, reason string, req any) tokens.Refusal {
	out := tokens.Refusal{Action: action, Reason: reason}
	if r, ok := req.(interface{ GetUser() string }); ok {
		out.User = loggable(r.GetUser())
	}
	if r, ok := req.(interface{ GetTokenId() string }); ok {
		if id, err := tokens.ParseID(r.GetTokenId()); err == nil {
			out.TokenID = id.String()
		}
	}
	if strings.HasPrefix(string(action), "service.") {
		if r, ok := req.(interface{ GetName() string }); ok {
			out.Service = loggable(r.GetName())
		}
	}
	return out
}

// limitSize refuses messages over the limit, with the reason that REST gives for a body. The transport takes somewhat
// more, since its own refusal would carry no reason.
func (c *chain) limitSize(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if m, ok := req.(proto.Message); ok && !c.behindGateway && proto.Size(m) > maxMessage {
		return nil, tooLarge()
	}
	return next(ctx, req)
}

func tooLarge() *tokens.Error {
	return tokens.Fail(tokens.CodeExhausted, reasonTooLarge, "a request holds at most 1 MiB")
}

// stream guards the streaming methods. Only open ones are served, health and reflection; tap ends them when the server
// starts to stop.
func (c *chain) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	begun, start := c.begin(ss.Context(), info.FullMethod), time.Now()
	if srv == nil { // not a method at all: the caller chose the name, so it is not to be repeated
		begun.method = "unknown"
	}
	defer func() {
		if v := recover(); v != nil {
			c.logPanic(ss.Context(), begun, v)
			err = toStatus(publicError(nil), begun.requestID).Err()
		}
		c.metrics.observe(info.FullMethod, status.Code(err), time.Since(start))
		c.log(ss.Context(), begun, status.Code(err), time.Since(start))
	}()
	if srv == nil {
		return toStatus(tokens.Fail(codeUnimplemented, "METHOD_UNKNOWN", "there is no such method"), begun.requestID).Err()
	}
	if !begun.open {
		return toStatus(tokens.Fail(tokens.CodeDenied, "PERMISSION_DENIED", denial(right{}, begun.actor)), begun.requestID).Err()
	}
	return next(srv, ss)
}
