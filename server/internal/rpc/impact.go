package rpc

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/wire"
	"patd/tokens"
)

// GetFeatureImpact says what would happen if users lost features.
func (s catalogService) GetFeatureImpact(
	ctx context.Context,
	r *patdv1.GetFeatureImpactRequest,
) (*patdv1.GetFeatureImpactResponse, error) {
	q := tokens.ImpactRequest{Lose: r.GetLose(), Users: r.GetUsers(), All: r.GetAll(), Page: fromCursor(r)}
	if r.GetUsedWithin() != nil {
		within, err := wire.FromDuration("used_within", r.GetUsedWithin())
		if err != nil {
			return nil, err
		}
		if q.Within = *within; q.Within <= 0 {
			q.Within = -1 // 0 is the default
		}
	}
	found, next, err := s.service.FeatureImpact(ctx, call.ActorOf(ctx), q)
	if err != nil {
		return nil, asCursor(err)
	}
	out := &patdv1.GetFeatureImpactResponse{
		TokenCount: found.Tokens, UserCount: found.Users, RecentlyUsedTokenCount: found.Recent, After: next,
		UnknownUseTokenCount: found.Unknown, ScopeUsesSince: wire.ToTime(found.RecordedSince),
		UsedSince: timestamppb.New(found.Since), UseBasis: patdv1.GetFeatureImpactResponse_TOKEN,
	}
	if found.ByScope {
		out.UseBasis = patdv1.GetFeatureImpactResponse_SCOPE
	}
	for _, f := range found.Features {
		out.Features = append(out.Features, &patdv1.FeatureImpact{
			Feature: f.Feature, TokenCount: f.Tokens, UserCount: f.Users, RecentlyUsedTokenCount: f.Recent,
			UnknownUseTokenCount: f.Unknown,
		})
	}
	for _, u := range found.Largest {
		out.Users = append(out.Users, toUserImpact(u))
	}
	return out, nil
}

func toUserImpact(u tokens.UserImpact) *patdv1.UserImpact {
	out := &patdv1.UserImpact{
		User:                   u.User,
		TokenCount:             u.Tokens,
		RecentlyUsedTokenCount: u.Recent,
		Features:               u.Features,
		UnknownUseTokenCount:   u.Unknown,
	}
	for _, t := range u.First {
		out.Tokens = append(out.Tokens, &patdv1.TokenImpact{
			TokenId:      t.ID.String(),
			Name:         t.Name,
			Features:     t.Features,
			RecentlyUsed: t.Recent,
			UseUnknown:   t.Unknown,
			LastUsedTime: wire.ToTime(t.LastUsed.Time),
		})
	}
	return out
}
