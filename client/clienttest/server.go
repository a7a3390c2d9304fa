package clienttest

import (
	"context"
	"crypto/rand"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// Server is an IntrospectionService in memory. Everybody may call it. It may be used by many at once.
type Server struct {
	grpc     *grpc.Server
	listener *bufconn.Listener
	wire     *wire
	serving  sync.WaitGroup

	mu      sync.Mutex
	now     state
	frozen  *state
	minted  uint64
	history int
	first   uint64        // the position that the history begins at
	feed    []change      // all since then
	news    chan struct{} // closed by each change
	held    chan struct{} // not nil: answers wait until it is closed
	holding int           // how many do
	fault   error
	calls   Calls
	uses    map[string]*patdv1.ReportUsesRequest_Use
}

// change is an entry of the change feed.
type change struct{ token, user string }

// Calls is how often a Server was called.
type Calls struct {
	Unary    int // by Introspect
	Streamed int // by IntrospectStream
	Streams  int // streams of IntrospectStream
	Watches  int // streams of WatchInvalidations
	Reports  int // by ReportUses
}

// Option changes a Server.
type Option func(*service)

// WithoutStream leaves IntrospectStream out, as an older patd does.
func WithoutStream() Option { return func(s *service) { s.noStream = true } }

// WithoutWatch leaves WatchInvalidations out.
func WithoutWatch() Option { return func(s *service) { s.noWatch = true } }

// WithoutAnyClientIP never says that an answer holds for every address, as an older patd does not.
func WithoutAnyClientIP() Option { return func(s *service) { s.server.now.silentOnIP = true } }

// NewServer starts a Server that stops with the test.
func NewServer(t testing.TB, options ...Option) *Server {
	t.Helper()
	s := Start(options...)
	t.Cleanup(s.Close)
	return s
}

// Start starts a Server, which is to be closed.
func Start(options ...Option) *Server {
	s := &Server{
		grpc: grpc.NewServer(), listener: bufconn.Listen(1 << 16), wire: newWire(), history: 1, first: 100, news: make(chan struct{}),
		now:  state{sequence: 100, records: map[string]record{}, suspended: map[string]bool{}, features: map[string][]string{}},
		uses: map[string]*patdv1.ReportUsesRequest_Use{},
	}
	rpc := &service{server: s}
	for _, o := range options {
		o(rpc)
	}
	patdv1.RegisterIntrospectionServiceServer(s.grpc, rpc)
	s.serving.Go(func() { _ = s.grpc.Serve(s.listener) })
	return s
}

// Close stops the server.
func (s *Server) Close() {
	s.Release()
	s.Unhold()
	s.grpc.Stop()
	s.serving.Wait()
}

// Dial makes a connection, which the caller closes. It is lost and made anew as Cut and Hang tell.
func (s *Server) Dial(options ...grpc.DialOption) *grpc.ClientConn {
	conn, err := grpc.NewClient("passthrough:///clienttest", append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return s.wire.dial(ctx, s.listener.DialContext)
		}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond}}),
	}, options...)...)
	if err != nil {
		panic(err) // of options that contradict each other
	}
	return conn
}

// Conn makes a connection that is closed with the test.
func (s *Server) Conn(t testing.TB, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn := s.Dial(options...)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Mint makes a token and answers its secret, as Mint of package tokens makes it, and its public id.
func (s *Server) Mint(t Token) (secret, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.minted++
	r := record{Token: t, id: tokens.ID(s.minted << 22).String(), issued: time.Now()}
	carried := tokens.ID(s.minted << 22)
	switch t.Prefix {
	case "":
		t.Prefix = tokens.PrefixPersonal
	case tokens.PrefixAccess:
		carried++
		r.accessID = carried.String()
	}
	minted, err := tokens.Mint(t.Prefix, carried, rand.Reader)
	if err != nil {
		panic(err) // the machine has no randomness
	}
	s.now.records[minted.Reveal()] = r
	s.change(change{token: r.id})
	return minted.Reveal(), r.id
}

// Revoke revokes a token by its id, and tells the watchers.
func (s *Server) Revoke(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for secret, r := range s.now.records {
		if r.id == id {
			r.revoked = true
			s.now.records[secret] = r
		}
	}
	s.change(change{token: id})
}

// Bind binds a token, by its id, to networks, or to none, and tells the watchers.
func (s *Server) Bind(id string, networks ...netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for secret, r := range s.now.records {
		if r.id == id {
			r.Networks = networks
			s.now.records[secret] = r
		}
	}
	s.change(change{token: id})
}

// SayAnyClientIP has answers say, or not, that they hold for every address.
func (s *Server) SayAnyClientIP(so bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.silentOnIP = !so
}

// Suspend suspends a user, and tells the watchers.
func (s *Server) Suspend(user string) { s.suspend(user, true) }

// Resume ends a suspension, and tells the watchers.
func (s *Server) Resume(user string) { s.suspend(user, false) }

func (s *Server) suspend(user string, so bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.suspended[user] = so
	s.change(change{user: user})
}

// SetFeatures sets what a user holds, and tells the watchers. A user of whom nothing was set holds what is granted.
func (s *Server) SetFeatures(user string, features ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.features[user] = features
	s.change(change{user: user})
}

// change writes an entry of the feed. The caller holds the lock.
func (s *Server) change(c change) {
	s.now.sequence++
	s.feed = append(s.feed, c)
	s.tell()
}

func (s *Server) tell() {
	close(s.news)
	s.news = make(chan struct{})
}

// historyName is what watchers are told. The caller holds the lock.
func (s *Server) historyName() string { return "h" + strconv.Itoa(s.history) }
