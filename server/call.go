package server

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"patd/tokens"
)

// method is what the chain knows of one method before it is called.
type method struct {
	right
	full, name string         // name is without the slash in front
	metrics    *methodMetrics // nil: it is not served
}

// methodsOf makes the methods of a table of rights.
func methodsOf(rights map[string]right) map[string]*method {
	found := make(map[string]*method, len(rights))
	for full, r := range rights {
		found[full] = &method{right: r, full: full, name: full[1:]}
	}
	return found
}

// call is what the chain knows of one call. The chain fills it in, step by step; handlers only read it. It is the context
// that handlers get, so that a call costs one allocation and not one for each thing that is to be known.
//
// Its deadline comes into being when somebody first asks for it, since most introspections are answered from memory and
// nobody does.
type call struct {
	context.Context // the transport's
	method          *method
	peer            tokens.Peer
	actor           tokens.Actor
	credentials     []string // the Authorization headers
	id              string   // the request's; empty: nobody has needed it yet
	cause           error    // what lies behind an error that tells the caller nothing
	behindGateway   bool
	identified      bool        // the credentials were looked at, and are good or absent
	connection      *connection // nil: it is not known
	late            lateDeadline
}

var _ context.Context = (*call)(nil)

type callKey struct{}

// Value answers the call itself, and what the transport's context holds.
func (c *call) Value(key any) any {
	if _, ok := key.(callKey); ok {
		return c
	}
	if bounded := c.late.made(); bounded != nil {
		return bounded.Value(key) // so that contexts made of this one find their parent
	}
	return c.Context.Value(key)
}

// Deadline is when the call has to end.
func (c *call) Deadline() (time.Time, bool) { return c.late.of(c.Context).Deadline() }

// Done ends with the caller's interest or at the deadline.
func (c *call) Done() <-chan struct{} { return c.late.of(c.Context).Done() }

// Err tells whether the call has ended, and why.
func (c *call) Err() error {
	if bounded := c.late.made(); bounded != nil {
		return bounded.Err()
	}
	return c.Context.Err()
}

// requestID is the id under which the call is logged. It is made when it is first needed.
func (c *call) requestID() string {
	switch {
	case c.id != "":
	case c.behindGateway:
		c.id = c.header(keyRequestID)
	default:
		c.id = requestID(c.header("x-request-id"))
	}
	return c.id
}

// headers are the values of a metadata key, which is in lower case.
func (c *call) headers(key string) []string {
	return metadata.ValueFromIncomingContext(c.Context, key)
}

// header is the first value of a metadata key, or nothing.
func (c *call) header(key string) string {
	if vs := c.headers(key); len(vs) > 0 {
		return vs[0]
	}
	return ""
}

// lateDeadline is a deadline that costs nothing until somebody asks for it, which is a sign that it is about to wait. It
// counts from then: until then nothing takes time.
type lateDeadline struct {
	timeout time.Duration // 0: none
	// waits, when not nil, is called once, before the first wait.
	waits func()
	// unknown, when not nil, is charged once the call waits: what its stream holds meanwhile is its caller's, who is not
	// known yet.
	unknown *unknownMemory

	mu       sync.Mutex
	charged  bool
	refused  error // unknown had no room; the call is canceled then
	bounded  context.Context
	cancel   context.CancelFunc
	released bool
}

// of answers the bounded form of parent.
func (l *lateDeadline) of(parent context.Context) context.Context {
	if l.timeout <= 0 {
		return parent
	}
	l.mu.Lock()
	first := l.bounded == nil
	if first {
		l.bounded, l.cancel = context.WithTimeout(parent, l.timeout)
		l.charge()
		if l.released {
			l.cancel()
		}
	}
	bounded := l.bounded
	l.mu.Unlock()
	if first && l.waits != nil {
		l.waits()
	}
	return bounded
}

// charge takes what the stream of a caller that waits to be identified may hold. It is called with mu locked.
func (l *lateDeadline) charge() {
	if l.unknown == nil {
		return
	}
	if l.refused = l.unknown.wait(); l.refused != nil {
		l.cancel()
		return
	}
	l.charged = true
}

// identified ends the charge. An error is why the caller was refused while it waited.
func (l *lateDeadline) identified() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.charged {
		l.unknown.waited()
	}
	l.unknown, l.charged = nil, false
	return l.refused
}

// made is the bounded context if somebody has asked for it.
func (l *lateDeadline) made() context.Context {
	if l.timeout <= 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bounded
}

// release ends what hangs on the deadline.
func (l *lateDeadline) release() {
	if l.timeout <= 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.released = true
	if l.cancel != nil {
		l.cancel()
	}
}

// callOf is the call that ctx belongs to.
func callOf(ctx context.Context) *call {
	if c, ok := ctx.(*call); ok {
		return c
	}
	c, _ := ctx.Value(callKey{}).(*call)
	if c == nil {
		return &call{Context: ctx, method: &method{}}
	}
	return c
}

// actorOf is who makes the call that ctx belongs to.
func actorOf(ctx context.Context) tokens.Actor { return callOf(ctx).actor }

// begin starts a call: it finds the caller's address.
func (c *chain) begin(begun *call, ctx context.Context, m *method) { //nolint:revive // the call is what is made here, and ctx what of
	begun.Context, begun.method, begun.behindGateway = ctx, m, c.behindGateway
	if c.behindGateway {
		if a, err := netip.ParseAddr(begun.header(keyClient)); err == nil {
			begun.peer.IP = a
		}
		if id, err := strconv.ParseUint(begun.header(keyConnection), 10, 64); err == nil {
			begun.connection = c.connections.find(id)
		}
	} else if p, ok := peer.FromContext(ctx); ok {
		if addr, ok := p.Addr.(connectionAddr); ok {
			begun.peer.IP, begun.connection = c.client(begun, addr.TCPAddr), addr.conn
		}
	}
	begun.actor.Peer = begun.peer
	if !m.open {
		begun.credentials = begun.headers("authorization")
	}
}

// client is the address of who makes a call that arrived from peer. The header is read only if it can count.
func (c *chain) client(begun *call, from *net.TCPAddr) netip.Addr {
	addr := plain(from.AddrPort().Addr())
	if !c.trusted.has(addr) {
		return addr
	}
	return c.trusted.client(addr, begun.headers("x-forwarded-for"))
}
