package call

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/proto"

	"patd/server/internal/connection"
	"patd/server/internal/fault"
	"patd/server/internal/metrics"
	"patd/tokens"
)

// MaxMessage is the limit on one message, in bytes. The transport's own limit is maxTransportMessage: between the two
// the chain rejects the message with a reason.
const (
	MaxMessage          = 1 << 20
	MaxTransportMessage = 2 * MaxMessage
)

// Private metadata keys. The HTTP front writes them, and they are trusted on the in-process listener only.
const (
	KeyRequestID = "patd-request-id"
	KeyClient    = "patd-client"
	KeyEmptyBody = "patd-empty-body"
	// KeyConnection is the number of the connection on which a request arrived.
	KeyConnection = "patd-connection"
	// KeyRoute is the HTTP method of a request and the pattern of its path, joined by a space.
	KeyRoute = "patd-route"
)

// Metadata keys of the answers to a token's bearer, see package refusal.
const (
	KeyExpiresAt = "patd-token-expires-at"
	KeyRenew     = "patd-token-renew"
)

// Metadata keys of idempotent calls.
const (
	KeyIdempotency = "idempotency-key"
	KeyReplayed    = "idempotency-replayed"
)

// Chain is the sequence of steps that every call passes: recover, metrics and log, error map, deadline, authenticate,
// limit, authorize, size.
type Chain struct {
	authenticator
	logger  *slog.Logger
	Unknown *UnknownMemory
	codec   encoding.CodecV2
	Metrics *metrics.Set
	Limits  *Limits
	Methods map[string]*Method // by full name; methods without a row in the table of rights are not in it
	Trusted Trusted
	Timeout time.Duration
	Tracing *Tracing // nil: off
	// Draining ends when the server begins to stop.
	Draining context.Context
	// Streams counts the goroutines of streams, which may outlive their handlers briefly. Serve waits for them.
	Streams *sync.WaitGroup
	// behindGateway marks the chain of the in-process listener, where the HTTP front has written the metadata.
	behindGateway bool
	connections   *connection.Numbered // of the HTTP front, if behindGateway is set
	expiries      *expiries
}

// Config configures a chain. All fields are required but SignIn and Tracing, which may be nil.
type Config struct {
	Service  *tokens.Service
	SignIn   Verifier
	Logger   *slog.Logger
	Metrics  *metrics.Set
	Limits   *Limits
	Codec    encoding.CodecV2
	Unknown  *UnknownMemory
	Trusted  Trusted
	Timeout  time.Duration
	Draining context.Context
	Streams  *sync.WaitGroup
	Tracing  *Tracing
}

// New makes the chain of the network listeners.
func New(c Config) *Chain {
	return &Chain{
		authenticator: authenticator{
			Service: c.Service,
			signIn:  c.SignIn,
		},
		logger:   c.Logger,
		Metrics:  c.Metrics,
		Limits:   c.Limits,
		codec:    c.Codec,
		Unknown:  c.Unknown,
		Methods:  methodsOf(Rights()),
		Trusted:  c.Trusted,
		Timeout:  c.Timeout,
		Draining: c.Draining,
		Streams:  c.Streams,
		Tracing:  c.Tracing,
		expiries: &expiries{},
	}
}

// Behind returns the same chain for calls from the gateway, which arrive on connections of the HTTP front.
func (c *Chain) Behind(connections *connection.Numbered) *Chain {
	inner := *c
	inner.behindGateway, inner.connections = true, connections
	return &inner
}

// Of returns the method with a full name.
func (c *Chain) Of(fullMethod string) *Method {
	if m, ok := c.Methods[fullMethod]; ok {
		return m
	}
	return &Method{full: fullMethod, name: strings.TrimPrefix(fullMethod, "/")}
}

// Page adds the method of an endpoint that net/http serves beside the gateway. It must be called before Serve.
func (c *Chain) Page(name string, r Right) *Method {
	full := "/" + name
	c.Metrics.Watch(full)
	return &Method{Right: r, full: full, name: name, Metrics: c.Metrics.Methods[full]}
}

// unary passes a call that Guard has begun on to its handler.
func (c *Chain) unary(
	ctx context.Context,
	req any,
	_ *grpc.UnaryServerInfo,
	next grpc.UnaryHandler,
) (resp any, err error) {
	begun := Of(ctx)
	begun.about(req)
	defer func() {
		if err == nil {
			begun.about(resp)
			begun.aboutMany(req, resp)
		}
	}()
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
	if begun.Method.action != "" {
		begun.Context = tokens.WithPrecondition(begun.Context, p)
		return next(begun, req)
	}
	if resp, err = next(begun, req); err != nil {
		return nil, err
	}
	return resp, unchanged(p, resp)
}

// admit checks that the caller is known and may make the call.
func (c *Chain) admit(begun *Call, req any) error {
	before := begun.identified
	if err := c.identify(begun); err != nil {
		return err
	}
	if before && begun.Actor.Kind == tokens.ServiceActor { // its message may have taken long to arrive
		if err := c.StillIs(begun); err != nil {
			return err
		}
	}
	if err := c.authorize(begun, req); err != nil {
		return err
	}
	if m, ok := req.(proto.Message); ok && !c.behindGateway && proto.Size(m) > MaxMessage {
		return TooLarge()
	}
	return nil
}

// AdmitHot is admit for a call that is not a user's and whose size on the wire is known.
func (c *Chain) AdmitHot(begun *Call, size int) error {
	if err := c.identify(begun); err != nil {
		return err
	}
	if err := c.authorize(begun, nil); err != nil {
		return err
	}
	if !c.behindGateway && size > MaxMessage {
		return TooLarge()
	}
	return nil
}

// End finishes a call, whatever its result: it turns a panic into an internal error, maps the error to the public one,
// counts and times the call, and writes its log line. A panic's value is not logged, since it may hold the caller's
// input; its type and the stack suffice to find the cause.
func (c *Chain) End(begun *Call, start time.Time, panicked any, err error) error {
	begun.Late.Release()
	if begun.identified && begun.Method.announcesLate() {
		c.announceLate(begun, err == nil && panicked == nil)
	}
	switch {
	case panicked != nil:
		c.LogPanic(begun, panicked)
		err = fault.Status(fault.Public(nil), begun.RequestID()).Err()
	case err != nil:
		err = c.toStatus(begun, err)
	}
	code, took := status.Code(err), time.Since(start)
	begun.Method.Metrics.Observe(code, took)
	if begun.BehindGateway && begun.Status == 0 {
		begun.Status = HTTPStatus(begun.Method.full, status.Convert(err))
	}
	c.Log(begun, code, took)
	return err
}

// Tap gives a call its deadline; an earlier one of the client's stays. The deadline counts from the first byte on, so
// that a call whose message never arrives ends too. Hot calls get theirs from RecvTimeout and lateDeadline. Streams
// have none: ours watch for the server's stop themselves, and the open ones end with their context.
func (c *Chain) Tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	m := c.Of(info.FullMethodName)
	if m.Hot || m.stream && !m.Open {
		return ctx, nil
	}
	if m.stream {
		// The end of its context wakes a stream that waits for its caller.
		lasting, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(c.Draining, cancel)
		context.AfterFunc(ctx, func() { stop(); cancel() })
		return lasting, nil
	}
	bounded, cancel := context.WithTimeout(ctx, c.Timeout) //nolint:gosec // G118: see the next line
	_ = cancel                                             // the transport ends ctx, and so this one, with the call
	return bounded, nil
}

// identify finds out who calls. For open methods it ignores the credential. A good credential passes whatever others at
// its address do; a bad one is counted, and RATE_LIMITED past the limit of its address.
func (c *Chain) identify(begun *Call) error {
	if begun.Method.Open || begun.Method.Anyone || begun.identified {
		return nil
	}
	if c.recognize(begun) {
		return nil
	}
	// A trusted proxy's own address stands for callers that it does not name. They must not pay for each other.
	limited := len(begun.Credentials) > 0 && !c.Trusted.Has(begun.Peer.IP)
	var remembered *FromMemoryOnly
	if limited {
		remembered = c.Limits.FromMemory(begun, begun.Peer.IP)
	}
	actor, err := c.authenticateCharged(begun, remembered)
	if err != nil {
		if limited {
			return c.Limits.Failed(begun.Peer.IP, remembered, err)
		}
		return err
	}
	c.identified(begun, actor)
	if actor.Kind == tokens.ServiceActor && !c.behindGateway && begun.Connection.Again(begun.Credentials[0]) {
		proven := actor
		begun.Connection.Prove(begun.Credentials[0], &proven)
	}
	return nil
}

// identified notes who calls.
func (c *Chain) identified(begun *Call, actor tokens.Actor) {
	begun.Actor, begun.identified = actor, true
	if actor.Kind == tokens.Nobody {
		return
	}
	begun.Connection.Authenticated()
	if !begun.Method.announcesLate() {
		c.announce(begun)
	}
}

// recognize identifies a service whose credential is the very one that was proven last on its connection, as long as
// nothing has changed since that could end it. That costs much less than a digest.
func (c *Chain) recognize(begun *Call) bool {
	if len(begun.Credentials) != 1 || c.behindGateway {
		return false
	}
	proven, ok := begun.Connection.Proven(begun.Credentials[0]).(*tokens.Actor)
	if !ok {
		return false
	}
	actor, ok := c.Service.Still(proven, begun.Peer)
	if ok {
		c.identified(begun, actor)
	}
	return ok
}

// authenticateCharged authenticates a caller, and charges for its stream's memory if that takes a wait. remembered is
// not nil if the credential must be found in memory or not at all.
func (c *Chain) authenticateCharged(begun *Call, remembered *FromMemoryOnly) (tokens.Actor, error) {
	ctx := context.Context(begun)
	if remembered != nil {
		ctx = remembered
	}
	if c.behindGateway || len(begun.Credentials) == 0 { // the front has charged it, or there is nothing to wait for
		return c.authenticate(ctx, begun.Credentials, begun.Peer)
	}
	if begun.Connection == nil || !begun.Connection.Known.Load() {
		begun.Late.unknown = c.Unknown.Hold(begun.Connection)
		defer begun.Late.identified()
	}
	return c.authenticate(ctx, begun.Credentials, begun.Peer)
}

// authorize checks the table of rights before the handler runs, and rejects a caller that mints too often. If a change
// of an authenticated caller is refused, it records the attempt, within the limit of such records.
func (c *Chain) authorize(begun *Call, req any) error {
	r := begun.Method.Right
	actor, allowed := r.caller(begun.Actor, req)
	switch {
	case r.Open:
		return nil
	case r.Anyone:
		if err := c.unkeyed(begun); err != nil {
			return err
		}
		return c.Limits.report(actor.Peer.IP)
	case allowed:
		begun.Actor = actor
		if err := c.unkeyed(begun); err != nil {
			return err
		}
		return c.Limits.spend(begun, r, actor)
	case actor.Kind == tokens.Nobody:
		return NoCredential()
	}
	refused := Denied(r, actor)
	if r.action != "" {
		if err := c.Service.RecordRefusal(begun, actor, refusalOf(r.action, refused.Reason, req)); err != nil {
			c.logger.LogAttrs(begun, slog.LevelWarn, "a refused attempt could not be recorded",
				slog.String("request_id", begun.RequestID()), slog.String("cause", LogText(err.Error())))
		}
	}
	return refused
}

// unkeyed rejects an idempotency key on a call that changes something but would ignore the key.
func (c *Chain) unkeyed(begun *Call) error {
	if r := begun.Method.Right; r.Reads || r.keyed || len(begun.Headers(KeyIdempotency)) == 0 {
		return nil
	}
	return ErrKeyUnsupported()
}

// Stream passes a streaming call through the chain: it identifies the caller before the first message is read. A stream
// has no deadline; Tap ends it when the server begins to stop.
func (c *Chain) Stream(
	srv any,
	ss grpc.ServerStream,
	info *grpc.StreamServerInfo,
	next grpc.StreamHandler,
) (err error) {
	begun, start := &Call{}, time.Now()
	m := c.Of(info.FullMethod)
	if srv == nil { // not a method: the caller chose the name, so it must not be repeated
		m = &Method{name: "unknown"}
	}
	c.Begin(begun, ss.Context(), m)
	defer func() { err = c.End(begun, start, recover(), err) }()
	holds, err := c.holdStream(begun)
	if err != nil {
		return c.refused(begun, err)
	}
	defer holds.Release()
	if m.Open && !strings.HasPrefix(m.name, "grpc.health.") { // unread messages of an unknown caller hold memory
		if full := holds.Data(MaxUnknown); full != nil {
			return c.refused(begun, full)
		}
	}
	if srv == nil {
		return tokens.Fail(fault.CodeUnimplemented, "METHOD_UNKNOWN", "there is no such method")
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
	return next(srv, &admitted{ServerStream: ss, messages: messages, call: begun, chain: c, held: &holds})
}

// admitted is a stream whose context is the Call.
type admitted struct {
	grpc.ServerStream
	messages messageStream
	call     *Call
	chain    *Chain
	held     *Held
}

// RecvMsg reads the next message, within the limit of unknown callers if the caller is one. gRPC's own RecvMsg would
// end the stream before the handler can give a reason.
func (a *admitted) RecvMsg(m any) error {
	if !a.call.Method.Open {
		_, err := a.chain.receiveFrom(a.messages, m, MaxTransportMessage, nil)
		if err == nil {
			return nil
		}
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		return received(err)
	}
	taken, err := a.chain.receiveFrom(a.messages, m, MaxUnknown, a.held)
	a.held.Done(taken)
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	if err = received(err); err != nil {
		return a.chain.refused(a.call, err)
	}
	return nil
}

// Context returns the call.
func (a *admitted) Context() context.Context { return a.call }
