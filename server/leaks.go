package server

import (
	"context"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// leakService serves patd.v1.LeakService.
type leakService struct {
	patdv1.UnimplementedLeakServiceServer
	service *tokens.Service
}

var _ patdv1.LeakServiceServer = leakService{}

// ReportLeaks ends every live secret among those reported. Its answer never says whether there was one. What is longer than any
// secret is passed over by the domain, like all that is none.
func (s leakService) ReportLeaks(ctx context.Context, r *patdv1.ReportLeaksRequest) (*patdv1.ReportLeaksResponse, error) {
	found := make([]tokens.Secret, len(r.GetSecrets()))
	for i, text := range r.GetSecrets() {
		found[i] = tokens.NewSecret(text)
	}
	if err := s.service.ReportLeaks(ctx, actorOf(ctx), found); err != nil {
		return nil, err
	}
	return &patdv1.ReportLeaksResponse{}, nil
}
