package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/proto"

	"patd/tokens"
)

// maxMessage is the limit on what a caller may send at once, in bytes. maxTransportMessage is where the transport itself gives up:
// between the two the chain refuses, with a reason.
const (
	maxMessage          = 1 << 20
	maxTransportMessage = 2 * maxMessage
)

// Private metadata keys, written by the HTTP front and believed only on the in-process listener.
const (
	keyRequestID = "patd-request-id"
	keyClient    = "patd-client"
	keyEmptyBody = "patd-empty-body"
	// keyConnection is the number of the connection that a request came by.
	keyConnection = "patd-connection"
)

// Metadata keys of idempotent calls.
const (
	keyIdempotency = "idempotency-key"
	keyReplayed    = "idempotency-replayed"
)

// chain is the steps that every call passes, in this order: recover, metrics and log, error map, deadline, authenticate,
// limit, authorize, size.
type chain struct {
	authenticator
	logger  *slog.Logger
	unknown *unknownMemory
	codec   encoding.CodecV2
	metrics *metrics
	limits  *limits
	methods map[string]*method // by full name; one without a row of rights is not in it
	trusted trusted
	timeout time.Duration
	// draining ends when the server starts to stop.
	draining context.Context
	// lingering are the goroutines of streams, which may outlive their handlers by a moment. Serve waits for them.
	lingering *sync.WaitGroup
	awaited   *awaited
	// behindGateway marks the chain of the in-process listener, where metadata was written by the HTTP front.
	behindGateway bool
	connections   *numbered // those of the HTTP front, where behindGateway is set
}

// chainConfig is what a chain is made of; each of it is needed, but for signIn, which may be nil, and unknownMemory: 0 is the default.
type chainConfig struct {
	service       *tokens.Service
	signIn        Verifier
	logger        *slog.Logger
	metrics       *metrics
	limits        *limits
	codec         encoding.CodecV2
	unknownMemory int64 // bytes
	trusted       trusted
	timeout       time.Duration
	draining      context.Context
	lingering     *sync.WaitGroup
	awaited       *awaited
}

// newChain makes the chain of the network.
func newChain(c chainConfig) *chain {
	return &chain{
		authenticator: authenticator{service: c.service, signIn: c.signIn}, logger: c.logger, metrics: c.metrics, limits: c.limits,
		codec: c.codec, unknown: newUnknownMemory(c.unknownMemory, c.metrics), methods: methodsOf(rights()), trusted: c.trusted,
		timeout: c.timeout, draining: c.draining, lingering: c.lingering, awaited: c.awaited,
	}
}

// behind is the same chain for the calls that come from the gateway, by some connections of the HTTP front.
func (c *chain) behind(connections *numbered) *chain {
	inner := *c
	inner.behindGateway, inner.connections = true, connections
	return &inner
}

// of is what is known of a method by its full name.
func (c *chain) of(fullMethod string) *method {
	if m, ok := c.methods[fullMethod]; ok {
		return m
	}
	return &method{full: fullMethod, name: strings.TrimPrefix(fullMethod, "/")}
}

// page makes the method of an endpoint that net/http serves beside the gateway. It is called before anything is served.
func (c *chain) page(name string, r right) *method {
	full := "/" + name
	c.metrics.watch(full)
	return &method{right: r, full: full, name: name, metrics: c.metrics.methods[full]}
}

// unary lets a call that guard has begun pass to its handler.
func (c *chain) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	begun := callOf(ctx)
	if err := c.admit(begun, req); err != nil {
		return nil, err
	}
	p, asked, err := precondition(begun, req)
	if err != nil {
		return nil, err
	}
	if !asked {
		return next(begun, req)
	}
	if begun.method.action != "" {
		begun.Context = tokens.WithPrecondition(begun.Context, p)
		return next(begun, req)
	}
	if resp, err = next(begun, req); err != nil {
		return nil, err
	}
	return resp, unchanged(p, resp)
}

// admit lets a call pass to its handler: its caller is known and may make it.
func (c *chain) admit(begun *call, req any) error {
	before := begun.identified
	if err := c.identify(begun); err != nil {
		return err
	}
	if before && begun.actor.Kind == tokens.ServiceActor { // its message may have been long in coming
		if err := c.stillIs(begun); err != nil {
			return err
		}
	}
	if err := c.authorize(begun, req); err != nil {
		return err
	}
	if m, ok := req.(proto.Message); ok && !c.behindGateway && proto.Size(m) > maxMessage {
		return tooLarge()
	}
	return nil
}

// admitHot is admit for a request that is not a user's, of which the size on the wire is known.
func (c *chain) admitHot(begun *call, size int) error {
	if err := c.identify(begun); err != nil {
		return err
	}
	if err := c.authorize(begun, nil); err != nil {
		return err
	}
	if !c.behindGateway && size > maxMessage {
		return tooLarge()
	}
	return nil
}

// end closes a call whatever became of it: it turns a panic into an internal error, maps the error to what the caller is
// told, counts and times the call and writes its one log line. A panic's value stays out of the log, since it may hold what
// the caller sent; its type and the stack are enough to find it.
func (c *chain) end(begun *call, start time.Time, panicked any, err error) error {
	begun.late.release()
	switch {
	case panicked != nil:
		c.logPanic(begun, panicked)
		err = toStatus(publicError(nil), begun.requestID()).Err()
	case err != nil:
		err = c.told(begun, err)
	}
	code, took := status.Code(err), time.Since(start)
	begun.method.metrics.observe(code, took)
	c.log(begun, code, took)
	return err
}

// errPanic stands for a panic, which was logged.
var errPanic = errors.New("panic")

func (c *chain) logPanic(begun *call, v any) {
	stack := debug.Stack()
	if elsewhere, ok := v.(interface{ Stack() []byte }); ok { // it comes from another goroutine, such as the store's
		stack = elsewhere.Stack()
	}
	c.logger.LogAttrs(begun, slog.LevelError, "panic",
		slog.String("method", begun.method.name), slog.String("panic", panicText(v)),
		slog.String("request_id", begun.requestID()), slog.String("stack", string(stack)))
}

// panicText describes a panic's value. The runtime's own errors hold indexes and type names only, and are told in full.
func panicText(v any) string {
	if err, ok := v.(runtime.Error); ok {
		return safeText(err.Error())
	}
	return fmt.Sprintf("%T", v)
}

// log writes the one line of a call. Probes, and introspections that were answered, are logged for who debugs only: there
// is one of those to every request that the company's APIs serve, and the metrics count them.
func (c *chain) log(done *call, code codes.Code, took time.Duration) {
	level := slog.LevelInfo
	switch {
	case code == codes.Internal:
		level = slog.LevelError
	case code == codes.Unavailable:
		level = slog.LevelWarn
	case code == codes.OK && done.method.quiet():
		level = slog.LevelDebug
	}
	if !c.logger.Enabled(done, level) {
		return
	}
	attrs := append(make([]slog.Attr, 0, 8),
		slog.String("method", done.method.name), slog.String("code", classOfCode(code)), slog.Duration("duration", took),
		slog.String("actor", logText(done.actor.String())))
	if done.actor.TokenID != 0 {
		attrs = append(attrs, slog.String("token_id", done.actor.TokenID.String()))
	}
	attrs = append(attrs, slog.String("request_id", done.requestID()))
	if done.peer.IP.IsValid() {
		attrs = append(attrs, slog.String("peer", done.peer.IP.String()))
	}
	if done.cause != nil {
		attrs = append(attrs, slog.String("cause", logText(done.cause.Error())))
	}
	c.logger.LogAttrs(done, level, "call", attrs...)
}

// told turns an error of the domain into that of the wire, and keeps for the log what the caller is not told.
func (c *chain) told(begun *call, err error) error {
	var ours *tokens.Error
	if begun.method.open && !errors.As(err, &ours) {
		return err // open methods are not ours, and speak for themselves
	}
	return c.refused(begun, err)
}

// refused is told for an error of ours.
func (c *chain) refused(begun *call, err error) error {
	public := publicError(err)
	if begun.cause = public.Cause; public.Code == tokens.CodeInternal {
		begun.cause = err
	}
	var often *tooOften
	if errors.As(err, &often) {
		return often.status(begun, begun.requestID()).Err()
	}
	return toStatus(public, begun.requestID()).Err()
}

// tap gives a call its deadline; an earlier one of the caller's stays. It counts from the first byte on, so that a call
// whose message never comes ends too; hot calls have theirs from awaited and lateDeadline. Streams have none. Those that are ours look themselves for the moment when the
// server starts to stop; for the others, which are open, it is the end of their context.
func (c *chain) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	m := c.of(info.FullMethodName)
	if m.hot || m.stream && !m.open {
		return ctx, nil
	}
	if m.stream {
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

// identify finds out who calls, unless everybody may: then a credential is not looked at, and not limited as one. A good
// one passes whatever others at its address do; a bad one is counted, and past the limit of its address refused as one too many.
func (c *chain) identify(begun *call) error {
	if begun.method.open || begun.method.anyone || begun.identified {
		return nil
	}
	// A trusted proxy's own address stands for callers whom it does not name, which are not to pay for each other.
	limited := len(begun.credentials) > 0 && !c.trusted.has(begun.peer.IP)
	var remembered *fromMemory
	if limited {
		remembered = c.limits.fromMemory(begun, begun.peer.IP)
	}
	actor, err := c.authenticateCharged(begun, remembered)
	if err != nil {
		if limited {
			return c.limits.failed(begun.peer.IP, remembered, err)
		}
		return err
	}
	begun.actor, begun.identified = actor, true
	if actor.Kind != tokens.Nobody {
		begun.connection.authenticated()
	}
	return nil
}

// authenticateCharged authenticates a caller, who is charged for what its stream holds if that takes a wait. remembered is
// not nil where it is to be known from memory or not at all.
func (c *chain) authenticateCharged(begun *call, remembered *fromMemory) (tokens.Actor, error) {
	ctx := context.Context(begun)
	if remembered != nil {
		ctx = remembered
	}
	if c.behindGateway || len(begun.credentials) == 0 { // the front has charged it; or there is nothing to wait for
		return c.authenticate(ctx, begun.credentials, begun.peer)
	}
	begun.late.unknown = c.unknown
	actor, err := c.authenticate(ctx, begun.credentials, begun.peer)
	if refused := begun.late.identified(); refused != nil {
		return actor, refused
	}
	return actor, err
}

// authorize asks the table of rights, before the handler does anything, and refuses a caller that mints too often. A
// change that an authenticated caller was refused is recorded, as far as it does not try too often.
func (c *chain) authorize(begun *call, req any) error {
	r, actor := begun.method.right, begun.actor
	switch {
	case r.open:
		return nil
	case r.anyone:
		if err := c.unkeyed(begun); err != nil {
			return err
		}
		return c.limits.report(actor.Peer.IP)
	case r.allows(actor) && reaches(actor, req):
		if err := c.unkeyed(begun); err != nil {
			return err
		}
		return c.limits.spend(begun, r, actor)
	case actor.Kind == tokens.Nobody:
		return noCredential()
	}
	refused := denied(r, actor)
	if r.action != "" {
		if err := c.service.RecordRefusal(begun, actor, refusal(r.action, refused.Reason, req)); err != nil {
			c.logger.LogAttrs(begun, slog.LevelWarn, "a refused attempt could not be recorded",
				slog.String("request_id", begun.requestID()), slog.String("cause", logText(err.Error())))
		}
	}
	return refused
}

// unkeyed refuses an idempotency key where it would be ignored, though the call changes something.
func (c *chain) unkeyed(begun *call) error {
	if r := begun.method.right; r.reads || r.keyed || len(begun.headers(keyIdempotency)) == 0 {
		return nil
	}
	return errKeyUnsupported()
}

func errKeyUnsupported() *tokens.Error {
	return tokens.Invalid("IDEMPOTENCY_KEY_UNSUPPORTED", "request_id", "this call takes no Idempotency-Key; leave it out. "+
		"CreateToken, RotateToken and CreateService take one")
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

// denied is the refusal of a caller that a right does not let in. To a service it names a permission that would.
func denied(r right, a tokens.Actor) *tokens.Error {
	e := tokens.Fail(tokens.CodeDenied, reasonDenied, denial(r, a))
	if a.Kind == tokens.ServiceActor && r.any != 0 {
		e.Metadata = map[string]string{keyPermission: r.any.Names()[0]}
	}
	return e
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

// tooLarge is the refusal of a message over the limit, with the reason that REST gives for a body. The transport takes
// somewhat more, since its own refusal would carry no reason.
func tooLarge() *tokens.Error {
	return tokens.Fail(tokens.CodeExhausted, reasonTooLarge, "a request holds at most 1 MiB")
}

// stream takes a streaming call through the chain: the caller is known before the first message is read. A stream has no
// deadline; tap ends it when the server starts to stop.
func (c *chain) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	begun, start := &call{}, time.Now()
	m := c.of(info.FullMethod)
	if srv == nil { // not a method at all: the caller chose the name, so it is not to be repeated
		m = &method{name: "unknown"}
	}
	c.begin(begun, ss.Context(), m)
	defer func() { err = c.end(begun, start, recover(), err) }()
	holds, err := c.holdStream(begun)
	if err != nil {
		return c.refused(begun, err)
	}
	defer holds.release()
	if m.open && !strings.HasPrefix(m.name, "grpc.health.") { // what it has not read of a stranger's stream, it holds
		if err := c.unknown.take(maxUnknown); err != nil {
			return c.refused(begun, err)
		}
		defer c.unknown.give(maxUnknown)
	}
	if srv == nil {
		return tokens.Fail(codeUnimplemented, "METHOD_UNKNOWN", "there is no such method")
	}
	if err := c.admit(begun, nil); err != nil {
		return err
	}
	if _, _, err := precondition(begun, nil); err != nil {
		return err
	}
	messages, ok := grpc.ServerTransportStreamFromContext(ss.Context()).(messageStream)
	if !ok {
		return errNoMessageStream
	}
	return next(srv, &admitted{ServerStream: ss, messages: messages, call: begun, chain: c})
}

// admitted is a stream whose context is the call.
type admitted struct {
	grpc.ServerStream
	messages messageStream
	call     *call
	chain    *chain
}

// RecvMsg reads the next message. One of a caller that is not known is bounded as such. gRPC's own RecvMsg would end the stream
// before the handler can say why.
func (a *admitted) RecvMsg(m any) error {
	if !a.call.method.open {
		_, err := a.chain.receiveFrom(a.messages, m, maxTransportMessage, false)
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		return received(err)
	}
	taken, err := a.chain.receiveFrom(a.messages, m, maxUnknown, true)
	a.chain.unknown.give(taken)
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	if err = received(err); err != nil {
		return a.chain.refused(a.call, err)
	}
	return nil
}

// Context answers the call.
func (a *admitted) Context() context.Context { return a.call }
