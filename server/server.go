package server

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"patd/gen/openapi"
	"patd/server/internal/call"
	"patd/server/internal/connection"
	"patd/server/internal/extauth"
	"patd/server/internal/github"
	"patd/server/internal/httpx"
	"patd/server/internal/introspect"
	"patd/server/internal/metrics"
	"patd/server/internal/oauth"
	"patd/server/internal/receipt"
	"patd/server/internal/rest"
	"patd/server/internal/scim"
	"patd/server/internal/secevent"
	"patd/server/webhook"
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

// Server owns the listeners and the order of shutdown.
type Server struct {
	logger       *slog.Logger
	drainTimeout time.Duration
	drainDelay   time.Duration
	hurry        <-chan struct{}
	issuer       string
	service      *tokens.Service
	health       *healthState
	stopStreams  context.CancelFunc
	receipts     *receipt.Board

	grpc, inProcess          *grpc.Server
	grpcLis, httpLis, metLis net.Listener     // metLis may be nil
	grpcGate                 *connection.Gate // grpcLis
	pipe                     *bufconn.Listener
	conn                     *grpc.ClientConn
	http, metricsHTTP        *http.Server
	front                    *rest.Front
	githubKeys               *github.Keys // nil: its reports are not taken
	registry                 *prometheus.Registry
	secure                   bool
	streams                  sync.WaitGroup // goroutines of streams
	numbered                 connection.Numbered
}

// checkIssuer rejects a base URL that clients cannot use: RFC 8414 section 2 requires http(s), no query or fragment.
func checkIssuer(issuer string) error {
	u, err := url.Parse(issuer)
	if issuer != "" &&
		(err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "") {
		return errors.New(
			"make the server: the issuer must be a URL such as https://patd.example.com, without query and fragment",
		)
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
	fromGitHub, err := c.githubKeys()
	if err != nil {
		return nil, fmt.Errorf("make the server: %w", err)
	}
	s := &Server{
		logger:       c.Logger,
		service:      c.Service,
		githubKeys:   fromGitHub,
		drainTimeout: c.DrainTimeout,
		drainDelay:   c.DrainDelay,
		hurry:        c.Hurry,
		secure:       c.TLS != nil,
	}
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
		s.abandon()
		return nil, err
	}
	return s, nil
}

// abandon releases what a server holds that could not be made whole.
func (s *Server) abandon() {
	if s.stopStreams != nil {
		s.stopStreams()
	}
	for _, g := range []*grpc.Server{s.grpc, s.inProcess} {
		if g != nil {
			g.Stop()
		}
	}
	if s.conn != nil {
		_ = s.conn.Close() // no call was made
	}
	s.closeListeners()
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
	if s.httpLis, err = bind("HTTP", c.HTTPAddr, c.Sockets.HTTP, plainText); err != nil {
		return err
	}
	if s.grpcLis, err = bind("gRPC", c.GRPCAddr, c.Sockets.GRPC, plainText); err != nil {
		return err
	}
	if c.MetricsAddr != "" || c.Sockets.Metrics != nil {
		s.metLis, err = bind("metrics", c.MetricsAddr, c.Sockets.Metrics, plainText)
	}
	return err
}

// bind listens, or takes a socket that listens already, and rejects a non-loopback address if only loopback is allowed.
// No connection is accepted before that check.
func bind(what, addr string, lis net.Listener, loopbackOnly bool) (net.Listener, error) {
	if lis != nil {
		addr = lis.Addr().String()
	} else {
		var err error
		if lis, err = net.Listen("tcp", addr); err != nil {
			return nil, fmt.Errorf("listen for %s on %s: %w", what, addr, err)
		}
	}
	if tcp, ok := lis.Addr().(*net.TCPAddr); loopbackOnly && (!ok || !tcp.IP.IsLoopback()) {
		return nil, errors.Join(
			fmt.Errorf(
				"listen for %s on %s: plain text on an address that is not loopback is refused; configure TLS, or say insecure",
				what,
				addr,
			),
			lis.Close(),
		)
	}
	return lis, nil
}

// closeListeners closes what New has bound, and the sockets that it was given.
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
	s.registry = m.Registry
	unknown := call.NewUnknownMemory(c.UnknownCallerMemory, m)
	c.Connections.MaxAnonymous = min(c.Connections.MaxAnonymous, call.ConnectionsOf(c.UnknownCallerMemory))
	s.gates(c, m, unknown)
	m.Registry.MustRegister(metrics.Figures(decisions(c.Service)))
	if c.Figures != nil {
		m.Registry.MustRegister(metrics.Figures(c.Figures))
	}
	bounds, err := call.NewLimits(limitsOf(c), m)
	if err != nil {
		return err
	}
	c.Service.LimitRefusals(bounds.Recordable)
	tracing, err := call.NewTracing(c.Tracing, c.Now)
	if err != nil {
		return err
	}
	s.health = newHealthState(c.Ready, c.Logger)
	s.health.details, s.health.parts = c.Details, c.Parts
	draining, stop := context.WithCancel(context.Background())
	s.stopStreams = stop
	receipts := receipt.New(receipt.Config{
		Reached: c.Service.Reached, Servers: c.Servers, Alone: c.Alone, Stopping: draining,
	})
	s.receipts = receipts

	network := call.New(call.Config{
		Service:  c.Service,
		SignIn:   c.SignIn,
		Logger:   c.Logger,
		Metrics:  m,
		Limits:   bounds,
		Codec:    introspect.NewCodec(),
		Unknown:  unknown,
		Trusted:  c.TrustedProxies,
		Timeout:  c.RequestTimeout,
		Draining: draining,
		Streams:  &s.streams,
		Tracing:  tracing,
	})
	// The gate reads ahead for known callers, and speaks TLS.
	s.grpc = newGRPC(network, keepaliveOf(c.Connections), grpc.ReadBufferSize(0))
	accept := extauth.Accept{Basic: c.AcceptBasic, APIKey: c.AcceptAPIKey}
	registerServices(call.NewGuard(s.grpc, network), c.Service, receipts, s.issuer, c.CLISignIn)
	extauth.RegisterEnvoy(call.NewGuard(s.grpc, network), extauth.NewEnvoy(c.Service, c.ForwardAuthorization, accept))
	registerOpen(call.NewGuard(s.grpc, network), s.health, c.Reflection)
	watchMethods(m, network.Methods, s.grpc)

	behind := network.Behind(&s.numbered)
	s.inProcess = newGRPC(behind, grpc.MaxConcurrentStreams(rest.UnlimitedStreams))
	registerServices(call.NewGuard(s.inProcess, behind), c.Service, receipts, s.issuer, c.CLISignIn)
	s.pipe = bufconn.Listen(inProcessBuffer)
	if s.conn, err = rest.DialInProcess(s.pipe, c.RequestTimeout+rest.LostCallGrace); err != nil {
		return err
	}
	api, err := rest.NewGateway(draining, s.conn, s.issuer)
	if err != nil {
		return err
	}
	endpoints := oauth.New(network, s.issuer)
	forms := endpoints.Handlers()
	if s.githubKeys != nil {
		forms[github.Path] = github.New(network, s.githubKeys)
	}
	from := httpx.Senders{Chain: behind, Trusted: c.TrustedProxies}
	introspected := introspect.New(behind, c.Service, receipts)
	forms[introspect.PathInvalidations] = introspect.NewEvents(introspected, from)
	s.front = &rest.Front{
		Logger:  c.Logger,
		Metrics: m,
		Senders: from,
		API:     api,
		Pages:   s.pages(c),
		Forms:   forms,
		Gates: map[string]http.Handler{
			extauth.PathForwardAuth: extauth.NewForwardAuth(c.Service, network, accept),
		},
		KnowClient: endpoints.KnowClient,
		Short:      introspect.NewDirect(introspected, from),
	}
	if err := s.providers(c, network); err != nil {
		return err
	}
	if s.front.Site, err = s.site(c, network); err != nil {
		return err
	}
	s.http = newHTTP(c, s.front)
	if s.metLis == nil {
		s.front.Pages["/metrics"] = m.Handler()
		return nil
	}
	s.metricsHTTP = newHTTP(c, &rest.Front{
		Logger:  c.Logger,
		Metrics: m,
		Pages:   map[string]http.Handler{"/metrics": m.Handler()},
		API:     http.NotFoundHandler(),
	})
	return nil
}

// providers makes the endpoints of identity providers.
func (s *Server) providers(c Config, network *call.Chain) error {
	by, err := scim.ParseUserID(c.SCIMUserID)
	if err != nil {
		return fmt.Errorf("make the server: the attribute of SCIM that is the user's id: %w", err)
	}
	methods := network.ProviderMethods()
	s.front.Forms[secevent.Path] = secevent.New(network, methods[call.SecurityEvents], c.Service, c.SecurityEvents)
	s.front.SCIM = scim.New(
		scim.Config{Chain: s.front.Chain, Methods: methods, Service: c.Service, Issuer: s.issuer, UserID: by},
	)
	return nil
}

// decisions returns the figures of introspection's decisions, of notices, and of superseded secrets.
func decisions(service *tokens.Service) func() []metrics.Figure {
	return func() (out []metrics.Figure) {
		service.Decisions(func(d tokens.Decision, total uint64) {
			out = append(out, metrics.Figure{
				Name:   "patd_decisions_total",
				Help:   "Decisions of introspection, by any way; not those that clients make from their own cache.",
				Labels: map[string]string{"decision": d.String()},
				Total:  true,
				Value:  float64(total),
			})
		})
		service.NoticesWritten(func(a tokens.Action, total uint64) {
			out = append(out, metrics.Figure{
				Name: "patd_notices_total", Help: "Notices that this server wrote to the audit log, by action.",
				Labels: map[string]string{"action": string(a)}, Total: true, Value: float64(total),
			})
		})
		return append(out, metrics.Figure{
			Name: "patd_notices_failed_total", Help: "Times that notices could not be written; they are tried again.",
			Total: true, Value: float64(service.NoticesFailed()),
		}, metrics.Figure{
			Name:  "patd_superseded_uses_unrecorded_total",
			Help:  "Uses of superseded secrets left out of the audit log: too many at once, or the store took no change.",
			Total: true,
			Value: float64(service.SupersededUsesUnrecorded()),
		})
	}
}

// pages returns the handlers of open pages by exact path.
func (s *Server) pages(c Config) map[string]http.Handler {
	found := map[string]http.Handler{
		"/healthz":          http.HandlerFunc(s.health.live),
		"/readyz":           http.HandlerFunc(s.health.readyz),
		"/openapi.json":     document(openapi.Of(s.issuer)),
		webhook.PathSchemas: document(webhook.Schemas()),
		oauth.PathKeys:      oauth.NewKeysPage(c.Service),
		oauth.PathProtected: oauth.NewProtectedPage(c.Service, s.issuer, c.RequestTimeout),
	}
	for _, path := range oauth.MetadataPaths(s.issuer) {
		found[path] = oauth.NewMetadataPage(c.Service, s.issuer, c.RequestTimeout)
	}
	return found
}

// document returns the handler of a JSON document that does not change.
func document(text []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text) // a failed write means that the client has gone
	})
}

func newHTTP(c Config, h http.Handler) *http.Server {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       bodyTimeout,
		WriteTimeout:      bodyTimeout + c.RequestTimeout + bodyTimeout,
		IdleTimeout:       max(c.Connections.HTTPIdle, 0),
		ConnContext:       connection.With,
		ConnState: func(c net.Conn, state http.ConnState) {
			if state == http.StateIdle {
				connection.Idle(c)
			}
		},
		Protocols:      new(http.Protocols),
		MaxHeaderBytes: maxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          maxHTTPStreams,
			MaxReceiveBufferPerConnection: call.MaxUnknown,
			MaxReceiveBufferPerStream:     call.MaxUnknown,
			MaxReadFrameSize:              connection.MaxFrame,
		},
		ErrorLog: slog.NewLogLogger(c.Logger.Handler(), slog.LevelDebug),
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(c.TLS != nil) // below the gate, which speaks TLS
	return srv
}

// gates limits the connections of each listener, and shows their numbers in the metrics.
func (s *Server) gates(c Config, m *metrics.Set, unknown *call.UnknownMemory) {
	l := c.Connections
	closed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "patd_connections_closed_total",
		Help: "Connections closed by listener and reason: limit, anonymous (no good credential in time), refused (no room), memory (the headers).",
	}, []string{"listener", "reason"})
	m.Registry.MustRegister(closed)
	gated := func(name string, lis net.Listener, most int, protocols ...string) *connection.Gate {
		for _, reason := range []string{"limit", "anonymous", "refused", "memory"} {
			closed.WithLabelValues(name, reason)
		}
		g := &connection.Gate{
			Listener: lis, Max: max(most, 1), MaxAnonymous: min(l.MaxAnonymous, max(most, 1)), Anonymous: list.New(),
			Closed: func(reason string) { closed.WithLabelValues(name, reason).Inc() }, Memory: unknown,
			HTTP2: !slices.Contains(protocols, "http/1.1"),
		}
		if c.TLS != nil {
			g.TLS = c.TLS.Clone()
			g.TLS.NextProtos = protocols
		}
		for state, n := range map[string]func() int{
			"known":     func() int { known, _ := g.Counts(); return known },
			"anonymous": func() int { _, anonymous := g.Counts(); return anonymous },
		} {
			m.Registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name:        "patd_connections",
				Help:        "Open connections by listener, and by whether they have shown a good credential.",
				ConstLabels: prometheus.Labels{"listener": name, "state": state},
			}, func() float64 { return float64(n()) }))
		}
		return g
	}
	front := gated("http", s.httpLis, l.Max/2, "h2", "http/1.1")
	s.httpLis, front.Numbered = front, &s.numbered
	network := gated("grpc", s.grpcLis, l.Max/2, "h2")
	network.Timeout = l.AnonymousTimeout
	if l.Age > 0 {
		network.Retire, network.RetireSpread = l.Age+l.Age/10+l.Grace/4, max(l.Grace/2, 0)
	}
	s.grpcLis, s.grpcGate = network, network
	if s.metLis != nil {
		s.metLis = gated("metrics", s.metLis, min(connection.MaxMetricsConnections, max(l.Max/8, 1)), "h2", "http/1.1")
	}
}
