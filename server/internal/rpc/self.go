package rpc

import (
	"context"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/wire"
	"patd/tokens"
)

// selfService serves patd.v1.SelfService.
type selfService struct {
	patdv1.UnimplementedSelfServiceServer
	service *tokens.Service
}

var _ patdv1.SelfServiceServer = selfService{}

// GetSelf describes the presented token.
func (s selfService) GetSelf(ctx context.Context, _ *patdv1.GetSelfRequest) (*patdv1.GetSelfResponse, error) {
	self, err := s.service.Self(ctx, call.ActorOf(ctx))
	if err != nil {
		return nil, err
	}
	if err := tellRenewal(ctx, self.ExpireTime, s.service.RenewURL(self.ExpireTime)); err != nil {
		return nil, err
	}
	return &patdv1.GetSelfResponse{
		Token: toToken(self.Token), EffectiveScopes: self.Token.InEffect.Effective,
		SuspendedScopes: self.Token.InEffect.Suspended,
	}, nil
}

// RevokeSelf revokes the presented token.
func (s selfService) RevokeSelf(ctx context.Context, r *patdv1.RevokeSelfRequest) (*patdv1.RevokeSelfResponse, error) {
	t, err := s.service.RevokeSelf(ctx, call.ActorOf(ctx), r.GetReason())
	if err != nil {
		return nil, err
	}
	return &patdv1.RevokeSelfResponse{Token: toToken(t)}, nil
}

// RotateSelf gives the presented token a new secret.
func (s selfService) RotateSelf(ctx context.Context, r *patdv1.RotateSelfRequest) (*patdv1.RotateSelfResponse, error) {
	how, err := fromRotation(ctx, r)
	if err != nil {
		return nil, err
	}
	t, err := s.service.RotateSelf(ctx, call.ActorOf(ctx), tokens.RotateSelfRequest{
		Grace: how.grace, Retire: how.retire, Renew: r.GetRenew(), IdempotencyKey: how.idempotencyKey,
	})
	if err != nil {
		return nil, err
	}
	if err := markReplay(ctx, t.Replayed); err != nil {
		return nil, err
	}
	if err := tellRenewal(ctx, t.Token.ExpireTime, s.service.RenewURL(t.Token.ExpireTime)); err != nil {
		return nil, err
	}
	return &patdv1.RotateSelfResponse{
		Token:                    toToken(t.Token),
		Secret:                   t.Secret.Reveal(),
		PreviousSecretExpireTime: wire.ToTime(t.PreviousUntil),
		ExpireTimeChange: patdv1.Rotation_ExpireTimeChange(
			t.Change,
		),
		RetirePrevious: patdv1.Rotation_RetirePrevious(t.Retire),
	}, nil
}
