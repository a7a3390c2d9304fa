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

// Config is what a Server is made of. Service is needed; the zero value of the rest is sensible.
type Config struct {
	// Service decides.
	Service *tokens.Service
	// Ready reports whether the server could serve now, e.g. whether its store answers. Nil: always.
	Ready func(context.Context) error
	// Details tells what does not work although the server is ready, such as sign-in, in words that hold no secret and no
	// name; /readyz shows them. Nil: nothing.
	Details func() map[string]string
	// Figures are further ones for /metrics, read each time. Nil: there are none.
	Figures func() []metrics.Figure
	// Logger gets one line per request. Nil: nobody does.
	Logger *slog.Logger
	// HTTPAddr and GRPCAddr are what to listen on; port 0 is any free one.
	HTTPAddr, GRPCAddr string
	// MetricsAddr moves /metrics to a listener of its own. Empty: it is on the HTTP listener.
	MetricsAddr string
	// Issuer is the base of every address that the server hands out. Empty: http(s)://<HTTP address>.
	Issuer string
	// TLS serves every listener, see LoadTLS. Nil: plain text, which is refused on an address that is not loopback unless
	// Insecure says so.
	TLS      *tls.Config
	Insecure bool
	// TrustedProxies are those whose X-Forwarded-For counts, over REST as over gRPC.
	TrustedProxies []netip.Prefix
	// SignIn tells who signed in with a JWT. Nil: nobody does, and a JWT is refused as any bad token is.
	SignIn call.Verifier
	// MintRate is how many tokens one signed-in user may mint or rotate each second, over time, and MintBurst how many at
	// once. 0: 1 and 100. ServiceMintRate and ServiceMintBurst are the same for one service, which mints for many users. 0: 1000
	// and 20000. Each attempt counts that the caller has the right to make. Negative: unlimited.
	MintRate, ServiceMintRate   float64
	MintBurst, ServiceMintBurst int
	// ChangeRate is how many changes other than mints one signed-in user may make each second, over time, and ChangeBurst how
	// many at once; revocations, suspensions and deletions have a count of their own of the same size. 0: 1 and 100.
	// ServiceChangeRate and ServiceChangeBurst are the same for one service, and for revocations without a credential from
	// one address. 0: 2000 and 100000. Negative: unlimited. Each server counts by itself.
	ChangeRate, ServiceChangeRate   float64
	ChangeBurst, ServiceChangeBurst int
	// ExchangeRate is how many exchanges and refreshes one personal access token may make each second, over time, and ExchangeBurst
	// how many at once. 0: 1 and 100. Negative: unlimited.
	ExchangeRate  float64
	ExchangeBurst int
	// RefusalRate is how many refused attempts of one caller the audit log takes each second, over time, and RefusalBurst how many
	// at once. 0: 1 and 100. Negative: all.
	RefusalRate  float64
	RefusalBurst int
	// FailureRate is how many bad credentials one address (an IPv6 address with its /64) may show each second, over time,
	// and FailureBurst how many at once. Past that its bad ones are refused as too many, and good ones pass, unless they are not
	// in memory and the address has made the server read the store 200 times a second, after the first 10000, for
	// credentials that are of no record. What has ended and what is presented to be
	// introspected does not count. A trusted proxy's own address, which stands for callers whom it does not name, is not
	// limited. 0: 10 and 1000. Negative: unlimited.
	FailureRate  float64
	FailureBurst int
	// LeakRate is how many reports of leaks one address may make each second, over time, and LeakBurst how many at once; nobody
	// needs a credential to report. 0: 1 and 60. Negative: unlimited.
	LeakRate  float64
	LeakBurst int
	// Shared counts mints and exchanges together with the other servers on the same store. Nil: there are none. What is
	// limited by address each server counts for itself.
	Shared call.SharedLimit
	// ForwardAuthorization lets Envoy pass the client's Authorization header on to the upstream, which then has the token. Other
	// gateways do as their own configuration says.
	ForwardAuthorization bool
	// Now is the clock of these limits. Nil: time.Now.
	Now func() time.Time
	// UnknownCallerMemory bounds, in bytes, what messages of all callers without a good credential may hold together. 0: 64 MiB.
	UnknownCallerMemory int64
	// Reflection serves gRPC reflection.
	Reflection bool
	// RequestTimeout bounds one call; 0: 10 s. DrainTimeout bounds how long calls under way may take when the server
	// stops; 0: 15 s.
	RequestTimeout, DrainTimeout time.Duration
	// DrainDelay is how long the server, once asked to stop, still serves everything while /readyz and gRPC health say that it
	// stops, so that balancers send no more. 0: not at all. Hurry, when closed, ends the delay; nil: nothing does.
	DrainDelay time.Duration
	Hurry      <-chan struct{}
	// Connections bound what connections there are, and for how long.
	Connections connection.Limits
	// Version is told by the metrics.
	Version string
}

// Server owns the listeners and the order of shutting down.
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

// checkIssuer refuses a base URL that clients could not use: RFC 8414 section 2 wants http(s), without query and fragment.
func checkIssuer(issuer string) error {
	u, err := url.Parse(issuer)
	if issuer != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "") {
		return errors.New("make the server: the issuer must be a URL such as https://patd.example.com, without query and fragment")
	}
	return nil
}

// New binds the listeners and makes everything ready. Nothing is served before Serve, but connections made from now on
// are waiting for it. Serve is also what releases everything.
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

// HTTPAddr is the address that REST is served on.
func (s *Server) HTTPAddr() string { return s.httpLis.Addr().String() }

// GRPCAddr is the address that gRPC is served on.
func (s *Server) GRPCAddr() string { return s.grpcLis.Addr().String() }

// MetricsAddr is the address that /metrics is served on.
func (s *Server) MetricsAddr() string {
	if s.metLis == nil {
		return s.HTTPAddr()
	}
	return s.metLis.Addr().String()
}

// Issuer is the base of every address that the server hands out.
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

// bind listens, and refuses an address that is not loopback where only such are allowed. Nobody is answered before
// that is known.
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
			_ = l.Close() // nothing was accepted on it
		}
	}
}

// build makes the two gRPC servers and what stands in front of them.
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

// limitsOf is what the configuration says of limits.
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

// pages are served by exact path, to everybody.
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

// Serve serves until ctx ends or a listener fails. When ctx ends, the probes say so for the drain delay while everything is still
// served. Then it closes the listeners, lets calls under way finish, cuts off those that do not within the drain timeout,
// and waits for everything that it started. It returns nil when it
// was asked to stop: a caller that does not finish does not make that a failure, but stands in the log. It is called once.
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

// untilStop waits until the server is to stop: a listener has failed, which ends ctx, or it was asked and the drain delay is over.
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
// the metrics last.
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
	// Nobody is behind these any more.
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

// gates puts a budget in front of each listener, and shows them in the metrics.
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
