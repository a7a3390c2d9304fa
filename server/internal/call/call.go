package call

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"patd/internal/tracecontext"
	"patd/server/internal/connection"
	"patd/server/internal/metrics"
	"patd/tokens"
)

// Method is what the chain knows about a method before a call.
type Method struct {
	Right
	full, name string          // name is without the leading slash
	Metrics    *metrics.Method // nil: not served
}

// methodsOf makes the methods of a table of rights.
func methodsOf(rights map[string]Right) map[string]*Method {
	found := make(map[string]*Method, len(rights))
	for full, r := range rights {
		found[full] = &Method{Right: r, full: full, name: full[1:]}
	}
	return found
}

// Call is what the chain knows about one call. The chain fills it in step by step; handlers only read it. It is also
// the context that handlers get, so that a call costs one allocation, not one for each value.
//
// Its deadline is created on first use: most introspections are served from memory and never need one.
type Call struct {
	context.Context // the transport's
	Method          *Method
	Peer            tokens.Peer
	Actor           tokens.Actor
	Credentials     []string // the Authorization headers
	ID              string   // the request's; empty: not needed yet
	Cause           error    // the private cause of an error
	Reason          string   // of the public error; empty: none
	// Subject is the token that the call acts on, or the refused credential; 0: none, or not known yet.
	Subject tokens.ID
	many    *many // what it has acted on, if that is many tokens
	// Decision is what introspection decided; 0: nothing.
	Decision tokens.Decision
	// Route is the request's HTTP method and the path's pattern, joined by a space, for calls that do not come through
	// the gateway. Status is the HTTP status of the response, if it is not the one that HTTPStatus returns.
	Route         string
	Status        int
	BehindGateway bool
	identified    bool                   // the credentials were checked, and are good or absent
	Connection    *connection.Connection // nil: unknown
	Late          lateDeadline
	// span is the call's, if tracing is on and the call is sampled, and parent the traceparent of its caller; empty:
	// none. tracked says that this is decided.
	span    *callSpan
	parent  string
	tracked bool
}

var _ context.Context = (*Call)(nil)

type callKey struct{}

// Value returns the call itself, or a value of the transport's context.
func (c *Call) Value(key any) any {
	switch key.(type) {
	case callKey:
		return c
	case tracecontext.Key:
		if c.span != nil || c.parent != "" {
			return c.position()
		}
	}
	if bounded := c.Late.made(); bounded != nil {
		return bounded.Value(key) // so that contexts derived from this one find their parent
	}
	return c.Context.Value(key)
}

// Deadline returns the time at which the call ends.
func (c *Call) Deadline() (time.Time, bool) { return c.Late.of(c.Context).Deadline() }

// Done returns a channel that is closed when the client cancels or the deadline passes.
func (c *Call) Done() <-chan struct{} { return c.Late.of(c.Context).Done() }

// Err returns why the call has ended, or nil.
func (c *Call) Err() error {
	if bounded := c.Late.made(); bounded != nil {
		return bounded.Err()
	}
	return c.Context.Err()
}

// RequestID returns the id under which the call is logged. It is made on first use.
func (c *Call) RequestID() string {
	switch {
	case c.ID != "":
	case c.BehindGateway:
		c.ID = c.Header(KeyRequestID)
	default:
		c.ID = RequestID(c.Header("x-request-id"))
	}
	return c.ID
}

// Headers returns the values of a metadata key, which must be in lower case.
func (c *Call) Headers(key string) []string {
	return metadata.ValueFromIncomingContext(c.Context, key)
}

// Header returns the first value of a metadata key, or "".
func (c *Call) Header(key string) string {
	if vs := c.Headers(key); len(vs) > 0 {
		return vs[0]
	}
	return ""
}

// lateDeadline is a deadline that costs nothing until its first use, which means that the call is about to wait. It
// counts from then: nothing before takes time.
type lateDeadline struct {
	Timeout time.Duration // 0: none
	// Waits, when not nil, is called once, before the first wait.
	Waits func()
	// unknown is charged once the call waits for its caller to be identified, so that the connection need not be held
	// back meanwhile. If there is no room, it is held back.
	unknown Held

	mu       sync.Mutex
	bounded  context.Context
	cancel   context.CancelFunc
	released bool
}

// of returns parent with the deadline.
func (l *lateDeadline) of(parent context.Context) context.Context {
	if l.Timeout <= 0 {
		return parent
	}
	l.mu.Lock()
	first := l.bounded == nil
	if first {
		l.bounded, l.cancel = context.WithTimeout(parent, l.Timeout)
		l.charge()
		if l.released {
			l.cancel()
		}
	}
	bounded := l.bounded
	l.mu.Unlock()
	if first && l.Waits != nil {
		l.Waits()
	}
	return bounded
}

// charge reserves what the stream of a caller may hold while it waits to be identified. mu must be held.
func (l *lateDeadline) charge() {
	if l.unknown.memory != nil && l.unknown.take(MaxUnknown) {
		l.unknown.connection.Handled()
	}
}

// identified ends the charge.
func (l *lateDeadline) identified() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unknown.Release()
	l.unknown = Held{}
}

// made returns the context with the deadline, or nil if it was not needed yet.
func (l *lateDeadline) made() context.Context {
	if l.Timeout <= 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bounded
}

// Release frees the resources of the deadline.
func (l *lateDeadline) Release() {
	if l.Timeout <= 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.released = true
	if l.cancel != nil {
		l.cancel()
	}
}

// Of returns the call that ctx belongs to.
func Of(ctx context.Context) *Call {
	if c, ok := ctx.(*Call); ok {
		return c
	}
	c, _ := ctx.Value(callKey{}).(*Call)
	if c == nil {
		return &Call{Context: ctx, Method: &Method{}}
	}
	return c
}

// ActorOf returns the caller of the call that ctx belongs to.
func ActorOf(ctx context.Context) tokens.Actor { return Of(ctx).Actor }

// Begin starts a call and finds the caller's address.
func (c *Chain) Begin(
	begun *Call,
	//nolint:revive // the call is what is made here, and ctx what of
	ctx context.Context,
	m *Method,
) {
	begun.Context, begun.Method, begun.BehindGateway = ctx, m, c.behindGateway
	if c.behindGateway {
		if a, err := netip.ParseAddr(begun.Header(KeyClient)); err == nil {
			begun.Peer.IP = a
		}
		if id, err := strconv.ParseUint(begun.Header(KeyConnection), 10, 64); err == nil {
			begun.Connection = c.connections.Find(id)
		}
	} else if p, ok := peer.FromContext(ctx); ok {
		if addr, ok := p.Addr.(connection.Addr); ok {
			begun.Peer.IP, begun.Connection = c.client(begun, addr.TCPAddr), addr.Conn
		}
	}
	begun.Actor.Peer = begun.Peer
	if !m.Open {
		begun.Credentials = begun.Headers("authorization")
	}
	c.trace(begun)
}

// client returns the client address of a call that arrived from peer. It reads the header only if the header can count.
func (c *Chain) client(begun *Call, from *net.TCPAddr) netip.Addr {
	addr := Plain(from.AddrPort().Addr())
	if !c.Trusted.Has(addr) {
		return addr
	}
	return c.Trusted.Client(addr, begun.Headers("x-forwarded-for"))
}
