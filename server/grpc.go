package server

import (
	"errors"
	"time"

	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"patd/server/internal/call"
	"patd/server/internal/connection"
	"patd/server/internal/introspect"
	"patd/server/internal/metrics"
	"patd/server/internal/rpc"
	"patd/tokens"
)

const (
	maxStreams    = 1024
	streamWorkers = 64
	maxHeaderList = 32 << 10 // as over HTTP
	// minPing is half the 10 s that clients are told to leave between two pings, since pings arrive early now and then.
	minPing = 5 * time.Second
)

// errUnknownMethod is what lies behind the chain for a method that is not served. The chain answers before it.
var errUnknownMethod = errors.New("no such method")

// newGRPC makes a grpc.Server behind a chain. There are two: one on the network and one behind the gateway.
func newGRPC(c *call.Chain, extra ...grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append([]grpc.ServerOption{
		grpc.StreamInterceptor(c.Stream),
		grpc.InTapHandle(c.Tap),
		grpc.ForceServerCodecV2(introspect.NewCodec()),
		grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return errUnknownMethod }),
		grpc.MaxRecvMsgSize(call.MaxTransportMessage),
		// One stream holds no more than this of a message that nobody has asked for yet. It also turns off the estimate of
		// bandwidth, by which a stranger could have it grow.
		grpc.StaticStreamWindowSize(call.MaxUnknown),
		grpc.StaticConnWindowSize(call.MaxUnknown),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeaderList),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.WaitForHandlers(true),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
	}, extra...)...)
}

// keepaliveOf is how long a connection of the network lasts. A connection's own age varies by a tenth: the grace makes up for that,
// so that no stream is cut off before it is told to end.
func keepaliveOf(l connection.Limits) grpc.ServerOption {
	p := keepalive.ServerParameters{Time: 2 * time.Minute, Timeout: 20 * time.Second, MaxConnectionIdle: max(l.GRPCIdle, 0)}
	if l.Age > 0 {
		p.MaxConnectionAge = l.Age
		if l.Grace > 0 {
			p.MaxConnectionAgeGrace = l.Grace + l.Age/5
		}
	}
	return grpc.KeepaliveParams(p)
}

// registerServices registers what both servers serve.
func registerServices(g call.Guard, svc *tokens.Service) {
	rpc.Register(g, svc)
	introspect.Register(g, introspect.New(g.Chain, svc))
}

// registerOpen registers what only the network sees: health, and reflection where it is wanted.
func registerOpen(g call.Guard, h *healthState, withReflection bool) {
	healthv1.RegisterHealthServer(g, boundedHealth{h.grpc})
	if withReflection {
		reflection.RegisterV1(g)
	}
	h.serves(g.Server)
}

// watchMethods makes the metrics, and the chain's methods, know every method of a server.
func watchMethods(m *metrics.Set, methods map[string]*call.Method, g *grpc.Server) {
	for name, info := range g.GetServiceInfo() {
		for _, served := range info.Methods {
			full := "/" + name + "/" + served.Name
			m.Watch(full)
			if known, ok := methods[full]; ok {
				known.Metrics = m.Methods[full]
			}
		}
	}
}
