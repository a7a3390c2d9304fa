package server

import (
	"context"
	"net/netip"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// introspectionService serves patd.v1.IntrospectionService.
type introspectionService struct {
	patdv1.UnimplementedIntrospectionServiceServer
	service *tokens.Service
}

var _ patdv1.IntrospectionServiceServer = introspectionService{}

// Introspect decides about one token.
func (s introspectionService) Introspect(ctx context.Context, r *patdv1.IntrospectRequest) (*patdv1.IntrospectResponse, error) {
	in, ok := fromIntrospect(r)
	if !ok {
		return nil, tokens.Invalid("CLIENT_IP_INVALID", "client_ip", "must be an IPv4 or IPv6 address")
	}
	out, err := s.service.Introspect(ctx, actorOf(ctx), in)
	if err != nil {
		return nil, err
	}
	return toIntrospection(&out), nil
}

// BatchIntrospect decides about many. An item whose client_ip is no address counts as one without, so that it does not fail
// the rest.
func (s introspectionService) BatchIntrospect(ctx context.Context, r *patdv1.BatchIntrospectRequest) (*patdv1.BatchIntrospectResponse, error) {
	in := make([]tokens.IntrospectRequest, len(r.GetRequests()))
	for i, item := range r.GetRequests() {
		in[i], _ = fromIntrospect(item)
	}
	answers, err := s.service.IntrospectBatch(ctx, actorOf(ctx), in)
	if err != nil {
		return nil, err
	}
	out := &patdv1.BatchIntrospectResponse{Responses: make([]*patdv1.IntrospectResponse, len(answers))}
	for i := range answers {
		out.Responses[i] = toIntrospection(&answers[i])
	}
	return out, nil
}

// fromIntrospect reads a request; false: its client_ip is no address, and counts as absent. A zone means nothing away
// from its machine, so an address with one is none.
func fromIntrospect(r *patdv1.IntrospectRequest) (tokens.IntrospectRequest, bool) {
	in := tokens.IntrospectRequest{
		Secret: tokens.NewSecret(r.GetToken()), Audience: r.GetAudience(), Required: r.GetRequiredScopes(),
	}
	if r.GetClientIp() == "" {
		return in, true
	}
	a, err := netip.ParseAddr(r.GetClientIp())
	if err != nil || a.Zone() != "" {
		return in, false
	}
	in.ClientIP = a
	return in, true
}
