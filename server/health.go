package server

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"patd/server/internal/call"
	"patd/server/internal/connection"
	"patd/server/internal/httpx"
)

const (
	readyTimeout  = 2 * time.Second
	readyInterval = 5 * time.Second
	// readyFailures is how many times in a row Ready must fail before gRPC health reports NOT_SERVING. Only /readyz
	// reports a single failure, so that a hiccup does not make every client reconnect.
	readyFailures = 3
)

// healthState serves the probes: alive, ready, draining.
type healthState struct {
	ready    func(context.Context) error
	details  func() map[string]string                // the faults of a server that is ready; may be nil
	parts    func(context.Context) map[string]string // may be nil
	logger   *slog.Logger
	grpc     *health.Server
	names    []string // of the services whose state gRPC health reports; "" is the server
	draining atomic.Bool
	failed   int // in a row; used by watch only
}

func newHealthState(ready func(context.Context) error, logger *slog.Logger) *healthState {
	if ready == nil {
		ready = func(context.Context) error { return nil }
	}
	return &healthState{ready: ready, logger: logger, grpc: health.NewServer(), names: []string{""}}
}

// serves adds the services of a server to gRPC health. It is called before Serve.
func (h *healthState) serves(g *grpc.Server) {
	for name := range g.GetServiceInfo() {
		h.names = append(h.names, name)
	}
	h.set(healthv1.HealthCheckResponse_SERVING)
}

// set sets the same status for every service: they share the store.
func (h *healthState) set(s healthv1.HealthCheckResponse_ServingStatus) {
	for _, name := range h.names {
		h.grpc.SetServingStatus(name, s)
	}
}

// boundedHealth is gRPC health with few watches for a connection without a good credential. Other connections may have
// as many as streams.
type boundedHealth struct{ *health.Server }

// Watch sends the state of a service, and each change.
func (h boundedHealth) Watch(
	r *healthv1.HealthCheckRequest,
	ss grpc.ServerStreamingServer[healthv1.HealthCheckResponse],
) error {
	if c := connection.OfPeer(ss.Context()); c != nil {
		n := c.Watches.Add(1)
		defer c.Watches.Add(-1)
		if n > connection.MaxAnonymousWatches && !c.Known.Load() {
			return status.Error(codes.ResourceExhausted, "too many watches on a connection without a credential")
		}
	}
	return h.Server.Watch(r, ss)
}

// drain reports from now on that this server accepts no new work.
func (h *healthState) drain() {
	h.draining.Store(true)
	h.grpc.Shutdown()
}

// watch checks every few seconds whether the server is ready, until ctx ends.
func (h *healthState) watch(ctx context.Context) {
	tick := time.NewTicker(readyInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			h.note(ctx, h.check(ctx))
		}
	}
}

func (h *healthState) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return h.ready(ctx)
}

// note passes one result of Ready on to gRPC health.
func (h *healthState) note(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil:
	case err == nil:
		if h.failed >= readyFailures {
			h.logger.LogAttrs(ctx, slog.LevelInfo, "ready again")
			h.set(healthv1.HealthCheckResponse_SERVING)
		}
		h.failed = 0
	default:
		if h.failed++; h.failed == readyFailures {
			h.logger.LogAttrs(ctx, slog.LevelWarn, "not ready", slog.String("cause", call.LogText(err.Error())))
			h.set(healthv1.HealthCheckResponse_NOT_SERVING)
		}
	}
}

// Alive returns why the server cannot say how it is: it hangs, and a new start would help. An outage of the store is no
// such reason.
func (s *Server) Alive(ctx context.Context) error {
	_, err := s.health.grpc.Check(ctx, &healthv1.HealthCheckRequest{})
	return err
}

// probe is the body of /healthz and /readyz.
type probe struct {
	Status  string            `json:"status"`
	Details map[string]string `json:"details,omitempty"`
	Parts   map[string]part   `json:"parts,omitempty"`
}

// part is one part of the program in /readyz?verbose.
type part struct {
	Well  bool   `json:"well"`
	Cause string `json:"cause,omitempty"`
}

// live reports that the process runs.
func (h *healthState) live(w http.ResponseWriter, _ *http.Request) {
	httpx.WriteJSON(w, http.StatusOK, probe{Status: "ok"})
}

// readyz reports whether the server can serve now. The reason why not goes to the log.
func (h *healthState) readyz(w http.ResponseWriter, r *http.Request) {
	p, err := h.report(r.Context(), r.URL.Query().Has("verbose"))
	if err != nil {
		httpx.ExchangeOf(r.Context()).Cause = err
	}
	code := http.StatusOK
	if p.Status != statusReady {
		code = http.StatusServiceUnavailable
	}
	httpx.WriteJSON(w, code, p)
}

// statusReady is the status of a server that can serve now.
const statusReady = "ready"

// report returns the state of the server, and for the log why it is not ready.
func (h *healthState) report(ctx context.Context, verbose bool) (probe, error) {
	if h.draining.Load() {
		return probe{Status: "draining"}, nil
	}
	if err := h.check(ctx); err != nil {
		return h.verbose(ctx, h.probe("not ready"), verbose), err
	}
	return h.verbose(ctx, h.probe(statusReady), verbose), nil
}

// verbose adds which part is well, and why another is not, if the request asks for it.
func (h *healthState) verbose(ctx context.Context, p probe, asked bool) probe {
	if !asked || h.parts == nil {
		return p
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	p.Parts = map[string]part{}
	for name, cause := range h.parts(ctx) {
		p.Parts[name] = part{Well: cause == "", Cause: call.LogText(cause)}
	}
	return p
}

// probe returns a status with the faults.
func (h *healthState) probe(status string) probe {
	p := probe{Status: status}
	if h.details != nil {
		p.Details = h.details()
	}
	return p
}
