package connection

import (
	"bufio"
	"container/list"
	"context"
	"crypto/tls"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/peer"
)

const (
	defaultMaxConnections   = 10_000
	defaultMaxAnonymous     = 1024
	defaultHTTPIdleTimeout  = 620 * time.Second // longer than the 600 s of Google's balancers, so that they close first
	defaultGRPCIdleTimeout  = 15 * time.Minute
	defaultConnectionAge    = 30 * time.Minute
	defaultConnectionGrace  = time.Minute
	defaultAnonymousTimeout = 2 * time.Minute
	// MaxMetricsConnections is the limit on connections to the metrics listener.
	MaxMetricsConnections = 64
	// MaxAnonymousWatches is how many Watch calls of gRPC health a connection without a good credential may have.
	MaxAnonymousWatches = 4
)

// Limits bound the network connections. A value of 0 stands for its default; a negative time is unlimited.
type Limits struct {
	// Max is how many connections may be open at once; REST and gRPC have half each. 0: 10 000.
	Max int
	// MaxAnonymous is how many connections without a good credential may be open to each listener. Past it, and past
	// Max, the oldest of them is closed to make room. 0: 1024.
	MaxAnonymous int
	// AnonymousTimeout is how long a gRPC connection may stay without a good credential. 0: 2 min.
	AnonymousTimeout time.Duration
	// HTTPIdle and GRPCIdle are how long a REST or gRPC connection may be idle. 0: 620 s and 15 min.
	HTTPIdle, GRPCIdle time.Duration
	// Age is the age, give or take a tenth, at which the client of a gRPC connection is asked to make another. Grace is
	// the least time that calls under way then have. Streams end with UNAVAILABLE before that. 0: 30 min and 1 min.
	Age, Grace time.Duration
}

// Filled returns l with the defaults in place of zero values.
func (l Limits) Filled() Limits {
	for _, n := range []struct {
		v *int
		d int
	}{{&l.Max, defaultMaxConnections}, {&l.MaxAnonymous, defaultMaxAnonymous}} {
		if *n.v <= 0 {
			*n.v = n.d
		}
	}
	for _, d := range []struct {
		v *time.Duration
		d time.Duration
	}{
		{&l.AnonymousTimeout, defaultAnonymousTimeout}, {&l.HTTPIdle, defaultHTTPIdleTimeout}, {&l.GRPCIdle, defaultGRPCIdleTimeout},
		{&l.Age, defaultConnectionAge}, {&l.Grace, defaultConnectionGrace},
	} {
		if *d.v == 0 {
			*d.v = d.d
		}
	}
	return l
}

// Gate is a listener with a limit on connections. At the limit, the oldest connection without a good credential is
// closed to make room; if there is none, the new one is closed.
type Gate struct {
	net.Listener
	Max, MaxAnonymous int
	Timeout           time.Duration // for a connection to show a good credential; 0 or less: none
	Retire            time.Duration // after which a connection's streams end; 0 or less: never
	RetireSpread      time.Duration
	Closed            func(reason string)
	Numbered          *Numbered   // nil: its connections are not looked up by number
	TLS               *tls.Config // nil: plain text
	// HTTP2 says that the connections carry HTTP/2 only. Otherwise TLS negotiates it, and plain text is HTTP/1.1.
	HTTP2  bool
	Memory Memory // of unknown peers, beyond their shares; nil: unbounded

	mu        sync.Mutex
	open      int
	Anonymous *list.List // of *connection, oldest first
}

var _ net.Listener = (*Gate)(nil)

// Connection is a connection of a Gate.
type Connection struct {
	net.Conn // over TLS, if the gate has it
	raw      net.Conn
	gate     *Gate
	Number   uint64
	accepted time.Time
	retireAt time.Time // zero: never
	Known    atomic.Bool
	Watches  atomic.Int32 // Watch calls of gRPC health
	Held     atomic.Int64 // bytes of CallShare in use
	writing  sync.Mutex   // held during a Write while the connection is not known
	intake   intake
	proofs   proofs
	started  bool          // only Read uses it, as it does ahead
	ahead    *bufio.Reader // of a known HTTP/2 connection

	// Guarded by the gate's mu.
	place *list.Element // among the anonymous; nil: not one of them
	over  bool
}

// Addr is the peer's address. A gRPC call finds its connection by it.
type Addr struct {
	*net.TCPAddr
	Conn *Connection
}

// RemoteAddr returns the address of the peer.
func (c *Connection) RemoteAddr() net.Addr {
	if tcp, ok := c.Conn.RemoteAddr().(*net.TCPAddr); ok {
		return Addr{tcp, c}
	}
	return c.Conn.RemoteAddr()
}

// Accept returns the next connection that there is room for.
func (g *Gate) Accept() (net.Conn, error) {
	for {
		raw, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &Connection{Conn: raw, raw: raw, gate: g, accepted: time.Now()}
		if g.TLS != nil {
			c.Conn = tls.Server(&handshaking{Conn: raw, left: maxHandshake}, g.TLS)
		}
		if g.HTTP2 {
			c.intake.start(true)
		}
		if g.Retire > 0 {
			c.retireAt = c.accepted.Add(g.Retire + rand.N(g.RetireSpread+1)) //nolint:gosec // G404: any will do
		}
		if g.admit(c) {
			return c, nil
		}
		_ = raw.Close() // nothing was read from it
	}
}

// admit adds a connection, and reports whether there was room for it.
func (g *Gate) admit(c *Connection) bool {
	g.mu.Lock()
	var oldest *Connection
	if g.open >= g.Max || g.Anonymous.Len() >= g.MaxAnonymous {
		first := g.Anonymous.Front()
		if first == nil {
			g.mu.Unlock()
			g.Closed("refused")
			return false
		}
		oldest, _ = first.Value.(*Connection)
		g.leave(oldest)
	}
	g.open++
	g.Numbered.add(c)
	c.place = g.Anonymous.PushBack(c)
	g.mu.Unlock()
	if oldest != nil {
		g.Closed("limit")
		oldest.cut()
	}
	return true
}

// leave removes a connection. g.mu must be held.
func (g *Gate) leave(c *Connection) {
	if c.over {
		return
	}
	c.over = true
	g.open--
	g.Numbered.remove(c)
	if c.place != nil {
		g.Anonymous.Remove(c.place)
		c.place = nil
	}
}

// Close closes the connection.
func (c *Connection) Close() error {
	c.gate.mu.Lock()
	c.gate.leave(c)
	c.gate.mu.Unlock()
	c.intake.end(c.gate.Memory)
	return c.Conn.Close()
}

// cut closes a connection at once. Its reader notices.
func (c *Connection) cut() {
	c.intake.end(c.gate.Memory)
	_ = c.raw.Close()
}

// Authenticated records that a good credential was shown on the connection. c may be nil: an unknown connection.
func (c *Connection) Authenticated() {
	if c == nil || c.Known.Load() {
		return
	}
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	c.Known.Store(true)
	if c.place != nil {
		c.gate.Anonymous.Remove(c.place)
		c.place = nil
	}
	c.intake.end(c.gate.Memory)
}

// Retired reports whether the connection's streams must end because its client was asked to make another.
func (c *Connection) Retired(now time.Time) bool {
	return c != nil && !c.retireAt.IsZero() && now.After(c.retireAt)
}

// Watch closes connections that have shown no good credential in time, until ctx ends.
func (g *Gate) Watch(ctx context.Context) {
	if g.Timeout <= 0 {
		return
	}
	tick := time.NewTicker(min(max(g.Timeout/8, time.Millisecond), time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for _, c := range g.late(now.Add(-g.Timeout)) {
				g.Closed("anonymous")
				c.cut()
			}
		}
	}
}

// late removes the anonymous connections that were accepted before an instant, and returns them.
func (g *Gate) late(before time.Time) (found []*Connection) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for first := g.Anonymous.Front(); first != nil; first = g.Anonymous.Front() {
		c, _ := first.Value.(*Connection)
		if c.accepted.After(before) {
			break
		}
		g.leave(c)
		found = append(found, c)
	}
	return found
}

// Counts returns the numbers of open connections with and without a good credential.
func (g *Gate) Counts() (known, anonymous int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open - g.Anonymous.Len(), g.Anonymous.Len()
}

// Numbered finds connections by number, the only way for a call that came through the gateway.
type Numbered struct {
	last  atomic.Uint64
	table sync.Map // from number to *connection
}

func (n *Numbered) add(c *Connection) {
	if n != nil {
		c.Number = n.last.Add(1)
		n.table.Store(c.Number, c)
	}
}

func (n *Numbered) remove(c *Connection) {
	if n != nil {
		n.table.Delete(c.Number)
	}
}

// Find returns the connection with a number, or nil.
func (n *Numbered) Find(number uint64) *Connection {
	found, _ := n.table.Load(number)
	c, _ := found.(*Connection)
	return c
}

type connectionKey struct{}

// With returns a context from which Of finds the connection of an HTTP request.
func With(ctx context.Context, c net.Conn) context.Context {
	if own, ok := c.(*Connection); ok {
		return context.WithValue(ctx, connectionKey{}, own)
	}
	return ctx
}

// OfPeer returns the connection on which a gRPC call arrived, or nil.
func OfPeer(ctx context.Context) *Connection {
	if p, ok := peer.FromContext(ctx); ok {
		if a, ok := p.Addr.(Addr); ok {
			return a.Conn
		}
	}
	return nil
}

// Of returns the connection on which an HTTP request arrived, or nil.
func Of(ctx context.Context) *Connection {
	c, _ := ctx.Value(connectionKey{}).(*Connection)
	return c
}
