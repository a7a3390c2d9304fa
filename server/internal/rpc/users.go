package rpc

import (
	"context"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/receipt"
	"patd/tokens"
)

// userService serves patd.v1.UserService.
type userService struct {
	patdv1.UnimplementedUserServiceServer
	service  *tokens.Service
	receipts *receipt.Board
}

var _ patdv1.UserServiceServer = userService{}

// GetUser returns a user's state.
func (s userService) GetUser(ctx context.Context, r *patdv1.GetUserRequest) (*patdv1.GetUserResponse, error) {
	u, err := s.service.User(ctx, call.ActorOf(ctx), r.GetUser())
	if err != nil {
		return nil, err
	}
	return &patdv1.GetUserResponse{User: toUser(u)}, nil
}

// ListUsers lists users.
func (s userService) ListUsers(ctx context.Context, r *patdv1.ListUsersRequest) (*patdv1.ListUsersResponse, error) {
	state, err := fromEnum("STATE_UNKNOWN", "state", r.GetState(), patdv1.User_State_name)
	if err != nil {
		return nil, err
	}
	us, next, err := s.service.Users(
		ctx,
		call.ActorOf(ctx),
		tokens.UserFilter{State: tokens.UserState(state)},
		fromPage(r),
	)
	if err != nil {
		return nil, err
	}
	out := &patdv1.ListUsersResponse{NextPageToken: next}
	for _, u := range us {
		out.Users = append(out.Users, toUser(u))
	}
	return out, nil
}

// SuspendUser makes a user's tokens inactive.
func (s userService) SuspendUser(
	ctx context.Context,
	r *patdv1.SuspendUserRequest,
) (*patdv1.SuspendUserResponse, error) {
	w, err := waiterOf(ctx, s.receipts, r)
	if err != nil {
		return nil, err
	}
	u, err := s.service.SuspendUser(ctx, call.ActorOf(ctx), r.GetUser(), r.GetReason())
	if err != nil {
		return nil, err
	}
	out := toUser(u)
	out.Receipt = w.receipt(ctx)
	return &patdv1.SuspendUserResponse{User: out}, nil
}

// ResumeUser ends a suspension.
func (s userService) ResumeUser(ctx context.Context, r *patdv1.ResumeUserRequest) (*patdv1.ResumeUserResponse, error) {
	u, err := s.service.ResumeUser(ctx, call.ActorOf(ctx), r.GetUser(), r.GetReason())
	if err != nil {
		return nil, err
	}
	return &patdv1.ResumeUserResponse{User: toUser(u)}, nil
}

// DeleteUser deletes a user's data.
func (s userService) DeleteUser(ctx context.Context, r *patdv1.DeleteUserRequest) (*patdv1.DeleteUserResponse, error) {
	n, err := s.service.DeleteUser(ctx, call.ActorOf(ctx), r.GetUser(), r.GetReason())
	if err != nil {
		return nil, err
	}
	return &patdv1.DeleteUserResponse{RevokedCount: int32(n)}, nil
}

// RefreshUser removes a user's features from the cache.
func (s userService) RefreshUser(
	ctx context.Context,
	r *patdv1.RefreshUserRequest,
) (*patdv1.RefreshUserResponse, error) {
	if err := s.service.RefreshUser(ctx, call.ActorOf(ctx), r.GetUser()); err != nil {
		return nil, err
	}
	return &patdv1.RefreshUserResponse{}, nil
}

// GetUserFeatures returns a user's features.
func (s userService) GetUserFeatures(
	ctx context.Context,
	r *patdv1.GetUserFeaturesRequest,
) (*patdv1.GetUserFeaturesResponse, error) {
	held, err := s.service.UserFeatures(ctx, call.ActorOf(ctx), r.GetUser())
	if err != nil {
		return nil, err
	}
	return &patdv1.GetUserFeaturesResponse{Features: toFeatures(held.Features), Stale: held.Stale, Etag: held.ETag}, nil
}

// SetUserFeatures replaces a user's features. A REST request without a body is an error, not an empty set.
func (s userService) SetUserFeatures(
	ctx context.Context,
	r *patdv1.SetUserFeaturesRequest,
) (*patdv1.SetUserFeaturesResponse, error) {
	if call.Of(ctx).Header(call.KeyEmptyBody) != "" {
		return nil, tokens.Invalid(
			"BODY_REQUIRED",
			"features",
			"give the features that the user shall hold, or an empty list",
		)
	}
	held, err := s.service.SetUserFeatures(ctx, call.ActorOf(ctx), r.GetUser(), r.GetFeatures())
	if err != nil {
		return nil, err
	}
	return &patdv1.SetUserFeaturesResponse{Features: toFeatures(held.Features), Etag: held.ETag}, nil
}

// UpdateUserFeatures adds and removes features of a user.
func (s userService) UpdateUserFeatures(
	ctx context.Context,
	r *patdv1.UpdateUserFeaturesRequest,
) (*patdv1.UpdateUserFeaturesResponse, error) {
	held, err := s.service.UpdateUserFeatures(ctx, call.ActorOf(ctx), r.GetUser(), r.GetAdd(), r.GetRemove())
	if err != nil {
		return nil, err
	}
	return &patdv1.UpdateUserFeaturesResponse{Features: toFeatures(held.Features), Etag: held.ETag}, nil
}
