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
	"patd/server/internal/receipt"
	"patd/server/internal/rpc"
	"patd/tokens"
)

const (
	maxStreams    = 1024
	streamWorkers = 64
	maxHeaderList = 32 << 10 // as over HTTP
	// minPing is half of the 10 s that clients must leave between two pings, since pings sometimes arrive early.
	minPing = 5 * time.Second
)

// errUnknownMethod is the error behind the chain for an unserved method. The chain returns its own before it.
var errUnknownMethod = errors.New("no such method")

// newGRPC makes a grpc.Server behind a chain. There are two: on the network and behind the gateway.
func newGRPC(c *call.Chain, extra ...grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append([]grpc.ServerOption{
		grpc.StreamInterceptor(c.Stream),
		grpc.InTapHandle(c.Tap),
		grpc.ForceServerCodecV2(introspect.NewCodec()),
		grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return errUnknownMethod }),
		grpc.MaxRecvMsgSize(call.MaxTransportMessage),
		// One stream buffers at most this much of a message that is not being read. It also turns off the bandwidth
		// estimate, with which an unknown caller could grow the buffer.
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

// keepaliveOf limits the life of a network connection. The age varies by a tenth per connection: the grace makes up for
// that, so that no stream is cut off before it is asked to end.
func keepaliveOf(l connection.Limits) grpc.ServerOption {
	p := keepalive.ServerParameters{
		Time:              2 * time.Minute,
		Timeout:           20 * time.Second,
		MaxConnectionIdle: max(l.GRPCIdle, 0),
	}
	if l.Age > 0 {
		p.MaxConnectionAge = l.Age
		if l.Grace > 0 {
			p.MaxConnectionAgeGrace = l.Grace + l.Age/5
		}
	}
	return grpc.KeepaliveParams(p)
}

// registerServices registers the services of both servers.
func registerServices(g call.Guard, svc *tokens.Service, receipts *receipt.Board, issuer string, signIn *CLISignIn) {
	rpc.Register(g, svc, receipts, issuer, signIn)
	introspect.Register(g, introspect.New(g.Chain, svc, receipts))
}

// registerOpen registers the services of the network server only: health, and reflection if configured.
func registerOpen(g call.Guard, h *healthState, withReflection bool) {
	healthv1.RegisterHealthServer(g, boundedHealth{h.grpc})
	if withReflection {
		reflection.RegisterV1(g)
	}
	h.serves(g.Server)
}

// watchMethods adds every method of a server to the metrics and to the chain's methods.
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
