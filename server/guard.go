package server

import (
	stdgzip "compress/gzip"
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"patd/tokens"
)

// Callers may compress by gzip, and their answers are then compressed too: by the compressor that holds least memory.
func init() {
	if err := gzip.SetLevel(stdgzip.BestSpeed); err != nil {
		panic(err)
	}
}

// guard registers services so that every unary call passes the chain before its message is read: credentials stand in the
// headers, which arrive first, and a caller that is not known has no message read. Hot methods do the same by themselves.
type guard struct {
	*grpc.Server
	chain *chain
}

// RegisterService registers a service behind the chain.
func (g guard) RegisterService(desc *grpc.ServiceDesc, impl any) {
	guarded := *desc
	guarded.Methods = slices.Clone(desc.Methods)
	for i, method := range guarded.Methods {
		full := "/" + desc.ServiceName + "/" + method.MethodName
		if !g.chain.of(full).hot {
			guarded.Methods[i].Handler = g.chain.guard(full, method.Handler)
		}
	}
	g.Server.RegisterService(&guarded, impl)
}

// guard takes a call through the chain. The call's message is read once its caller is known; what is wrong with the message
// is logged and counted as any other error is.
func (c *chain) guard(full string, handle grpc.MethodHandler) grpc.MethodHandler {
	return func(srv any, ctx context.Context, _ func(any) error, _ grpc.UnaryServerInterceptor) (resp any, err error) {
		begun, start, taken := &call{}, time.Now(), 0
		m := c.of(full)
		c.begin(begun, ctx, m)
		var holds held
		defer func() {
			c.unknown.give(taken)
			holds.release()
			err = c.end(begun, start, recover(), err)
		}()
		if err := c.known(begun); err != nil {
			return nil, err
		}
		if holds, err = c.holdStream(begun); err != nil {
			return nil, err
		}
		return handle(srv, begun, func(v any) error {
			if (m.open || m.anyone) && !c.behindGateway {
				var err error
				taken, err = c.receiveUnknown(ctx, v)
				return received(err)
			}
			return c.receive(ctx, v)
		}, c.unary)
	}
}

// holdStream reserves what the stream of a call holds that needs no credential, while its message does not come.
func (c *chain) holdStream(begun *call) (held, error) {
	if !begun.method.open && !begun.method.anyone || c.behindGateway {
		return held{}, nil
	}
	headers, _ := metadata.FromIncomingContext(begun.Context)
	holds, full := c.unknown.hold(begun.connection, sizeOfHeaders(headers))
	if full != nil {
		return held{}, full
	}
	return holds, nil
}

// known returns nil once the caller is known, or need not be.
func (c *chain) known(begun *call) error {
	if err := c.identify(begun); err != nil {
		return err
	}
	if begun.actor.Kind == tokens.Nobody && !begun.method.open && !begun.method.anyone {
		return noCredential()
	}
	return nil
}

// received is what the caller is told about a message that could not be read. Nothing of the message is in it.
func received(err error) error {
	var ours *tokens.Error
	switch {
	case err == nil || errors.As(err, &ours):
		return err
	}
	switch status.Code(err) {
	case codes.ResourceExhausted:
		return tooLarge()
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
