package client

import (
	"context"
	"net/netip"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// GRPCConfig says which gRPC methods need what. A method that is not listed is refused to every caller, so that a new
// one is not open by mistake.
type GRPCConfig struct {
	// Scopes are the scopes that each method needs, by its full name, such as /reports.v1.Reports/Read. An empty list
	// requires an active token only.
	Scopes map[string][]string
	// Open are the full names of the methods that need no token, such as /grpc.health.v1.Health/Check.
	Open []string
	// Default, if not nil, are the scopes for all methods not listed. An empty list requires an active token only.
	Default []string
	// Audience is the API that the methods speak for; empty: that of the Checker.
	Audience string
	// ClientIP returns the address that a call comes from. Nil: the address of the connection. Metadata is not trusted,
	// since anybody can write it. The zero Addr is unknown.
	ClientIP func(context.Context) netip.Addr
	// RenewURL is the page where users renew tokens. If it is set, clients get it in the metadata patd-token-renew in a
	// token's last 30 days.
	RenewURL string
}

// UnaryServerInterceptor lets calls with a token through, and refuses the others: UNAUTHENTICATED without an active
// token, PERMISSION_DENIED without the scopes and for a method that is not listed, UNAVAILABLE when nothing is known
// about the token. Handlers get the Result from [FromContext]. A refusal says why, as patd itself does, in its text and
// in a google.rpc.ErrorInfo. The answer about a token that expires has the metadata patd-token-expires-at.
func UnaryServerInterceptor(c Checker, config GRPCConfig) grpc.UnaryServerInterceptor {
	m := newMethods(c, config)
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		ctx, _, err := m.admit(ctx, info.FullMethod)
		if err != nil {
			return nil, err
		}
		return handler(ctx, request)
	}
}

// StreamServerInterceptor does the same for streams. It decides again at each message in either direction, which is
// cheap from the cache: a stream ends when its token does.
func StreamServerInterceptor(c Checker, config GRPCConfig) grpc.StreamServerInterceptor {
	m := newMethods(c, config)
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, again, err := m.admit(stream.Context(), info.FullMethod)
		if err != nil {
			return err
		}
		return handler(srv, &guardedStream{ServerStream: stream, ctx: ctx, again: again})
	}
}

// methods decides who may call what.
type methods struct {
	checker Checker
	config  GRPCConfig
	open    map[string]bool
}

func newMethods(c Checker, config GRPCConfig) *methods {
	m := &methods{checker: c, config: config, open: map[string]bool{}}
	for _, name := range config.Open {
		m.open[name] = true
	}
	if m.config.ClientIP == nil {
		m.config.ClientIP = peerAddress
	}
	return m
}

func peerAddress(ctx context.Context) netip.Addr {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return netip.Addr{}
	}
	return addressOfPeer(p.Addr)
}

// admit decides about one call. It returns the context for the handler, and a function that decides again.
func (m *methods) admit(ctx context.Context, method string) (context.Context, func() error, error) {
	scopes, named := m.config.Scopes[method]
	switch {
	case named:
	case m.open[method]:
		return ctx, func() error { return nil }, nil
	case m.config.Default != nil:
		scopes = m.config.Default
	default:
		return nil, nil, status.Error(codes.PermissionDenied, "no token may call this method")
	}
	token, found := bearer(metadata.ValueFromIncomingContext(ctx, "authorization"))
	if found != bearerToken {
		return nil, nil, withReason(codes.Unauthenticated, reasonRequired, "one bearer token is needed", nil)
	}
	call := Call{Audience: m.config.Audience, Scopes: scopes, ClientIP: m.config.ClientIP(ctx)}
	verify := func() (Result, error) {
		out, err := m.checker.Verify(ctx, token, call)
		if err == nil && out.Allowed() {
			return out, nil
		}
		return out, m.refuse(ctx, out, scopes, err)
	}
	out, err := verify()
	now := time.Now() //nolint:forbidigo // it decides nothing
	if headers := renewalMetadata(renewHeaders(out.expires(), m.config.RenewURL, now)); len(headers) > 0 {
		_ = grpc.SetHeader(ctx, headers) // it fails only without a transport, and so without a reader
	}
	if err != nil {
		return nil, nil, err
	}
	again := func() error {
		_, err := verify()
		return err
	}
	return NewContext(ctx, out), again, nil
}

// refuse returns the error for the caller.
func (m *methods) refuse(ctx context.Context, out Result, scopes []string, err error) error {
	switch {
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case err != nil:
		return status.Error(codes.Unavailable, "the token cannot be checked now")
	}
	why := out.Refusal(scopes)
	_, why.RenewURL = renewHeaders(
		why.ExpireTime,
		m.config.RenewURL,
		//nolint:forbidigo // it decides nothing
		time.Now(),
	)
	if out.Decision == InsufficientScope {
		return statusOf(codes.PermissionDenied, why)
	}
	return statusOf(codes.Unauthenticated, why)
}

// guardedStream decides about its token again at each message.
type guardedStream struct {
	grpc.ServerStream
	ctx   context.Context
	again func() error
}

// Context returns the one that carries the Result.
func (s *guardedStream) Context() context.Context { return s.ctx }

// RecvMsg receives a message, if the token is still good when it arrives.
func (s *guardedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.again()
}

// SendMsg sends a message, if the token is still good.
func (s *guardedStream) SendMsg(m any) error {
	if err := s.again(); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(m)
}
