package connection

import (
	"container/list"
	"context"
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
	// MaxMetricsConnections is how many connections the listener of metrics takes.
	MaxMetricsConnections = 64
	// MaxAnonymousWatches is how many Watch calls of gRPC health a connection may have that has shown no good credential.
	MaxAnonymousWatches = 4
)

// Limits bound the connections of the network. A value of 0 stands for its default; a negative time is unlimited.
type Limits struct {
	// Max is how many connections may be open at once; REST and gRPC have half of them each. 0: 10 000.
	Max int
	// MaxAnonymous is how many connections to each listener may be open that have shown no good credential. For one more, and where
	// Max is reached, the oldest of them is closed. 0: 1024.
	MaxAnonymous int
	// AnonymousTimeout is how long a gRPC connection has to show a good credential. 0: 2 min.
	AnonymousTimeout time.Duration
	// HTTPIdle and GRPCIdle are how long a connection may be idle, over REST and over gRPC. 0: 620 s and 15 min.
	HTTPIdle, GRPCIdle time.Duration
	// Age is how old a gRPC connection gets, give or take a tenth, before its client is asked to make another, and Grace how long
	// calls under way may then take, at least. Streams end with UNAVAILABLE before that. 0: 30 min and 1 min.
	Age, Grace time.Duration
}

// Filled has the defaults in place of zero values.
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

// Gate is a listener with a budget of connections. When it is used up, the oldest connection that has shown no good credential
// makes room; where there is none, the new one is closed.
type Gate struct {
	net.Listener
	Max, MaxAnonymous int
	Timeout           time.Duration // for a connection to show a good credential; not above 0: none
	Retire            time.Duration // after which a connection's streams end; not above 0: never
	RetireSpread      time.Duration
	Closed            func(reason string)
	Numbered          *Numbered // nil: nobody looks for its connections by number
	Paced             bool      // an anonymous connection is read from only while it reads

	mu        sync.Mutex
	open      int
	Anonymous *list.List // of *connection, oldest first
}

var _ net.Listener = (*Gate)(nil)

// Connection is one of a gate's.
type Connection struct {
	net.Conn
	gate     *Gate
	Number   uint64
	accepted time.Time
	retireAt time.Time // zero: never
	Known    atomic.Bool
	Watches  atomic.Int32 // Watch calls of gRPC health
	Held     atomic.Int64 // bytes that its calls hold by themselves
	writing  sync.Mutex   // held by a Write while it is not known

	// Guarded by the gate.
	place *list.Element // among the anonymous; nil: it is not
	over  bool
}

// Addr is the peer's address, by which a gRPC call finds its connection.
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

// Accept returns the next connection for which there is room.
func (g *Gate) Accept() (net.Conn, error) {
	for {
		raw, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &Connection{Conn: raw, gate: g, accepted: time.Now()}
		if g.Retire > 0 {
			c.retireAt = c.accepted.Add(g.Retire + rand.N(g.RetireSpread+1)) //nolint:gosec // G404: any will do
		}
		if g.admit(c) {
			return c, nil
		}
		_ = raw.Close() // nothing was read from it
	}
}

// admit takes a connection in, and reports whether there is room for it.
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
		_ = oldest.Conn.Close() // whoever reads from it finds out
	}
	return true
}

// leave takes a connection out. The caller holds mu.
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

// Write writes to the peer.
func (c *Connection) Write(p []byte) (int, error) {
	if c.gate.Paced && !c.Known.Load() {
		c.writing.Lock()
		defer c.writing.Unlock()
	}
	return c.Conn.Write(p) //nolint:wrapcheck // it stands for the connection
}

// Read reads from the peer. One that is not known and does not read what is written to it is not read from either: streams with
// answers that wait to be written would pile up.
func (c *Connection) Read(p []byte) (int, error) {
	if c.gate.Paced && !c.Known.Load() {
		c.writing.Lock()
		c.writing.Unlock() //nolint:staticcheck // SA2001: it waits for the Write
	}
	return c.Conn.Read(p) //nolint:wrapcheck // it stands for the connection
}

// Close closes the connection.
func (c *Connection) Close() error {
	c.gate.mu.Lock()
	c.gate.leave(c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}

// Authenticated notes that a good credential was shown on the connection. Nil: it is not known which one it is.
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
}

// Retired reports whether the connection's streams are to end, since its client was asked to make another.
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
				_ = c.Conn.Close() // whoever reads from it finds out
			}
		}
	}
}

// late takes out the anonymous connections that were accepted before an instant.
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

// Counts returns how many connections are open that have shown a good credential, and how many that have not.
func (g *Gate) Counts() (known, anonymous int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open - g.Anonymous.Len(), g.Anonymous.Len()
}

// Numbered finds connections by number: a call that came through the gateway has no other way to its own.
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

// Find returns the connection of a number, or nil.
func (n *Numbered) Find(number uint64) *Connection {
	found, _ := n.table.Load(number)
	c, _ := found.(*Connection)
	return c
}

type connectionKey struct{}

// With makes the connection of an HTTP request known to its context.
func With(ctx context.Context, c net.Conn) context.Context {
	if over, ok := c.(interface{ NetConn() net.Conn }); ok { // TLS
		c = over.NetConn()
	}
	if own, ok := c.(*Connection); ok {
		return context.WithValue(ctx, connectionKey{}, own)
	}
	return ctx
}

// OfPeer is the connection that a gRPC call came by, or nil.
func OfPeer(ctx context.Context) *Connection {
	if p, ok := peer.FromContext(ctx); ok {
		if a, ok := p.Addr.(Addr); ok {
			return a.Conn
		}
	}
	return nil
}

// Of is the connection that an HTTP request came by, or nil.
func Of(ctx context.Context) *Connection {
	c, _ := ctx.Value(connectionKey{}).(*Connection)
	return c
}
