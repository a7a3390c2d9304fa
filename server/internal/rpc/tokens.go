package rpc

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/httpx"
	"patd/server/internal/receipt"
	"patd/server/internal/wire"
	"patd/tokens"
	"patd/tokens/refusal"
)

// tokenService serves patd.v1.TokenService.
type tokenService struct {
	patdv1.UnimplementedTokenServiceServer
	service  *tokens.Service
	receipts *receipt.Board
}

var _ patdv1.TokenServiceServer = tokenService{}

// CreateToken mints a token.
func (s tokenService) CreateToken(
	ctx context.Context,
	r *patdv1.CreateTokenRequest,
) (*patdv1.CreateTokenResponse, error) {
	life, err := fromLifetime(r)
	if err != nil {
		return nil, err
	}
	key, err := idempotencyKey(call.Of(ctx).Headers(call.KeyIdempotency), r.GetRequestId())
	if err != nil {
		return nil, err
	}
	until, err := wire.FromTime("renewable_until", r.GetRenewableUntil())
	if err != nil {
		return nil, err
	}
	m, err := s.service.Mint(ctx, call.ActorOf(ctx), tokens.MintRequest{
		SelfRotate:     r.GetSelfRotate(),
		RenewableUntil: orZero(until),
		User:           r.GetUser(),
		Name:           r.GetName(),
		Description:    r.GetDescription(),
		Labels:         r.GetLabels(),
		Scopes:         r.GetScopes(),
		Audiences:      r.GetAudiences(),
		CIDRs:          r.GetAllowedCidrs(),
		Lifetime:       life,
		IdempotencyKey: key,
	})
	if err != nil {
		return nil, err
	}
	if err := markReplay(ctx, m.Replayed); err != nil {
		return nil, err
	}
	return &patdv1.CreateTokenResponse{Token: toToken(m.Token), Secret: m.Secret.Reveal()}, nil
}

// orZero returns the time that at points to; the zero time for nil.
func orZero(at *time.Time) time.Time {
	if at == nil {
		return time.Time{}
	}
	return *at
}

// markReplay marks a replayed response in its headers.
func markReplay(ctx context.Context, replayed bool) error {
	if !replayed {
		return nil
	}
	if err := grpc.SetHeader(ctx, metadata.Pairs(call.KeyReplayed, "true")); err != nil {
		return fmt.Errorf("mark a replay: %w", err)
	}
	return nil
}

// tellRenewal sets the headers that tell a bearer when its token expires, and where to renew it.
func tellRenewal(ctx context.Context, expire time.Time, renew string) error {
	headers := metadata.MD{}
	if at := refusal.Time(expire); at != "" {
		headers.Set(call.KeyExpiresAt, at)
	}
	if renew != "" {
		headers.Set(call.KeyRenew, renew)
	}
	if err := grpc.SetHeader(ctx, headers); err != nil {
		return fmt.Errorf("tell when the token expires: %w", err)
	}
	return nil
}

// idempotencyKey returns the key from the header or the request. Both may be given if they are equal.
func idempotencyKey(headers []string, requestID string) (string, error) {
	switch {
	case len(headers) == 0:
		return requestID, nil
	case len(headers) > 1 || headers[0] == "":
		return "", tokens.Invalid(
			"IDEMPOTENCY_KEY_INVALID",
			"request_id",
			"give one Idempotency-Key header that is not empty",
		)
	case requestID != "" && requestID != headers[0]:
		return "", tokens.Invalid(
			"IDEMPOTENCY_KEY_INVALID",
			"request_id",
			"differs from the Idempotency-Key header; give one of them",
		)
	}
	return headers[0], nil
}

// GetToken describes a token.
func (s tokenService) GetToken(ctx context.Context, r *patdv1.GetTokenRequest) (*patdv1.GetTokenResponse, error) {
	t, err := s.service.Token(ctx, call.ActorOf(ctx), r.GetUser(), r.GetTokenId())
	if err != nil {
		return nil, err
	}
	return &patdv1.GetTokenResponse{Token: toToken(t)}, nil
}

// ListTokens lists a user's tokens.
func (s tokenService) ListTokens(ctx context.Context, r *patdv1.ListTokensRequest) (*patdv1.ListTokensResponse, error) {
	state, err := fromEnum("STATE_UNKNOWN", "state", r.GetState(), patdv1.Token_State_name)
	if err != nil {
		return nil, err
	}
	ts, next, err := s.service.Tokens(ctx, call.ActorOf(ctx), tokens.TokenFilter{
		User: r.GetUser(), State: tokens.State(state), NameHas: r.GetQ(), Audience: r.GetAudience(),
	}, fromPage(r))
	if err != nil {
		return nil, err
	}
	return &patdv1.ListTokensResponse{Tokens: toTokens(ts), NextPageToken: next}, nil
}

// UpdateToken changes the fields in the update mask.
func (s tokenService) UpdateToken(
	ctx context.Context,
	r *patdv1.UpdateTokenRequest,
) (*patdv1.UpdateTokenResponse, error) {
	change, err := fromUpdate(r)
	if err != nil {
		return nil, err
	}
	t, err := s.service.UpdateToken(ctx, call.ActorOf(ctx), r.GetUser(), r.GetTokenId(), change)
	if err != nil {
		return nil, err
	}
	return &patdv1.UpdateTokenResponse{Token: toToken(t)}, nil
}

// fromUpdate reads the fields in the update mask. A field in the mask without a value is cleared.
func fromUpdate(r *patdv1.UpdateTokenRequest) (tokens.TokenChange, error) {
	var c tokens.TokenChange
	if strings.TrimSpace(r.GetUpdateMask()) == "" {
		return c, tokens.Invalid("UPDATE_MASK_REQUIRED", "update_mask", "name the fields to change, e.g. name,scopes")
	}
	t := r.GetToken()
	if t == nil {
		t = &patdv1.Token{}
	}
	for path := range strings.SplitSeq(r.GetUpdateMask(), ",") {
		switch path = strings.TrimSpace(path); path {
		case "name":
			c.Name = &t.Name
		case "description":
			c.Description = &t.Description
		case "labels":
			c.Labels = &t.Labels
		case "allowed_cidrs":
			c.CIDRs = &t.AllowedCidrs
		case "scopes":
			c.Scopes = &t.Scopes
		case "expire_time":
			at, err := wire.FromTime("token.expire_time", t.GetExpireTime())
			if err != nil {
				return c, err
			}
			if c.ExpireTime = at; at == nil {
				c.ExpireTime = new(time.Time) // never
			}
		case "self_rotate":
			c.SelfRotate = &t.SelfRotate
		case "renewable_until":
			at, err := wire.FromTime("token.renewable_until", t.GetRenewableUntil())
			if err != nil {
				return c, err
			}
			until := orZero(at)
			c.RenewableUntil = &until
		default:
			return c, tokens.Invalid("UPDATE_MASK_INVALID", "update_mask", maskText(path))
		}
	}
	return c, nil
}

// maskText describes the fault of a path in an update mask. It repeats the path only if it is a field name.
func maskText(path string) string {
	const can = "the fields that can be changed are name, description, labels, allowed_cidrs, scopes, expire_time, self_rotate and renewable_until"
	fields := (&patdv1.Token{}).ProtoReflect().Descriptor().Fields()
	names := make([]string, fields.Len())
	for i := range names {
		names[i] = string(fields.Get(i).Name())
	}
	if slices.Contains(names, path) {
		return path + " cannot be changed; " + can
	}
	if httpx.SafeName(path) {
		return "no field " + path + "; " + can
	}
	return can
}

// RotateToken gives a token a new secret.
func (s tokenService) RotateToken(
	ctx context.Context,
	r *patdv1.RotateTokenRequest,
) (*patdv1.RotateTokenResponse, error) {
	life, err := fromLifetime(r)
	if err != nil {
		return nil, err
	}
	how, err := fromRotation(ctx, r)
	if err != nil {
		return nil, err
	}
	t, err := s.service.Rotate(ctx, call.ActorOf(ctx), tokens.RotateRequest{
		User:           r.GetUser(),
		TokenID:        r.GetTokenId(),
		Grace:          how.grace,
		Lifetime:       life,
		Renew:          r.GetRenew(),
		DropUnheld:     r.GetDropUnheld(),
		Retire:         how.retire,
		Force:          r.GetForce(),
		IdempotencyKey: how.idempotencyKey,
	})
	if err != nil {
		return nil, err
	}
	if err := markReplay(ctx, t.Replayed); err != nil {
		return nil, err
	}
	return &patdv1.RotateTokenResponse{
		Token:                    toToken(t.Token),
		Secret:                   t.Secret.Reveal(),
		PreviousSecretExpireTime: wire.ToTime(t.PreviousUntil),
		ExpireTimeChange: patdv1.Rotation_ExpireTimeChange(
			t.Change,
		),
		RetirePrevious: patdv1.Rotation_RetirePrevious(t.Retire),
		DroppedScopes:  t.Dropped,
	}, nil
}

// CancelRotation puts a token back as it was before its rotation.
func (s tokenService) CancelRotation(
	ctx context.Context,
	r *patdv1.CancelRotationRequest,
) (*patdv1.CancelRotationResponse, error) {
	t, err := s.service.CancelRotation(ctx, call.ActorOf(ctx), r.GetUser(), r.GetTokenId())
	if err != nil {
		return nil, err
	}
	return &patdv1.CancelRotationResponse{Token: toToken(t)}, nil
}

// NarrowToken pauses scopes of a token.
func (s tokenService) NarrowToken(
	ctx context.Context,
	r *patdv1.NarrowTokenRequest,
) (*patdv1.NarrowTokenResponse, error) {
	unused, err := fromUnused(r)
	if err != nil {
		return nil, err
	}
	n, err := s.service.Narrow(ctx, call.ActorOf(ctx), tokens.NarrowRequest{
		User: r.GetUser(), TokenID: r.GetTokenId(), Scopes: r.GetScopes(), Unused: unused, DryRun: r.GetDryRun(),
	})
	if err != nil {
		return nil, err
	}
	return &patdv1.NarrowTokenResponse{
		Token: toToken(n.Token), NarrowedScopes: n.Scopes, ResumeUntil: wire.ToTime(n.End),
		UnscopedUses: toScopeUse(n.Uses.Unscoped),
	}, nil
}

// fromUnused reads how long a scope must not have been used to count as unused.
func fromUnused(r interface{ GetUnusedFor() *durationpb.Duration }) (tokens.Unused, error) {
	d, err := wire.FromDuration("unused_for", r.GetUnusedFor())
	switch {
	case err != nil || d == nil:
		return tokens.Unused{}, err
	case *d == 0:
		return tokens.Unused{}, tokens.Invalid(
			"UNUSED_FOR_INVALID",
			"unused_for",
			"must be more than nothing; left out: never used",
		)
	}
	return tokens.Unused{For: *d}, nil
}

// ResumeScopes has paused scopes in effect again.
func (s tokenService) ResumeScopes(
	ctx context.Context,
	r *patdv1.ResumeScopesRequest,
) (*patdv1.ResumeScopesResponse, error) {
	t, err := s.service.ResumeScopes(ctx, call.ActorOf(ctx), r.GetUser(), r.GetTokenId(), r.GetScopes())
	if err != nil {
		return nil, err
	}
	return &patdv1.ResumeScopesResponse{Token: toToken(t)}, nil
}

// ResumeToken ends the pause of a token that was not used.
func (s tokenService) ResumeToken(
	ctx context.Context,
	r *patdv1.ResumeTokenRequest,
) (*patdv1.ResumeTokenResponse, error) {
	t, err := s.service.ResumeToken(ctx, call.ActorOf(ctx), r.GetUser(), r.GetTokenId())
	if err != nil {
		return nil, err
	}
	return &patdv1.ResumeTokenResponse{Token: toToken(t)}, nil
}

// RevokeToken revokes a token.
func (s tokenService) RevokeToken(
	ctx context.Context,
	r *patdv1.RevokeTokenRequest,
) (*patdv1.RevokeTokenResponse, error) {
	w, err := waiterOf(ctx, s.receipts, r)
	if err != nil {
		return nil, err
	}
	t, err := s.service.Revoke(ctx, call.ActorOf(ctx), r.GetUser(), r.GetTokenId(), r.GetReason())
	if err != nil {
		return nil, err
	}
	return &patdv1.RevokeTokenResponse{Token: toToken(t), Receipt: w.receipt(ctx)}, nil
}

// RevokeTokens revokes all of a user's tokens.
func (s tokenService) RevokeTokens(
	ctx context.Context,
	r *patdv1.RevokeTokensRequest,
) (*patdv1.RevokeTokensResponse, error) {
	w, err := waiterOf(ctx, s.receipts, r)
	if err != nil {
		return nil, err
	}
	n, err := s.service.RevokeAll(ctx, call.ActorOf(ctx), r.GetUser(), r.GetReason())
	if err != nil {
		return nil, err
	}
	return &patdv1.RevokeTokensResponse{RevokedCount: int32(n), Receipt: w.receipt(ctx)}, nil
}
