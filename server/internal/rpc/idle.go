package rpc

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/wire"
	"patd/tokens"
)

// GetIdlePreview says what the idle pause would do.
func (s inventoryService) GetIdlePreview(
	ctx context.Context,
	r *patdv1.GetIdlePreviewRequest,
) (*patdv1.GetIdlePreviewResponse, error) {
	q := tokens.IdlePreviewRequest{Limit: int(r.GetLimit())}
	if r.GetIdleTtl() != nil {
		idle, err := wire.FromDuration("idle_ttl", r.GetIdleTtl())
		if err != nil {
			return nil, err
		}
		if q.Idle = *idle; q.Idle <= 0 {
			q.Idle = -1 // 0 is the server's
		}
	}
	p, err := s.service.PreviewIdle(ctx, call.ActorOf(ctx), q)
	if err != nil {
		return nil, asCursor(err)
	}
	out := &patdv1.GetIdlePreviewResponse{
		IdleTtl: durationpb.New(
			p.Idle,
		),
		ActiveTokenCount:   p.Active,
		AnnounceTokenCount: p.Announce,
		WaitingTokenCount:  p.Waiting,
		PauseTokenCount:    p.Pause,
		UserCount:          p.Users,
		PausedTokenCount:   p.Paused,
	}
	for _, t := range p.Longest {
		out.Tokens = append(out.Tokens, &patdv1.IdleToken{
			TokenId:      t.ID.String(),
			User:         t.User,
			Name:         t.Name,
			LastUsedTime: wire.ToTime(t.LastUsed),
			PauseTime:    wire.ToTime(t.PauseTime),
		})
	}
	return out, nil
}
