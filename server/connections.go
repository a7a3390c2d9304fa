package server

import (
	"container/list"
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
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
	maxMetricsConnections   = 64
	// maxAnonymousWatches is how many Watch calls of gRPC health a connection may have that has shown no good credential.
	maxAnonymousWatches = 4
)

// ConnectionLimits bound the connections of the network. A value of 0 stands for its default; a negative time is unlimited.
type ConnectionLimits struct {
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

// filled has the defaults in place of zero values.
func (l ConnectionLimits) filled() ConnectionLimits {
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

// gate is a listener with a budget of connections. When it is used up, the oldest connection that has shown no good credential
// makes room; where there is none, the new one is closed.
type gate struct {
	net.Listener
	max, maxAnonymous int
	timeout           time.Duration // for a connection to show a good credential; not above 0: none
	retire            time.Duration // after which a connection's streams end; not above 0: never
	retireSpread      time.Duration
	closed            func(reason string)
	numbered          *numbered // nil: nobody looks for its connections by number
	paced             bool      // an anonymous connection is read from only while it reads

	mu        sync.Mutex
	open      int
	anonymous *list.List // of *connection, oldest first
}

var _ net.Listener = (*gate)(nil)

// connection is one of a gate's.
type connection struct {
	net.Conn
	gate     *gate
	number   uint64
	accepted time.Time
	retireAt time.Time // zero: never
	known    atomic.Bool
	watches  atomic.Int32 // Watch calls of gRPC health
	held     atomic.Int64 // bytes that its calls hold by themselves
	writing  sync.Mutex   // held by a Write while it is not known

	// Guarded by the gate.
	place *list.Element // among the anonymous; nil: it is not
	over  bool
}

// connectionAddr is the peer's address, by which a gRPC call finds its connection.
type connectionAddr struct {
	*net.TCPAddr
	conn *connection
}

// RemoteAddr returns the address of the peer.
func (c *connection) RemoteAddr() net.Addr {
	if tcp, ok := c.Conn.RemoteAddr().(*net.TCPAddr); ok {
		return connectionAddr{tcp, c}
	}
	return c.Conn.RemoteAddr()
}

// Accept returns the next connection for which there is room.
func (g *gate) Accept() (net.Conn, error) {
	for {
		raw, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &connection{Conn: raw, gate: g, accepted: time.Now()}
		if g.retire > 0 {
			c.retireAt = c.accepted.Add(g.retire + rand.N(g.retireSpread+1)) //nolint:gosec // G404: any will do
		}
		if g.admit(c) {
			return c, nil
		}
		_ = raw.Close() // nothing was read from it
	}
}

// admit takes a connection in, and reports whether there is room for it.
func (g *gate) admit(c *connection) bool {
	g.mu.Lock()
	var oldest *connection
	if g.open >= g.max || g.anonymous.Len() >= g.maxAnonymous {
		first := g.anonymous.Front()
		if first == nil {
			g.mu.Unlock()
			g.closed("refused")
			return false
		}
		oldest, _ = first.Value.(*connection)
		g.leave(oldest)
	}
	g.open++
	g.numbered.add(c)
	c.place = g.anonymous.PushBack(c)
	g.mu.Unlock()
	if oldest != nil {
		g.closed("limit")
		_ = oldest.Conn.Close() // whoever reads from it finds out
	}
	return true
}

// leave takes a connection out. The caller holds mu.
func (g *gate) leave(c *connection) {
	if c.over {
		return
	}
	c.over = true
	g.open--
	g.numbered.remove(c)
	if c.place != nil {
		g.anonymous.Remove(c.place)
		c.place = nil
	}
}

// Write writes to the peer.
func (c *connection) Write(p []byte) (int, error) {
	if c.gate.paced && !c.known.Load() {
		c.writing.Lock()
		defer c.writing.Unlock()
	}
	return c.Conn.Write(p) //nolint:wrapcheck // it stands for the connection
}

// Read reads from the peer. One that is not known and does not read what is written to it is not read from either: streams with
// answers that wait to be written would pile up.
func (c *connection) Read(p []byte) (int, error) {
	if c.gate.paced && !c.known.Load() {
		c.writing.Lock()
		c.writing.Unlock() //nolint:staticcheck // SA2001: it waits for the Write
	}
	return c.Conn.Read(p) //nolint:wrapcheck // it stands for the connection
}

// Close closes the connection.
func (c *connection) Close() error {
	c.gate.mu.Lock()
	c.gate.leave(c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}

// authenticated notes that a good credential was shown on the connection. Nil: it is not known which one it is.
func (c *connection) authenticated() {
	if c == nil || c.known.Load() {
		return
	}
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	c.known.Store(true)
	if c.place != nil {
		c.gate.anonymous.Remove(c.place)
		c.place = nil
	}
}

// retired reports whether the connection's streams are to end, since its client was asked to make another.
func (c *connection) retired(now time.Time) bool {
	return c != nil && !c.retireAt.IsZero() && now.After(c.retireAt)
}

// watch closes connections that have shown no good credential in time, until ctx ends.
func (g *gate) watch(ctx context.Context) {
	if g.timeout <= 0 {
		return
	}
	tick := time.NewTicker(min(max(g.timeout/8, time.Millisecond), time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for _, c := range g.late(now.Add(-g.timeout)) {
				g.closed("anonymous")
				_ = c.Conn.Close() // whoever reads from it finds out
			}
		}
	}
}

// late takes out the anonymous connections that were accepted before an instant.
func (g *gate) late(before time.Time) (found []*connection) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for first := g.anonymous.Front(); first != nil; first = g.anonymous.Front() {
		c, _ := first.Value.(*connection)
		if c.accepted.After(before) {
			break
		}
		g.leave(c)
		found = append(found, c)
	}
	return found
}

// counts returns how many connections are open that have shown a good credential, and how many that have not.
func (g *gate) counts() (known, anonymous int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open - g.anonymous.Len(), g.anonymous.Len()
}

// gates puts a budget in front of each listener, and shows them in the metrics.
func (s *Server) gates(l ConnectionLimits, m *metrics) {
	closed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "patd_connections_closed_total",
		Help: "Connections closed by listener and reason: limit, anonymous (no good credential in time), refused (no room).",
	}, []string{"listener", "reason"})
	m.registry.MustRegister(closed)
	gated := func(name string, lis net.Listener, most int) *gate {
		for _, reason := range []string{"limit", "anonymous", "refused"} {
			closed.WithLabelValues(name, reason)
		}
		g := &gate{
			Listener: lis, max: max(most, 1), maxAnonymous: min(l.MaxAnonymous, max(most, 1)), anonymous: list.New(),
			closed: func(reason string) { closed.WithLabelValues(name, reason).Inc() },
		}
		for state, n := range map[string]func() int{
			"known":     func() int { known, _ := g.counts(); return known },
			"anonymous": func() int { _, anonymous := g.counts(); return anonymous },
		} {
			m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "patd_connections", Help: "Open connections by listener, and by whether they have shown a good credential.",
				ConstLabels: prometheus.Labels{"listener": name, "state": state},
			}, func() float64 { return float64(n()) }))
		}
		return g
	}
	front := gated("http", s.httpLis, l.Max/2)
	s.httpLis, front.numbered = front, &s.numbered
	network := gated("grpc", s.grpcLis, l.Max/2)
	network.timeout, network.paced = l.AnonymousTimeout, true
	if l.Age > 0 {
		network.retire, network.retireSpread = l.Age+l.Age/10+l.Grace/4, max(l.Grace/2, 0)
	}
	s.grpcLis, s.grpcGate = network, network
	if s.metLis != nil {
		s.metLis = gated("metrics", s.metLis, min(maxMetricsConnections, max(l.Max/8, 1)))
	}
}

// numbered finds connections by number: a call that came through the gateway has no other way to its own.
type numbered struct {
	last  atomic.Uint64
	table sync.Map // from number to *connection
}

func (n *numbered) add(c *connection) {
	if n != nil {
		c.number = n.last.Add(1)
		n.table.Store(c.number, c)
	}
}

func (n *numbered) remove(c *connection) {
	if n != nil {
		n.table.Delete(c.number)
	}
}

func (n *numbered) find(number uint64) *connection {
	found, _ := n.table.Load(number)
	c, _ := found.(*connection)
	return c
}

type connectionKey struct{}

// withConnection makes the connection of an HTTP request known to its context.
func withConnection(ctx context.Context, c net.Conn) context.Context {
	if over, ok := c.(interface{ NetConn() net.Conn }); ok { // TLS
		c = over.NetConn()
	}
	if own, ok := c.(*connection); ok {
		return context.WithValue(ctx, connectionKey{}, own)
	}
	return ctx
}

// connectionOfPeer is the connection that a gRPC call came by, or nil.
func connectionOfPeer(ctx context.Context) *connection {
	if p, ok := peer.FromContext(ctx); ok {
		if a, ok := p.Addr.(connectionAddr); ok {
			return a.conn
		}
	}
	return nil
}

// connectionOf is the connection that an HTTP request came by, or nil.
func connectionOf(ctx context.Context) *connection {
	c, _ := ctx.Value(connectionKey{}).(*connection)
	return c
}
