package introspect

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/receipt"
	"patd/server/internal/wire"
	"patd/tokens"
	"patd/tokens/secret"
)

// Service serves patd.v1.IntrospectionService. Its calls are made for each request to the company's APIs, so the
// hottest of them, Introspect, BatchIntrospect and IntrospectStream, bypass the generated code: their messages are read
// and written by hand (see Codec), and each call needs one object only. The steps of the chain are the same.
type Service struct {
	patdv1.UnimplementedIntrospectionServiceServer
	chain    *call.Chain
	service  *tokens.Service
	receipts *receipt.Board
}

var _ patdv1.IntrospectionServiceServer = (*Service)(nil)

// New makes the service behind a chain. Its watches are on a board.
func New(c *call.Chain, service *tokens.Service, receipts *receipt.Board) *Service {
	return &Service{chain: c, service: service, receipts: receipts}
}

// Register registers the service, with handlers of its own for the hot methods.
func Register(g call.Guard, s *Service) {
	desc := patdv1.IntrospectionService_ServiceDesc
	desc.Methods, desc.Streams = slices.Clone(desc.Methods), slices.Clone(desc.Streams)
	for i, m := range desc.Methods {
		switch "/" + desc.ServiceName + "/" + m.MethodName {
		case patdv1.IntrospectionService_Introspect_FullMethodName:
			desc.Methods[i].Handler = s.introspect
		case patdv1.IntrospectionService_BatchIntrospect_FullMethodName:
			desc.Methods[i].Handler = s.batch
		}
	}
	for i, m := range desc.Streams {
		if "/"+desc.ServiceName+"/"+m.StreamName == patdv1.IntrospectionService_IntrospectStream_FullMethodName {
			desc.Streams[i].Handler = s.stream
		}
	}
	g.RegisterService(&desc, s)
}

// hotCall is everything that one introspection needs.
type hotCall struct {
	call.Call
	request
	introspection
	few  few
	room tokens.Lists // of introspection
}

// introspect decides on one token.
func (s *Service) introspect(
	_ any,
	//nolint:revive // grpc.MethodHandler has it so
	ctx context.Context,
	_ func(any) error,
	_ grpc.UnaryServerInterceptor,
) (resp any, err error) {
	c, start := &hotCall{}, time.Now()
	c.Late.Timeout = s.chain.Timeout
	s.chain.Begin(&c.Call, ctx, s.chain.Methods[patdv1.IntrospectionService_Introspect_FullMethodName])
	defer func() { err = s.chain.End(&c.Call, start, recover(), err) }()
	if err := s.chain.Known(&c.Call); err != nil {
		return nil, err
	}
	c.required = c.few[:0]
	late := call.AwaitMessage(ctx, start, s.chain.Timeout)
	err = s.chain.Receive(ctx, &c.request)
	late.Stop()
	if err != nil {
		return nil, err
	}
	if err := s.answer(c); err != nil {
		return nil, err
	}
	return &c.introspection, nil
}

// answer completes a call that has begun.
func (s *Service) answer(c *hotCall) (err error) {
	if err := s.chain.AdmitHot(&c.Call, c.request.size); err != nil {
		return err
	}
	in, ok := c.toDomain()
	if !ok {
		return wire.ErrClientIP()
	}
	err = s.service.IntrospectInto(&c.Call, &c.Actor, &in, &c.Introspection, &c.room)
	c.Decision, c.Subject = c.Introspection.Decision, c.Introspection.SubjectID()
	c.TraceUser(c.Introspection.Token.User)
	return err
}

// batch decides on many tokens. An item whose client_ip is not an address is treated as one without, so that it does
// not fail the others.
func (s *Service) batch(
	_ any,
	//nolint:revive // grpc.MethodHandler has it so
	ctx context.Context,
	_ func(any) error,
	_ grpc.UnaryServerInterceptor,
) (resp any, err error) {
	start := time.Now()
	var q batchRequest
	c := &call.Call{}
	c.Late.Timeout = s.chain.Timeout
	s.chain.Begin(c, ctx, s.chain.Methods[patdv1.IntrospectionService_BatchIntrospect_FullMethodName])
	defer func() { err = s.chain.End(c, start, recover(), err) }()
	if err := s.chain.Known(c); err != nil {
		return nil, err
	}
	late := call.AwaitMessage(ctx, start, s.chain.Timeout)
	err = s.chain.Receive(ctx, &q)
	late.Stop()
	if err != nil {
		return nil, err
	}
	text := batchTexts.Get(0)
	err = s.decideAll(c, &q, func(in *tokens.Introspection) int {
		before := len(*text)
		*text = appendBatchItem(*text, in)
		return len(*text) - before
	})
	if err != nil {
		batchTexts.Put(text)
		return nil, err
	}
	return &batchResponse{text}, nil
}

// decideAll completes a call about many tokens that has begun. It passes the decisions to each, which returns how many
// bytes one takes; if it returns an error, none of them may be sent.
func (s *Service) decideAll(c *call.Call, q *batchRequest, each func(*tokens.Introspection) int) error {
	if err := s.chain.AdmitHot(c, q.size); err != nil {
		return err
	}
	in := make([]tokens.IntrospectRequest, len(q.items))
	for i := range q.items {
		in[i], _ = q.items[i].toDomain()
	}
	return s.service.IntrospectEach(c, &c.Actor, in, each)
}

// toDomain converts q, which must stay as it is meanwhile, for the domain; false: client_ip is not an address, and is
// treated as absent.
func (q *request) toDomain() (tokens.IntrospectRequest, bool) {
	in := tokens.IntrospectRequest{Secret: secret.SecretAt(&q.token), Audience: q.audience, Required: q.required}
	var ok bool
	in.ClientIP, ok = wire.FromIP(q.clientIP)
	return in, ok
}
