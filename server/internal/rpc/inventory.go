package rpc

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/wire"
	"patd/tokens"
)

// inventoryService serves patd.v1.InventoryService.
type inventoryService struct {
	patdv1.UnimplementedInventoryServiceServer
	service *tokens.Service
}

var _ patdv1.InventoryServiceServer = inventoryService{}

// SearchTokens lists tokens of all users.
func (s inventoryService) SearchTokens(
	ctx context.Context,
	r *patdv1.SearchTokensRequest,
) (*patdv1.SearchTokensResponse, error) {
	f, err := fromFilter("", r)
	if err != nil {
		return nil, err
	}
	ts, next, err := s.service.Inventory(ctx, call.ActorOf(ctx), f, r.GetOrder(), fromPage(r))
	if err != nil {
		return nil, err
	}
	return &patdv1.SearchTokensResponse{Tokens: toTokens(ts), NextPageToken: next}, nil
}

// BulkRevokeTokens ends the tokens that a filter selects, or says how many these are.
func (s inventoryService) BulkRevokeTokens(
	ctx context.Context,
	r *patdv1.BulkRevokeTokensRequest,
) (*patdv1.BulkRevokeTokensResponse, error) {
	f, err := fromFilter("filter.", r.GetFilter())
	if err != nil {
		return nil, err
	}
	switch {
	case r.GetDryRun() == (r.GetPlan() != ""):
		return nil, tokens.Invalid(
			"PLAN_REQUIRED",
			"plan",
			"give dry_run: true to see how many tokens it would be, or the plan of such an answer to revoke them",
		)
	case r.GetDryRun():
		p, err := s.service.PlanRevocation(ctx, call.ActorOf(ctx), f)
		if err != nil {
			return nil, err
		}
		return &patdv1.BulkRevokeTokensResponse{
			Count:          p.Count,
			Plan:           p.Plan,
			PlanExpireTime: wire.ToTime(p.ExpireTime),
		}, nil
	}
	b, err := s.service.BulkRevoke(
		ctx,
		call.ActorOf(ctx),
		tokens.BulkRequest{Filter: f, Reason: r.GetReason(), Plan: r.GetPlan()},
	)
	if err != nil {
		return nil, err
	}
	return &patdv1.BulkRevokeTokensResponse{
		Count:        b.Count,
		Plan:         r.GetPlan(),
		RevokedCount: b.Revoked,
		Done:         !b.EndTime.IsZero(),
	}, nil
}

// BulkNarrowTokens pauses the unused scopes of the tokens that a filter selects, or says how many these are.
func (s inventoryService) BulkNarrowTokens(
	ctx context.Context,
	r *patdv1.BulkNarrowTokensRequest,
) (*patdv1.BulkNarrowTokensResponse, error) {
	f, err := fromFilter("filter.", r.GetFilter())
	if err != nil {
		return nil, err
	}
	unused, err := fromUnused(r)
	if err != nil {
		return nil, err
	}
	ask := tokens.NarrowManyRequest{Filter: f, Unused: unused, Unscoped: r.GetIncludeUnscoped(), Plan: r.GetPlan()}
	switch {
	case r.GetDryRun() == (r.GetPlan() != ""):
		return nil, tokens.Invalid(
			"PLAN_REQUIRED",
			"plan",
			"give dry_run: true to see what would be paused, or the plan of such an answer to pause it",
		)
	case r.GetDryRun():
		p, err := s.service.PlanNarrowing(ctx, call.ActorOf(ctx), ask)
		if err != nil {
			return nil, err
		}
		return &patdv1.BulkNarrowTokensResponse{
			Count: p.Count, ScopeCount: p.Scopes, NotRecordedCount: p.NotRecorded, UnscopedCount: p.HasUnscoped,
			Plan: p.Plan.Plan, PlanExpireTime: wire.ToTime(p.ExpireTime),
		}, nil
	}
	n, err := s.service.NarrowMany(ctx, call.ActorOf(ctx), ask)
	if err != nil {
		return nil, err
	}
	return &patdv1.BulkNarrowTokensResponse{
		Count:            n.Count,
		Plan:             r.GetPlan(),
		NarrowedCount:    n.Narrowed,
		PausedScopeCount: n.Scopes,
		Done:             !n.EndTime.IsZero(),
	}, nil
}

// filter is a request that selects tokens, or a part of one.
type filter interface {
	GetUser() string
	GetState() patdv1.Token_State
	GetScope() string
	GetAudience() string
	GetLabel() map[string]string
	GetExpiresBefore() *timestamppb.Timestamp
	GetUnusedSince() *timestamppb.Timestamp
	GetCreatedBefore() *timestamppb.Timestamp
	GetQ() string
}

// fromFilter reads a filter whose fields have names that begin with at.
func fromFilter(at string, r filter) (tokens.Filter, error) {
	state, err := fromEnum("STATE_UNKNOWN", at+"state", r.GetState(), patdv1.Token_State_name)
	if err != nil {
		return tokens.Filter{}, err
	}
	f := tokens.Filter{
		User:     r.GetUser(),
		State:    tokens.State(state),
		Scope:    r.GetScope(),
		Audience: r.GetAudience(),
		Labels:   r.GetLabel(),
		NameHas:  r.GetQ(),
	}
	for _, t := range []struct {
		name string
		from *timestamppb.Timestamp
		to   *time.Time
	}{
		{"expires_before", r.GetExpiresBefore(), &f.ExpiresBefore}, {"unused_since", r.GetUnusedSince(), &f.UnusedSince},
		{"created_before", r.GetCreatedBefore(), &f.CreatedBefore},
	} {
		given, err := wire.FromTime(at+t.name, t.from)
		switch {
		case err != nil:
			return tokens.Filter{}, err
		case given == nil:
		case given.IsZero(): // it would select all
			return tokens.Filter{}, tokens.Invalid(
				"TIME_INVALID",
				at+t.name,
				"must be later than the first instant of the year 1",
			)
		default:
			*t.to = *given
		}
	}
	return f, nil
}
