package call

import (
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"patd/tokens"
)

// Guard registers services so that every unary call passes the chain before its message is read: credentials are in the
// headers, which arrive first, and no message of an unknown caller is read. Hot methods do the same themselves.
type Guard struct {
	*grpc.Server
	Chain *Chain
}

// NewGuard returns a Guard that registers services of g behind chain c.
func NewGuard(g *grpc.Server, c *Chain) Guard { return Guard{g, c} }

// RegisterService registers a service behind the chain.
func (g Guard) RegisterService(desc *grpc.ServiceDesc, impl any) {
	guarded := *desc
	guarded.Methods = slices.Clone(desc.Methods)
	for i, method := range guarded.Methods {
		full := "/" + desc.ServiceName + "/" + method.MethodName
		if !g.Chain.Of(full).Hot {
			guarded.Methods[i].Handler = g.Chain.Guard(full, method.Handler)
		}
	}
	g.Server.RegisterService(&guarded, impl)
}

// Guard passes a call through the chain. The message is read once the caller is known; its errors are logged and
// counted like any other.
func (c *Chain) Guard(full string, handle grpc.MethodHandler) grpc.MethodHandler {
	return func(srv any, ctx context.Context, _ func(any) error, _ grpc.UnaryServerInterceptor) (resp any, err error) {
		begun, start := &Call{}, time.Now()
		m := c.Of(full)
		c.Begin(begun, ctx, m)
		var holds Held
		defer func() {
			holds.Release()
			err = c.End(begun, start, recover(), err)
		}()
		// A response that is not an error, such as Envoy's denial, is sent uncompressed if the encoding is refused.
		if stream, ok := grpc.ServerTransportStreamFromContext(ctx).(messageStream); ok {
			encodingRefused(stream)
		}
		if err := c.Known(begun); err != nil {
			return nil, err
		}
		if holds, err = c.holdStream(begun); err != nil {
			return nil, err
		}
		return handle(srv, begun, func(v any) error {
			if (m.Open || m.Anyone) && !c.behindGateway {
				return received(c.receiveUnknown(ctx, v, &holds))
			}
			return c.Receive(ctx, v)
		}, c.unary)
	}
}

// holdStream reserves the memory that a call without a credential holds until its message arrives.
func (c *Chain) holdStream(begun *Call) (Held, error) {
	if !begun.Method.Open && !begun.Method.Anyone || c.behindGateway {
		return Held{}, nil
	}
	holds := c.Unknown.Hold(begun.Connection)
	headers, _ := metadata.FromIncomingContext(begun.Context)
	if full := holds.Head(SizeOfHeaders(headers)); full != nil {
		return Held{}, full
	}
	return holds, nil
}

// Known returns nil if the caller is known or does not have to be.
func (c *Chain) Known(begun *Call) error {
	if err := c.identify(begun); err != nil {
		return err
	}
	if begun.Actor.Kind == tokens.Nobody && !begun.Method.Open && !begun.Method.Anyone {
		return NoCredential()
	}
	return nil
}

// received returns the public error for a message that could not be read. It contains nothing of the message.
func received(err error) error {
	if err == nil {
		return nil // first, since what errors.As needs is allocated
	}
	var ours *tokens.Error
	if errors.As(err, &ours) {
		return err
	}
	switch status.Code(err) {
	case codes.ResourceExhausted:
		return TooLarge()
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case codes.Canceled, codes.Unavailable:
		return context.Canceled
	default:
		return errUnreadable()
	}
}

func errUnreadable() *tokens.Error {
	return tokens.Invalid("MESSAGE_INVALID", "", "the message is not a protobuf message of this method")
}
