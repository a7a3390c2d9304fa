package rpc

import (
	"context"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/wire"
	"patd/tokens"
)

// accountService serves patd.v1.ServiceAccountService.
type accountService struct {
	patdv1.UnimplementedServiceAccountServiceServer
	service *tokens.Service
}

var _ patdv1.ServiceAccountServiceServer = accountService{}

// CreateService mints a service token.
func (s accountService) CreateService(
	ctx context.Context,
	r *patdv1.CreateServiceRequest,
) (*patdv1.CreateServiceResponse, error) {
	ttl, err := wire.FromDuration("ttl", r.GetTtl())
	if err != nil {
		return nil, err
	}
	key, err := idempotencyKey(call.Of(ctx).Headers(call.KeyIdempotency), r.GetRequestId())
	if err != nil {
		return nil, err
	}
	m, err := s.service.CreateService(ctx, call.ActorOf(ctx), tokens.ServiceRequest{
		Name: r.GetName(), Permissions: r.GetPermissions(), Audience: r.GetAudience(), TTL: ttl, IdempotencyKey: key,
	})
	if err != nil {
		return nil, err
	}
	if err := markReplay(ctx, m.Replayed); err != nil {
		return nil, err
	}
	return &patdv1.CreateServiceResponse{Service: toService(m.Service), Secret: m.Secret.Reveal()}, nil
}

// ListServices lists services.
func (s accountService) ListServices(
	ctx context.Context,
	r *patdv1.ListServicesRequest,
) (*patdv1.ListServicesResponse, error) {
	accounts, next, err := s.service.Services(ctx, call.ActorOf(ctx), fromPage(r))
	if err != nil {
		return nil, err
	}
	out := &patdv1.ListServicesResponse{NextPageToken: next}
	for _, a := range accounts {
		out.Services = append(out.Services, toService(a))
	}
	return out, nil
}

// RotateService gives a service a new secret.
func (s accountService) RotateService(
	ctx context.Context,
	r *patdv1.RotateServiceRequest,
) (*patdv1.RotateServiceResponse, error) {
	grace, err := wire.FromDuration("grace", r.GetGrace())
	if err != nil {
		return nil, err
	}
	ttl, err := wire.FromDuration("ttl", r.GetTtl())
	if err != nil {
		return nil, err
	}
	key, err := idempotencyKey(call.Of(ctx).Headers(call.KeyIdempotency), r.GetRequestId())
	if err != nil {
		return nil, err
	}
	m, err := s.service.RotateService(ctx, call.ActorOf(ctx), tokens.RotateServiceRequest{
		Name: r.GetName(), Grace: grace, TTL: ttl, Force: r.GetForce(), IdempotencyKey: key,
	})
	if err != nil {
		return nil, err
	}
	if err := markReplay(ctx, m.Replayed); err != nil {
		return nil, err
	}
	return &patdv1.RotateServiceResponse{
		Service: toService(m.Service), Secret: m.Secret.Reveal(),
		PreviousSecretExpireTime: wire.ToTime(m.PreviousUntil),
	}, nil
}

// RevokeService revokes a service's token.
func (s accountService) RevokeService(
	ctx context.Context,
	r *patdv1.RevokeServiceRequest,
) (*patdv1.RevokeServiceResponse, error) {
	a, err := s.service.RevokeService(ctx, call.ActorOf(ctx), r.GetName(), r.GetReason())
	if err != nil {
		return nil, err
	}
	return &patdv1.RevokeServiceResponse{Service: toService(a)}, nil
}

// auditService serves patd.v1.AuditService.
type auditService struct {
	patdv1.UnimplementedAuditServiceServer
	service *tokens.Service
}

var _ patdv1.AuditServiceServer = auditService{}

// ListEvents lists audit events.
func (s auditService) ListEvents(ctx context.Context, r *patdv1.ListEventsRequest) (*patdv1.ListEventsResponse, error) {
	events, next, err := s.service.Events(ctx, call.ActorOf(ctx), tokens.EventFilter{
		User: r.GetUser(), TokenID: r.GetTokenId(), Actor: r.GetActor(), Action: r.GetAction(),
	}, fromPage(r))
	if err != nil {
		return nil, err
	}
	out := &patdv1.ListEventsResponse{NextPageToken: next}
	for _, e := range events {
		out.Events = append(out.Events, toEvent(e))
	}
	return out, nil
}
