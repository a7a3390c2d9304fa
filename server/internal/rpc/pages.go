package rpc

import (
	"context"
	"net/url"
	"strings"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/wire"
	"patd/tokens"
)

// pageService serves patd.v1.PageService.
type pageService struct {
	patdv1.UnimplementedPageServiceServer
	service *tokens.Service
	issuer  string
}

var _ patdv1.PageServiceServer = pageService{}

// CreatePageSession makes an address that signs a browser in to the page.
func (s pageService) CreatePageSession(
	ctx context.Context,
	r *patdv1.CreatePageSessionRequest,
) (*patdv1.CreatePageSessionResponse, error) {
	ttl, err := wire.FromDuration("ttl", r.GetTtl())
	if err != nil {
		return nil, err
	}
	h, code, err := s.service.HandOff(
		ctx,
		call.ActorOf(ctx),
		tokens.HandoffRequest{User: r.GetUser(), TTL: ttl, ReturnURL: r.GetReturnUrl()},
	)
	if err != nil {
		return nil, err
	}
	return &patdv1.CreatePageSessionResponse{
		Url: HandoffURL(
			s.issuer,
			code,
		),
		ExpireTime:        wire.ToTime(h.ExpireTime),
		SessionExpireTime: wire.ToTime(h.SessionExpireTime),
	}, nil
}

// HandoffURL returns the address at which the code of a hand-off signs a browser in, below the issuer.
func HandoffURL(issuer string, code tokens.Secret) string {
	return strings.TrimRight(issuer, "/") + "/handoff?code=" + url.QueryEscape(code.Reveal())
}
