package clienttest

import (
	"cmp"
	"context"
	"crypto/rand"
	"net"
	"net/netip"
	"slices"
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
	"patd/tokens/secret"
)

// Server is an IntrospectionService in memory. Any caller may use it. It is safe for concurrent use.
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
	holding int           // how many answers wait
	fault   error
	calls   Calls
	uses    map[string]*patdv1.ReportUsesRequest_Use
	// asking is whether messages of watches ask to be acknowledged.
	asking       bool
	sent         map[string]uint64 // the position that each watch was sent, by its id
	acknowledged uint64
}

// change is an entry of the change feed. The zero change concerns everything.
type change struct{ token, user string }

// Calls counts the calls of a Server.
type Calls struct {
	Unary    int // by Introspect
	Streamed int // by IntrospectStream
	Streams  int // streams of IntrospectStream
	Watches  int // streams of WatchInvalidations
	Reports  int // by ReportUses
	// Acknowledgements by AcknowledgeInvalidations.
	Acknowledgements int
}

// Option changes a Server.
type Option func(*service)

// WithoutStream leaves IntrospectStream out, as an older patd does.
func WithoutStream() Option { return func(s *service) { s.noStream = true } }

// WithoutWatch leaves WatchInvalidations out.
func WithoutWatch() Option { return func(s *service) { s.noWatch = true } }

// BoundTo makes the caller a service that is bound to an audience: it gets only tokens that are good there.
func BoundTo(audience string) Option { return func(s *service) { s.bound = audience } }

// WithoutAnyClientIP leaves any_client_ip out of answers, as an older patd does.
func WithoutAnyClientIP() Option { return func(s *service) { s.server.now.silentOnIP = true } }

// NewServer starts a Server that stops with the test.
func NewServer(t testing.TB, options ...Option) *Server {
	t.Helper()
	s := Start(options...)
	t.Cleanup(s.Close)
	return s
}

// Start starts a Server, which the caller closes.
func Start(options ...Option) *Server {
	s := &Server{
		grpc:     grpc.NewServer(),
		listener: bufconn.Listen(1 << 16),
		wire:     newWire(),
		history:  1,
		first:    100,
		news:     make(chan struct{}),
		now:      newState(),
		uses:     map[string]*patdv1.ReportUsesRequest_Use{},
		sent:     map[string]uint64{},
	}
	rpc := &service{server: s}
	for _, o := range options {
		o(rpc)
	}
	patdv1.RegisterIntrospectionServiceServer(s.grpc, rpc)
	s.serving.Go(func() { _ = s.grpc.Serve(s.listener) })
	return s
}

// AskToAcknowledge sets whether the messages of watches ask to be acknowledged.
func (s *Server) AskToAcknowledge(so bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asking = so
}

// Acknowledged reports whether a watcher has acknowledged all changes that were made so far.
func (s *Server) Acknowledged() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acknowledged >= s.now.sequence
}

// Close stops the server.
func (s *Server) Close() {
	s.Release()
	s.Unhold()
	s.grpc.Stop()
	s.serving.Wait()
}

// Dial makes a connection, which the caller closes. Cut and Hang affect it.
func (s *Server) Dial(options ...grpc.DialOption) *grpc.ClientConn {
	conn, err := grpc.NewClient("passthrough:///clienttest", append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return s.wire.dial(ctx, s.listener.DialContext)
		}),
		grpc.WithConnectParams(
			grpc.ConnectParams{
				Backoff: backoff.Config{
					BaseDelay:  20 * time.Millisecond,
					Multiplier: 1.5,
					MaxDelay:   200 * time.Millisecond,
				},
			},
		),
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

// Mint makes a token and returns its public id and its secret, which has the form of package tokens.
func (s *Server) Mint(t Token) (text, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.minted++
	number := tokens.ID(s.minted << 22)
	p := presented{tokenID: number.String()}
	s.now.tokens[p.tokenID] = t.grant(number, time.Now())
	prefix, carried := cmp.Or(t.Prefix, secret.PrefixPersonal), number
	if prefix == secret.PrefixAccess {
		carried++
		p.accessID = carried.String()
	}
	text = newSecret(prefix, carried)
	s.now.secrets[text] = p
	s.change(change{token: p.tokenID})
	return text, p.tokenID
}

func newSecret(prefix string, id tokens.ID) string {
	minted, err := secret.Mint(prefix, id, rand.Reader)
	if err != nil {
		panic(err) // the machine has no randomness
	}
	return minted.Reveal()
}

// Rotate gives a token another secret, and notifies the watchers. The old one is accepted for the grace, and then
// superseded.
func (s *Server) Rotate(id string, grace time.Duration) (text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	number, err := secret.ParseID(id)
	if err != nil {
		panic(err) // it is not an id that Mint returned
	}
	end := time.Now().Add(grace)
	for old, p := range s.now.secrets {
		if p.tokenID == id && (p.stored.ExpireTime.IsZero() || p.stored.ExpireTime.After(end)) {
			p.stored.ExpireTime = end
			s.now.secrets[old] = p
		}
	}
	text = newSecret(secret.PrefixPersonal, number)
	s.now.secrets[text] = presented{tokenID: id}
	s.change(change{token: id})
	return text
}

// Revoke revokes a token by its id, and notifies the watchers.
func (s *Server) Revoke(id string) { s.edit(id, revoke) }

func revoke(t *tokens.Token) {
	t.Revocation = &tokens.Revocation{Time: time.Now(), By: "operator"}
}

// Bind binds a token, by its id, to networks, or to none, and notifies the watchers.
func (s *Server) Bind(id string, networks ...netip.Prefix) {
	s.edit(id, func(t *tokens.Token) { t.CIDRs = networks })
}

// Block blocks a token by its id, as one that exceeds the policy of an audience, and notifies the watchers.
func (s *Server) Block(id, audience string) {
	s.edit(id, func(t *tokens.Token) { t.BlockedBy = audience })
}

// Pause pauses a token by its id, as one that was not used for long, and notifies the watchers. Unblock resumes it.
func (s *Server) Pause(id string) { s.edit(id, func(t *tokens.Token) { t.Pause(time.Now()) }) }

// Unblock ends Block, and notifies the watchers.
func (s *Server) Unblock(id string) { s.Block(id, "") }

// edit changes a token, and notifies the watchers.
func (s *Server) edit(id string, how func(*tokens.Token)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.editQuietly(id, how)
	s.change(change{token: id})
}

// editQuietly changes a token. The caller holds the lock.
func (s *Server) editQuietly(id string, how func(*tokens.Token)) {
	if t, ok := s.now.tokens[id]; ok {
		how(&t)
		s.now.tokens[id] = t
	}
}

// RequireNamed sets whether tokens must name an audience to be good there, and notifies the watchers to start over.
func (s *Server) RequireNamed(audience string, must bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.named[audience] = must
	s.change(change{})
}

// SayAnyClientIP sets whether answers may report that they hold for every address.
func (s *Server) SayAnyClientIP(so bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.silentOnIP = !so
}

// Suspend suspends a user, and notifies the watchers.
func (s *Server) Suspend(user string) { s.become(user, tokens.UserSuspended) }

// Resume ends a suspension, and notifies the watchers.
func (s *Server) Resume(user string) { s.become(user, tokens.UserActive) }

func (s *Server) become(user string, state tokens.UserState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.users[user] = tokens.User{ID: user, State: state}
	s.change(change{user: user})
}

// SetFeatures sets a user's features, and notifies the watchers. Until it is called, a user holds what is granted.
func (s *Server) SetFeatures(user string, features ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.features[user] = slices.Sorted(slices.Values(features))
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

// historyName is the history that watchers receive. The caller holds the lock.
func (s *Server) historyName() string { return "h" + strconv.Itoa(s.history) }
