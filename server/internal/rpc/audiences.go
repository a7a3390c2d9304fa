package rpc

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/tokens"
)

// CreateAudience adds an audience.
func (s catalogService) CreateAudience(
	ctx context.Context,
	r *patdv1.CreateAudienceRequest,
) (*patdv1.CreateAudienceResponse, error) {
	e, err := fromAudience(r.GetAudience(), r.GetAudience().GetId())
	if err != nil {
		return nil, err
	}
	if e, err = s.service.CreateAudience(ctx, call.ActorOf(ctx), e); err != nil {
		return nil, err
	}
	return &patdv1.CreateAudienceResponse{Audience: toAudience(e)}, nil
}

// GetAudience returns an audience.
func (s catalogService) GetAudience(
	ctx context.Context,
	r *patdv1.GetAudienceRequest,
) (*patdv1.GetAudienceResponse, error) {
	e, err := s.service.Audience(ctx, call.ActorOf(ctx), r.GetId())
	if err != nil {
		return nil, err
	}
	return &patdv1.GetAudienceResponse{Audience: toAudience(e)}, nil
}

// ReplaceAudience overwrites an audience.
func (s catalogService) ReplaceAudience(
	ctx context.Context,
	r *patdv1.ReplaceAudienceRequest,
) (*patdv1.ReplaceAudienceResponse, error) {
	e, err := fromAudience(r.GetAudience(), r.GetId())
	if err != nil {
		return nil, err
	}
	if e, err = s.service.ReplaceAudience(ctx, call.ActorOf(ctx), e); err != nil {
		return nil, err
	}
	return &patdv1.ReplaceAudienceResponse{Audience: toAudience(e)}, nil
}

// DeleteAudience removes an audience's entry.
func (s catalogService) DeleteAudience(
	ctx context.Context,
	r *patdv1.DeleteAudienceRequest,
) (*patdv1.DeleteAudienceResponse, error) {
	if err := s.service.DeleteAudience(ctx, call.ActorOf(ctx), r.GetId()); err != nil {
		return nil, err
	}
	return &patdv1.DeleteAudienceResponse{}, nil
}

// ListAudiences lists audiences.
func (s catalogService) ListAudiences(
	ctx context.Context,
	r *patdv1.ListAudiencesRequest,
) (*patdv1.ListAudiencesResponse, error) {
	found, next, err := s.service.Audiences(ctx, call.ActorOf(ctx), r.GetQ(), fromCursor(r))
	if err != nil {
		return nil, asCursor(err)
	}
	out := &patdv1.ListAudiencesResponse{After: next}
	for _, e := range found {
		out.Audiences = append(out.Audiences, toAudience(e))
	}
	return out, nil
}

// CheckAudience is the dry run of a policy.
func (s catalogService) CheckAudience(
	ctx context.Context,
	r *patdv1.CheckAudienceRequest,
) (*patdv1.CheckAudienceResponse, error) {
	var try *tokens.Policy
	if r.GetMaxTtl() != nil {
		ttl, err := fromTTL("max_ttl", r.GetMaxTtl())
		if err != nil {
			return nil, err
		}
		try = &tokens.Policy{MaxTTL: ttl, AllowNever: r.GetAllowNever()}
	}
	found, next, err := s.service.CheckAudience(
		ctx,
		call.ActorOf(ctx),
		r.GetId(),
		try,
		r.GetRequireNamed(),
		fromCursor(r),
	)
	if err != nil {
		return nil, asCursor(err)
	}
	out := &patdv1.CheckAudienceResponse{ExceedingCount: found.Count, UnnamedCount: found.Unnamed, After: next}
	for _, t := range found.Tokens {
		out.Tokens = append(out.Tokens, toExceeding(t, found.Now))
	}
	return out, nil
}

// BlockTokens blocks tokens that exceed an audience's policy.
func (s catalogService) BlockTokens(
	ctx context.Context,
	r *patdv1.BlockTokensRequest,
) (*patdv1.BlockTokensResponse, error) {
	done, left, err := s.service.BlockTokens(ctx, call.ActorOf(ctx), r.GetId(), r.GetReason())
	if err != nil {
		return nil, err
	}
	return &patdv1.BlockTokensResponse{BlockedCount: int32(done), RemainingCount: left}, nil
}

// UnblockTokens ends the blocks that an audience set.
func (s catalogService) UnblockTokens(
	ctx context.Context,
	r *patdv1.UnblockTokensRequest,
) (*patdv1.UnblockTokensResponse, error) {
	done, left, err := s.service.UnblockTokens(ctx, call.ActorOf(ctx), r.GetId(), r.GetReason())
	if err != nil {
		return nil, err
	}
	return &patdv1.UnblockTokensResponse{UnblockedCount: int32(done), RemainingCount: left}, nil
}

// fromAudience reads an audience to be stored under an id. It may omit its own id.
func fromAudience(a *patdv1.Audience, id string) (tokens.AudienceEntry, error) {
	switch {
	case a == nil:
		return tokens.AudienceEntry{}, tokens.Invalid(
			"ENTRY_REQUIRED",
			"audience",
			"give the audience; over REST it is the body",
		)
	case a.GetId() != "" && a.GetId() != id:
		return tokens.AudienceEntry{}, tokens.Invalid(
			"NAME_MISMATCH",
			"id",
			"differs from the id of the audience that is to be replaced; leave it out, or delete and create",
		)
	}
	e := tokens.AudienceEntry{
		ID: id, DisplayName: a.GetDisplayName(), Resource: a.GetResource(),
		AllowNever: a.GetAllowNever(), AllowOffline: a.GetAllowOfflineAccess(),
		RequireNamed: a.GetRequireNamed(),
	}
	for _, d := range []struct {
		to    *time.Duration
		field string
		given *durationpb.Duration
	}{
		{&e.DefaultTTL, "default_ttl", a.GetDefaultTtl()}, {&e.MaxTTL, "max_ttl", a.GetMaxTtl()}, {&e.AccessTTL, "access_token_ttl", a.GetAccessTokenTtl()},
	} {
		var err error
		if *d.to, err = fromTTL(d.field, d.given); err != nil {
			return tokens.AudienceEntry{}, err
		}
	}
	format, err := fromEnum(
		"ACCESS_TOKEN_FORMAT_UNKNOWN",
		"access_token_format",
		a.GetAccessTokenFormat(),
		patdv1.Audience_AccessTokenFormat_name,
	)
	e.AccessFormat = tokens.AccessFormat(format)
	return e, err
}

func toAudience(e tokens.AudienceEntry) *patdv1.Audience {
	return &patdv1.Audience{
		Id:                 e.ID,
		DisplayName:        e.DisplayName,
		Resource:           e.Resource,
		DefaultTtl:         toTTL(e.DefaultTTL),
		MaxTtl:             toTTL(e.MaxTTL),
		AllowNever:         e.AllowNever,
		AllowOfflineAccess: e.AllowOffline,
		AccessTokenTtl:     toTTL(e.AccessTTL),
		AccessTokenFormat:  patdv1.Audience_AccessTokenFormat(e.AccessFormat),
		RequireNamed:       e.RequireNamed,
		Etag:               e.ETag(),
	}
}

func toExceeding(t tokens.Token, now time.Time) *patdv1.ExceedingToken {
	out := &patdv1.ExceedingToken{TokenId: t.ID.String(), User: t.User, Name: t.Name, Blocked: len(t.Blockers()) > 0}
	if !t.ExpireTime.IsZero() {
		out.ExpiresIn = durationpb.New(tokens.WholeSeconds(t.ExpireTime.Sub(now)))
	}
	return out
}
