package server

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/test/bufconn"

	"patd/gen/openapi"
	"patd/server/internal/call"
	"patd/server/internal/connection"
	"patd/server/internal/extauth"
	"patd/server/internal/httpx"
	"patd/server/internal/introspect"
	"patd/server/internal/metrics"
	"patd/server/internal/oauth"
	"patd/server/internal/rest"
	"patd/tokens"
)

const (
	defaultRequestTimeout = 10 * time.Second
	defaultDrainTimeout   = 15 * time.Second
	readHeaderTimeout     = 10 * time.Second
	bodyTimeout           = 15 * time.Second
	maxHeaderBytes        = 32 << 10 // a JWT of 16 KiB and the rest
	inProcessBuffer       = 256 << 10
	maxHTTPStreams        = 100 // of one HTTP/2 connection
)

// Config configures a Server. Service is required; the zero values of the rest are sensible.
type Config struct {
	// Service is the domain, which makes all decisions.
	Service *tokens.Service
	// Ready returns nil if the server can serve now, e.g. if its store responds. Nil: always.
	Ready func(context.Context) error
	// Details returns the faults of a server that is ready, such as failing sign-in, without secrets and names; /readyz
	// shows them. Nil: none.
	Details func() map[string]string
	// Figures returns additional numbers for /metrics, on each read. Nil: none.
	Figures func() []metrics.Figure
	// Logger gets one line per request. Nil: no log.
	Logger *slog.Logger
	// HTTPAddr and GRPCAddr are the listen addresses; port 0 is any free one.
	HTTPAddr, GRPCAddr string
	// MetricsAddr moves /metrics to its own listener. Empty: it is on the HTTP listener.
	MetricsAddr string
	// Issuer is the base of every URL that the server publishes. Empty: http(s)://<HTTP address>.
	Issuer string
	// TLS applies to every listener, see LoadTLS. Nil: plain text, which is rejected on a non-loopback address unless
	// Insecure is set.
	TLS      *tls.Config
	Insecure bool
	// TrustedProxies are the proxies whose X-Forwarded-For counts, over REST and gRPC.
	TrustedProxies []netip.Prefix
	// SignIn verifies the JWTs of signed-in users. Nil: sign-in is off, and a JWT is rejected like any bad token.
	SignIn call.Verifier
	// MintRate is how many tokens one signed-in user may mint or rotate each second, over time, and MintBurst how many
	// at once. 0: 1 and 100. ServiceMintRate and ServiceMintBurst are the same for one service, which mints for many
	// users. 0: 1000 and 20000. Every attempt by a caller with the right to mint counts. Negative: unlimited.
	MintRate, ServiceMintRate   float64
	MintBurst, ServiceMintBurst int
	// ChangeRate is how many changes other than mints one signed-in user may make each second, over time, and
	// ChangeBurst how many at once; revocations, suspensions and deletions have a separate count of the same size. 0: 1
	// and 100. ServiceChangeRate and ServiceChangeBurst are the same for one service, and for revocations without a
	// credential from one address. 0: 2000 and 100000. Negative: unlimited. Each server counts by itself.
	ChangeRate, ServiceChangeRate   float64
	ChangeBurst, ServiceChangeBurst int
	// ExchangeRate is how many exchanges and refreshes one personal access token may make each second, over time, and
	// ExchangeBurst how many at once. 0: 1 and 100. Negative: unlimited.
	ExchangeRate  float64
	ExchangeBurst int
	// RefusalRate is how many refused attempts of one caller the audit log records each second, over time, and
	// RefusalBurst how many at once. 0: 1 and 100. Negative: all.
	RefusalRate  float64
	RefusalBurst int
	// FailureRate is how many bad credentials one address (an IPv6 address with its /64) may present each second, over
	// time, and FailureBurst how many at once. Past that its bad ones get RATE_LIMITED, and good ones still pass. The
	// exception is an address that has made the server read the store for credentials without a record, 200 times a
	// second after the first 10000: its good ones must be in memory. Credentials that have ended, and tokens presented
	// for introspection, do not count. The address of a trusted proxy, which stands for callers that it does not name,
	// is not limited. 0: 10 and 1000. Negative: unlimited.
	FailureRate  float64
	FailureBurst int
	// LeakRate is how many leak reports one address may send each second, over time, and LeakBurst how many at once.
	// Reports need no credential. 0: 1 and 60. Negative: unlimited.
	LeakRate  float64
	LeakBurst int
	// Shared counts mints and exchanges across all servers on one store. Nil: there is one server. Limits by address
	// are per server.
	Shared call.SharedLimit
	// ForwardAuthorization lets Envoy pass the client's Authorization header, and so the token, on to the upstream.
	// Other gateways follow their own configuration.
	ForwardAuthorization bool
	// Now is the clock of the limits. Nil: time.Now.
	Now func() time.Time
	// UnknownCallerMemory bounds the messages of all callers without a good credential together, in bytes. 0: 64 MiB.
	UnknownCallerMemory int64
	// Reflection serves gRPC reflection.
	Reflection bool
	// RequestTimeout bounds one call; 0: 10 s. DrainTimeout bounds how long calls under way may take when the server
	// stops; 0: 15 s.
	RequestTimeout, DrainTimeout time.Duration
	// DrainDelay is how long a stopping server still serves everything while /readyz and gRPC health report that it
	// stops, so that balancers send no more. 0: not at all. Closing Hurry ends the delay; nil: nothing does.
	DrainDelay time.Duration
	Hurry      <-chan struct{}
	// Connections bounds the number of connections and their life.
	Connections connection.Limits
	// Version is shown in the metrics.
	Version string
}

// Server owns the listeners and the order of shutdown.
type Server struct {
	logger       *slog.Logger
	drainTimeout time.Duration
	drainDelay   time.Duration
	hurry        <-chan struct{}
	issuer       string
	health       *healthState
	stopStreams  context.CancelFunc

	grpc, inProcess          *grpc.Server
	grpcLis, httpLis, metLis net.Listener     // metLis may be nil
	grpcGate                 *connection.Gate // grpcLis
	pipe                     *bufconn.Listener
	conn                     *grpc.ClientConn
	http, metricsHTTP        *http.Server
	front                    *rest.Front
	secure                   bool
	lingering                sync.WaitGroup // goroutines of streams
	numbered                 connection.Numbered
}

// checkIssuer rejects a base URL that clients cannot use: RFC 8414 section 2 requires http(s), no query or fragment.
func checkIssuer(issuer string) error {
	u, err := url.Parse(issuer)
	if issuer != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "") {
		return errors.New("make the server: the issuer must be a URL such as https://patd.example.com, without query and fragment")
	}
	return nil
}

// New binds the listeners and prepares everything. Connections made before Serve wait for it. Only Serve releases the
// resources.
func New(c Config) (*Server, error) {
	if c.Service == nil {
		return nil, errors.New("make the server: a token service is needed")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.RequestTimeout <= 0 {
		c.RequestTimeout = defaultRequestTimeout
	}
	if c.DrainTimeout <= 0 {
		c.DrainTimeout = defaultDrainTimeout
	}
	c.Connections = c.Connections.Filled()
	s := &Server{logger: c.Logger, drainTimeout: c.DrainTimeout, drainDelay: c.DrainDelay, hurry: c.Hurry, secure: c.TLS != nil}
	if err := s.listen(c); err != nil {
		s.closeListeners()
		return nil, err
	}
	if err := checkIssuer(c.Issuer); err != nil {
		s.closeListeners()
		return nil, err
	}
	if s.issuer = c.Issuer; s.issuer == "" {
		s.issuer = map[bool]string{true: "https://", false: "http://"}[s.secure] + s.HTTPAddr()
	}
	if err := s.build(c); err != nil {
		s.closeListeners()
		return nil, err
	}
	return s, nil
}

// HTTPAddr returns the address of the REST listener.
func (s *Server) HTTPAddr() string { return s.httpLis.Addr().String() }

// GRPCAddr returns the address of the gRPC listener.
func (s *Server) GRPCAddr() string { return s.grpcLis.Addr().String() }

// MetricsAddr returns the address that serves /metrics.
func (s *Server) MetricsAddr() string {
	if s.metLis == nil {
		return s.HTTPAddr()
	}
	return s.metLis.Addr().String()
}

// Issuer returns the base of every URL that the server publishes.
func (s *Server) Issuer() string { return s.issuer }

func (s *Server) listen(c Config) (err error) {
	plainText := c.TLS == nil && !c.Insecure
	if s.httpLis, err = bind("HTTP", c.HTTPAddr, plainText); err != nil {
		return err
	}
	if s.grpcLis, err = bind("gRPC", c.GRPCAddr, plainText); err != nil {
		return err
	}
	if c.MetricsAddr != "" {
		s.metLis, err = bind("metrics", c.MetricsAddr, plainText)
	}
	return err
}

// bind listens, and rejects a non-loopback address if only loopback is allowed. No connection is accepted before that
// check.
func bind(what, addr string, loopbackOnly bool) (net.Listener, error) {
	lis, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for %s on %s: %w", what, addr, err)
	}
	if tcp, ok := lis.Addr().(*net.TCPAddr); loopbackOnly && (!ok || !tcp.IP.IsLoopback()) {
		return nil, errors.Join(
			fmt.Errorf("listen for %s on %s: plain text on an address that is not loopback is refused; configure TLS, or say insecure", what, addr),
			lis.Close())
	}
	return lis, nil
}

func (s *Server) closeListeners() {
	for _, l := range []net.Listener{s.httpLis, s.grpcLis, s.metLis} {
		if l != nil {
			_ = l.Close() // no connection was accepted
		}
	}
}

// build makes the two gRPC servers and the handlers in front of them.
func (s *Server) build(c Config) error {
	m := metrics.New(c.Version)
	s.gates(c.Connections, m)
	if c.Figures != nil {
		m.Registry.MustRegister(metrics.Figures(c.Figures))
	}
	bounds, err := call.NewLimits(limitsOf(c), m)
	if err != nil {
		return err
	}
	c.Service.LimitRefusals(bounds.Recordable)
	s.health = newHealthState(c.Ready, c.Logger)
	s.health.details = c.Details
	draining, stop := context.WithCancel(context.Background())
	s.stopStreams = stop

	network := call.New(call.Config{
		Service: c.Service, SignIn: c.SignIn, Logger: c.Logger, Metrics: m, Limits: bounds, Codec: introspect.NewCodec(),
		UnknownMemory: c.UnknownCallerMemory, Trusted: c.TrustedProxies, Timeout: c.RequestTimeout, Draining: draining,
		Lingering: &s.lingering,
	})
	options := []grpc.ServerOption{keepaliveOf(c.Connections)}
	if c.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(c.TLS.Clone())))
	}
	s.grpc = newGRPC(network, options...)
	registerServices(call.NewGuard(s.grpc, network), c.Service)
	extauth.RegisterEnvoy(call.NewGuard(s.grpc, network), extauth.NewEnvoy(c.Service, c.ForwardAuthorization))
	registerOpen(call.NewGuard(s.grpc, network), s.health, c.Reflection)
	watchMethods(m, network.Methods, s.grpc)

	behind := network.Behind(&s.numbered)
	s.inProcess = newGRPC(behind, grpc.MaxConcurrentStreams(rest.UnlimitedStreams))
	registerServices(call.NewGuard(s.inProcess, behind), c.Service)
	s.pipe = bufconn.Listen(inProcessBuffer)
	if s.conn, err = rest.DialInProcess(s.pipe, c.RequestTimeout+rest.LostCallGrace); err != nil {
		stop()
		return err
	}
	api, err := rest.NewGateway(draining, s.conn, s.issuer)
	if err != nil {
		stop()
		return errors.Join(err, s.conn.Close())
	}
	endpoints := oauth.New(network, s.issuer)
	from := httpx.Senders{Chain: behind, Trusted: c.TrustedProxies}
	s.front = &rest.Front{
		Logger: c.Logger, Metrics: m, Senders: from, API: api, Pages: s.pages(c), Forms: endpoints.Handlers(),
		Gates: map[string]http.Handler{extauth.PathForwardAuth: extauth.NewForwardAuth(c.Service, network)},
		Short: introspect.NewDirect(introspect.New(behind, c.Service), from),
	}
	s.http = newHTTP(c, s.front)
	if s.metLis == nil {
		s.front.Pages["/metrics"] = m.Handler()
		return nil
	}
	s.metricsHTTP = newHTTP(c, &rest.Front{
		Logger: c.Logger, Metrics: m, Pages: map[string]http.Handler{"/metrics": m.Handler()}, API: http.NotFoundHandler(),
	})
	return nil
}

// limitsOf returns the limits of a configuration.
func limitsOf(c Config) call.LimitsConfig {
	return call.LimitsConfig{
		MintRate: c.MintRate, MintBurst: c.MintBurst, ServiceMintRate: c.ServiceMintRate, ServiceMintBurst: c.ServiceMintBurst,
		ChangeRate: c.ChangeRate, ChangeBurst: c.ChangeBurst,
		ServiceChangeRate: c.ServiceChangeRate, ServiceChangeBurst: c.ServiceChangeBurst,
		ExchangeRate: c.ExchangeRate, ExchangeBurst: c.ExchangeBurst, RefusalRate: c.RefusalRate, RefusalBurst: c.RefusalBurst,
		FailureRate: c.FailureRate, FailureBurst: c.FailureBurst, LeakRate: c.LeakRate, LeakBurst: c.LeakBurst,
		Shared: c.Shared, Now: c.Now,
	}
}

// pages returns the handlers of open pages by exact path.
func (s *Server) pages(c Config) map[string]http.Handler {
	found := map[string]http.Handler{
		"/healthz": http.HandlerFunc(s.health.live),
		"/readyz":  http.HandlerFunc(s.health.readyz),
		"/openapi.json": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(openapi.JSON) // a failed write means that the client has gone
		}),
		oauth.PathKeys: oauth.NewKeysPage(c.Service),
	}
	for _, path := range oauth.MetadataPaths(s.issuer) {
		found[path] = oauth.NewMetadataPage(c.Service, s.issuer, c.RequestTimeout)
	}
	return found
}

func newHTTP(c Config, h http.Handler) *http.Server {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       bodyTimeout,
		WriteTimeout:      bodyTimeout + c.RequestTimeout + bodyTimeout,
		IdleTimeout:       max(c.Connections.HTTPIdle, 0),
		ConnContext:       connection.With,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxHTTPStreams, MaxReceiveBufferPerConnection: call.MaxUnknown, MaxReceiveBufferPerStream: call.MaxUnknown,
		},
		ErrorLog: slog.NewLogLogger(c.Logger.Handler(), slog.LevelDebug),
	}
	if c.TLS != nil {
		srv.TLSConfig = c.TLS.Clone()
	}
	return srv
}

// Serve serves until ctx ends or a listener fails. When ctx ends, the probes report it for the drain delay while
// everything is still served. Then Serve closes the listeners, lets calls under way finish, cuts off those that exceed
// the drain timeout, and waits for every goroutine that it started. It returns nil if it was asked to stop: a call that
// does not finish is logged, but is not an error. Serve is called once.
func (s *Server) Serve(asked context.Context) error {
	g, ctx := errgroup.WithContext(context.WithoutCancel(asked))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g.Go(func() error { return serveGRPC("gRPC", s.grpc, s.grpcLis) })
	g.Go(func() error { return serveGRPC("the gateway", s.inProcess, s.pipe) })
	g.Go(func() error { return s.serveHTTP("HTTP", s.http, s.httpLis) })
	if s.metricsHTTP != nil {
		g.Go(func() error { return s.serveHTTP("metrics", s.metricsHTTP, s.metLis) })
	}
	g.Go(func() error { s.health.watch(ctx); return nil })
	g.Go(func() error { s.grpcGate.Watch(ctx); return nil })
	g.Go(func() error {
		s.untilStop(ctx, asked)
		stop()
		s.drain()
		return nil
	})
	return g.Wait()
}

// untilStop waits until a listener has failed, which ends ctx, or until asked has ended and the drain delay is over.
func (s *Server) untilStop(ctx, asked context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-asked.Done():
	}
	s.health.drain()
	delay := time.NewTimer(s.drainDelay)
	defer delay.Stop()
	select {
	case <-delay.C:
	case <-s.hurry:
	case <-ctx.Done():
	}
}

func serveGRPC(what string, g *grpc.Server, lis net.Listener) error {
	if err := g.Serve(lis); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve %s: %w", what, err)
	}
	return nil
}

func (s *Server) serveHTTP(what string, h *http.Server, lis net.Listener) error {
	serve := h.Serve
	if s.secure {
		serve = func(l net.Listener) error { return h.ServeTLS(l, "", "") }
	}
	if err := serve(lis); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", what, err)
	}
	return nil
}

// drain stops from the outside to the inside: the network first, then the connection between the gateway and the chain,
// then the metrics.
func (s *Server) drain() {
	s.health.drain()
	s.stopStreams()
	ctx, cancel := context.WithTimeout(context.Background(), s.drainTimeout)
	defer cancel()
	var g errgroup.Group
	var httpErr error
	g.Go(func() error { httpErr = stopHTTP(ctx, "HTTP", s.http); return nil })
	g.Go(func() error { return stopGRPC(ctx, s.grpc) })
	errs := []error{g.Wait(), httpErr}
	errs = append(errs, s.conn.Close())
	s.front.Active.Wait()
	// No call uses these any more.
	ctx, cancel = context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	errs = append(errs, stopGRPC(ctx, s.inProcess))
	s.lingering.Wait()
	if s.metricsHTTP != nil {
		errs = append(errs, stopHTTP(ctx, "metrics", s.metricsHTTP))
	}
	if err := errors.Join(errs...); err != nil {
		s.logger.Warn("not everything that was under way finished in time", "cause", err.Error())
	}
}

func stopHTTP(ctx context.Context, what string, h *http.Server) error {
	if err := h.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("drain %s: requests were cut off: %w", what, err), h.Close())
	}
	return nil
}

func stopGRPC(ctx context.Context, g *grpc.Server) error {
	done := make(chan struct{})
	go func() {
		g.GracefulStop()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		g.Stop()
		<-done
		return errors.New("drain gRPC: calls were cut off")
	}
}

// gates limits the connections of each listener, and shows their numbers in the metrics.
func (s *Server) gates(l connection.Limits, m *metrics.Set) {
	closed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "patd_connections_closed_total",
		Help: "Connections closed by listener and reason: limit, anonymous (no good credential in time), refused (no room).",
	}, []string{"listener", "reason"})
	m.Registry.MustRegister(closed)
	gated := func(name string, lis net.Listener, most int) *connection.Gate {
		for _, reason := range []string{"limit", "anonymous", "refused"} {
			closed.WithLabelValues(name, reason)
		}
		g := &connection.Gate{
			Listener: lis, Max: max(most, 1), MaxAnonymous: min(l.MaxAnonymous, max(most, 1)), Anonymous: list.New(),
			Closed: func(reason string) { closed.WithLabelValues(name, reason).Inc() },
		}
		for state, n := range map[string]func() int{
			"known":     func() int { known, _ := g.Counts(); return known },
			"anonymous": func() int { _, anonymous := g.Counts(); return anonymous },
		} {
			m.Registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "patd_connections", Help: "Open connections by listener, and by whether they have shown a good credential.",
				ConstLabels: prometheus.Labels{"listener": name, "state": state},
			}, func() float64 { return float64(n()) }))
		}
		return g
	}
	front := gated("http", s.httpLis, l.Max/2)
	s.httpLis, front.Numbered = front, &s.numbered
	network := gated("grpc", s.grpcLis, l.Max/2)
	network.Timeout, network.Paced = l.AnonymousTimeout, true
	if l.Age > 0 {
		network.Retire, network.RetireSpread = l.Age+l.Age/10+l.Grace/4, max(l.Grace/2, 0)
	}
	s.grpcLis, s.grpcGate = network, network
	if s.metLis != nil {
		s.metLis = gated("metrics", s.metLis, min(connection.MaxMetricsConnections, max(l.Max/8, 1)))
	}
}
