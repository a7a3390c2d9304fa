package rpc

import (
	"context"
	"strings"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/wire"
	"patd/tokens"
	"patd/tokens/secret"
)

// leakService serves patd.v1.LeakService.
type leakService struct {
	patdv1.UnimplementedLeakServiceServer
	service *tokens.Service
}

var _ patdv1.LeakServiceServer = leakService{}

// ReportLeaks revokes every live secret in a report. The response lists malformed items, but never reports whether a
// secret was live.
func (s leakService) ReportLeaks(
	ctx context.Context,
	r *patdv1.ReportLeaksRequest,
) (*patdv1.ReportLeaksResponse, error) {
	found := make([]tokens.Secret, len(r.GetSecrets()))
	for i, text := range r.GetSecrets() {
		found[i] = secret.NewSecret(text)
	}
	if err := s.service.ReportLeaks(ctx, call.ActorOf(ctx), found); err != nil {
		return nil, err
	}
	return &patdv1.ReportLeaksResponse{Malformed: malformed(r)}, nil
}

// malformed returns the items of a report that contain lostText, as no secret does; nil: there are none.
func malformed(r *patdv1.ReportLeaksRequest) *patdv1.ReportLeaksResponse_Malformed {
	var out patdv1.ReportLeaksResponse_Malformed
	for i, text := range r.GetSecrets() {
		if strings.Contains(text, wire.LostText) {
			out.Items = append(out.Items, int32(i))
		}
	}
	if len(out.GetItems()) == 0 {
		return nil
	}
	return &out
}
