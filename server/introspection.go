package server

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// introspectionService serves patd.v1.IntrospectionService. Its calls are made for each request that the company's APIs
// serve, so the hottest of them, Introspect, BatchIntrospect and IntrospectStream, do not pass through the generated code:
// their messages are read and written by hand (see codec), and what a call needs is one object. The chain's steps are the
// same.
type introspectionService struct {
	patdv1.UnimplementedIntrospectionServiceServer
	chain   *chain
	service *tokens.Service
}

var _ patdv1.IntrospectionServiceServer = (*introspectionService)(nil)

func newIntrospection(c *chain, service *tokens.Service) *introspectionService {
	return &introspectionService{chain: c, service: service}
}

// registerIntrospection registers the service, with handlers of its own where the generated ones would do too much.
func registerIntrospection(g guard, s *introspectionService) {
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

// hotCall is all that one introspection needs.
type hotCall struct {
	call
	question
	introspection
	awaited awaitedCall
}

// introspect decides about one token.
func (s *introspectionService) introspect(_ any, ctx context.Context, _ func(any) error, _ grpc.UnaryServerInterceptor) (resp any, err error) { //nolint:revive // grpc.MethodHandler has it so
	c, start := &hotCall{}, time.Now()
	c.late.timeout = s.chain.timeout
	s.chain.begin(&c.call, ctx, s.chain.methods[patdv1.IntrospectionService_Introspect_FullMethodName])
	defer func() { err = s.chain.end(&c.call, start, recover(), err) }()
	if err := s.chain.known(&c.call); err != nil {
		return nil, err
	}
	s.chain.awaited.add(ctx, &c.awaited, start)
	err = s.chain.receive(ctx, &c.question)
	c.awaited.remove()
	if err != nil {
		return nil, err
	}
	if err := s.answer(c); err != nil {
		return nil, err
	}
	return &c.introspection, nil
}

// answer takes a call that has begun to its end.
func (s *introspectionService) answer(c *hotCall) (err error) {
	if err := s.chain.admitHot(&c.call, c.question.size); err != nil {
		return err
	}
	in, ok := c.request()
	if !ok {
		return errClientIP()
	}
	c.Introspection, err = s.service.Introspect(&c.call, c.actor, in)
	return err
}

// batch decides about many. An item whose client_ip is no address counts as one without, so that it does not fail
// the rest.
func (s *introspectionService) batch(_ any, ctx context.Context, _ func(any) error, _ grpc.UnaryServerInterceptor) (resp any, err error) { //nolint:revive // grpc.MethodHandler has it so
	start := time.Now()
	var q batchQuestion
	c := &call{}
	c.late.timeout = s.chain.timeout
	s.chain.begin(c, ctx, s.chain.methods[patdv1.IntrospectionService_BatchIntrospect_FullMethodName])
	defer func() { err = s.chain.end(c, start, recover(), err) }()
	if err := s.chain.known(c); err != nil {
		return nil, err
	}
	var a awaitedCall
	s.chain.awaited.add(ctx, &a, start)
	err = s.chain.receive(ctx, &q)
	a.remove()
	if err != nil {
		return nil, err
	}
	answers, err := s.answers(c, &q)
	if err != nil {
		return nil, err
	}
	return &batchAnswer{answers}, nil
}

// answers takes a call about many tokens, which has begun, to its end.
func (s *introspectionService) answers(c *call, q *batchQuestion) ([]tokens.Introspection, error) {
	if err := s.chain.admitHot(c, q.size); err != nil {
		return nil, err
	}
	in := make([]tokens.IntrospectRequest, len(q.items))
	for i := range q.items {
		in[i], _ = q.items[i].request()
	}
	return s.service.IntrospectBatch(c, c.actor, in)
}

// request is the question as the domain takes it; false: its client_ip is no address, and counts as absent.
func (q *question) request() (tokens.IntrospectRequest, bool) {
	in := tokens.IntrospectRequest{Secret: tokens.NewSecret(q.token), Audience: q.audience, Required: q.required}
	var ok bool
	in.ClientIP, ok = fromIP(q.clientIP)
	return in, ok
}
