package rpc

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/wire"
	"patd/tokens"
)

// webhookService serves patd.v1.WebhookService.
type webhookService struct {
	patdv1.UnimplementedWebhookServiceServer
	service *tokens.Service
}

var _ patdv1.WebhookServiceServer = webhookService{}

// CreateWebhook adds a webhook.
func (s webhookService) CreateWebhook(
	ctx context.Context,
	r *patdv1.CreateWebhookRequest,
) (*patdv1.CreateWebhookResponse, error) {
	w, err := fromWebhook(r.GetWebhook(), r.GetWebhook().GetWebhookId())
	if err != nil {
		return nil, err
	}
	if w.IdempotencyKey, err = idempotencyKey(call.Of(ctx).Headers(call.KeyIdempotency), r.GetRequestId()); err != nil {
		return nil, err
	}
	m, err := s.service.CreateWebhook(ctx, call.ActorOf(ctx), w)
	if err != nil {
		return nil, err
	}
	if err := markReplay(ctx, m.Replayed); err != nil {
		return nil, err
	}
	return &patdv1.CreateWebhookResponse{Webhook: toMintedWebhook(m)}, nil
}

// GetWebhook returns a webhook.
func (s webhookService) GetWebhook(
	ctx context.Context,
	r *patdv1.GetWebhookRequest,
) (*patdv1.GetWebhookResponse, error) {
	w, err := s.service.Webhook(ctx, call.ActorOf(ctx), r.GetWebhookId())
	if err != nil {
		return nil, err
	}
	return &patdv1.GetWebhookResponse{Webhook: toWebhook(w)}, nil
}

// ReplaceWebhook overwrites a webhook.
func (s webhookService) ReplaceWebhook(
	ctx context.Context,
	r *patdv1.ReplaceWebhookRequest,
) (*patdv1.ReplaceWebhookResponse, error) {
	to, err := fromWebhook(r.GetWebhook(), r.GetWebhookId())
	if err != nil {
		return nil, err
	}
	w, err := s.service.ReplaceWebhook(ctx, call.ActorOf(ctx), to)
	if err != nil {
		return nil, err
	}
	return &patdv1.ReplaceWebhookResponse{Webhook: toWebhook(w)}, nil
}

// DeleteWebhook removes a webhook.
func (s webhookService) DeleteWebhook(
	ctx context.Context,
	r *patdv1.DeleteWebhookRequest,
) (*patdv1.DeleteWebhookResponse, error) {
	if err := s.service.DeleteWebhook(ctx, call.ActorOf(ctx), r.GetWebhookId()); err != nil {
		return nil, err
	}
	return &patdv1.DeleteWebhookResponse{}, nil
}

// ListWebhooks lists webhooks.
func (s webhookService) ListWebhooks(
	ctx context.Context,
	r *patdv1.ListWebhooksRequest,
) (*patdv1.ListWebhooksResponse, error) {
	found, next, err := s.service.Webhooks(ctx, call.ActorOf(ctx), fromCursor(r))
	if err != nil {
		return nil, asCursor(err)
	}
	out := &patdv1.ListWebhooksResponse{After: next}
	for _, w := range found {
		out.Webhooks = append(out.Webhooks, toWebhook(w))
	}
	return out, nil
}

// RotateWebhookSecret gives a webhook a new secret.
func (s webhookService) RotateWebhookSecret(
	ctx context.Context,
	r *patdv1.RotateWebhookSecretRequest,
) (*patdv1.RotateWebhookSecretResponse, error) {
	key, err := idempotencyKey(call.Of(ctx).Headers(call.KeyIdempotency), r.GetRequestId())
	if err != nil {
		return nil, err
	}
	m, err := s.service.RotateWebhookSecret(ctx, call.ActorOf(ctx), tokens.RotateWebhookRequest{
		ID: r.GetWebhookId(), Force: r.GetForce(), IdempotencyKey: key,
	})
	if err != nil {
		return nil, err
	}
	if err := markReplay(ctx, m.Replayed); err != nil {
		return nil, err
	}
	return &patdv1.RotateWebhookSecretResponse{Webhook: toMintedWebhook(m)}, nil
}

// TestWebhook sends a test to a webhook.
func (s webhookService) TestWebhook(
	ctx context.Context,
	r *patdv1.TestWebhookRequest,
) (*patdv1.TestWebhookResponse, error) {
	d, err := s.service.TestWebhook(ctx, call.ActorOf(ctx), r.GetWebhookId())
	if err != nil {
		return nil, err
	}
	return &patdv1.TestWebhookResponse{Delivery: toDelivery(d)}, nil
}

// ListWebhookDeliveries lists deliveries of a webhook.
func (s webhookService) ListWebhookDeliveries(
	ctx context.Context,
	r *patdv1.ListWebhookDeliveriesRequest,
) (*patdv1.ListWebhookDeliveriesResponse, error) {
	state, err := fromEnum("STATE_UNKNOWN", "state", r.GetState(), patdv1.WebhookDelivery_State_name)
	if err != nil {
		return nil, err
	}
	found, next, err := s.service.WebhookDeliveries(
		ctx,
		call.ActorOf(ctx),
		r.GetWebhookId(),
		tokens.WebhookDeliveryFilter{
			State: tokens.DeliveryState(state), Type: r.GetEventType(),
		},
		fromCursor(r),
	)
	if err != nil {
		return nil, asCursor(err)
	}
	out := &patdv1.ListWebhookDeliveriesResponse{After: next}
	for _, d := range found {
		out.Deliveries = append(out.Deliveries, toDelivery(d))
	}
	return out, nil
}

// GetWebhookDelivery returns a delivery.
func (s webhookService) GetWebhookDelivery(
	ctx context.Context,
	r *patdv1.GetWebhookDeliveryRequest,
) (*patdv1.GetWebhookDeliveryResponse, error) {
	d, err := s.service.WebhookDelivery(ctx, call.ActorOf(ctx), r.GetWebhookId(), r.GetDeliveryId())
	if err != nil {
		return nil, err
	}
	return &patdv1.GetWebhookDeliveryResponse{Delivery: toDelivery(d)}, nil
}

// RedeliverWebhook sends a delivery again.
func (s webhookService) RedeliverWebhook(
	ctx context.Context,
	r *patdv1.RedeliverWebhookRequest,
) (*patdv1.RedeliverWebhookResponse, error) {
	d, err := s.service.Redeliver(ctx, call.ActorOf(ctx), r.GetWebhookId(), r.GetDeliveryId())
	if err != nil {
		return nil, err
	}
	return &patdv1.RedeliverWebhookResponse{Delivery: toDelivery(d)}, nil
}

// fromWebhook reads what a webhook under an id is to be. It may omit its own id.
func fromWebhook(w *patdv1.Webhook, id string) (tokens.WebhookRequest, error) {
	switch {
	case w == nil:
		return tokens.WebhookRequest{}, tokens.Invalid(
			"ENTRY_REQUIRED",
			"webhook",
			"give the webhook; over REST it is the body",
		)
	case w.GetWebhookId() != "" && w.GetWebhookId() != id:
		return tokens.WebhookRequest{}, tokens.Invalid("NAME_MISMATCH", "webhook_id",
			"differs from the id of the webhook that is to be replaced; leave it out, or delete and create")
	}
	return tokens.WebhookRequest{
		ID: id, URL: w.GetUrl(), Description: w.GetDescription(), Enabled: w.Enabled == nil || w.GetEnabled(),
		Filter: tokens.WebhookFilter{
			Types: w.GetEventTypes(), Users: w.GetUsers(), Audiences: w.GetAudiences(), Labels: w.GetLabels(),
		},
	}, nil
}

// toWebhook writes a webhook, without its secret.
func toWebhook(w tokens.Webhook) *patdv1.Webhook {
	out := &patdv1.Webhook{
		WebhookId: w.ID, Url: w.URL, Description: w.Description, Enabled: &w.Enabled,
		EventTypes: w.Filter.Types, Users: w.Filter.Users, Audiences: w.Filter.Audiences, Labels: w.Filter.Labels,
		CreateTime: wire.ToTime(w.CreateTime), UpdateTime: wire.ToTime(w.UpdateTime),
		DisableTime: wire.ToTime(w.DisableTime), DisableReason: w.DisableReason, Etag: w.ETag(),
	}
	if !w.OldSecret.IsZero() && w.AsOf.Before(w.OldUntil) {
		out.PreviousSecretExpireTime = wire.ToTime(w.OldUntil)
	}
	return out
}

func toMintedWebhook(m tokens.MintedWebhook) *patdv1.Webhook {
	out := toWebhook(m.Webhook)
	out.Secret = m.Secret.Reveal()
	return out
}

func toDelivery(d tokens.WebhookDelivery) *patdv1.WebhookDelivery {
	out := &patdv1.WebhookDelivery{
		DeliveryId: d.ID.String(),
		EventType:  d.Type,
		Subject:    d.Subject,
		State:      patdv1.WebhookDelivery_State(d.State),
		CreateTime: wire.ToTime(
			d.CreateTime,
		),
		NextAttemptTime: wire.ToTime(d.NextTime),
		EndTime:         wire.ToTime(d.EndTime),
		Attempts:        d.Attempts,
		LastAttemptTime: wire.ToTime(d.AttemptTime),
		LastStatus:      int32(d.Status),
		LastError:       d.Error,
	}
	if d.Item < tokens.TestItem {
		out.EventId = d.Seq
	}
	if !d.AttemptTime.IsZero() {
		out.LastDuration = durationpb.New(d.Duration)
	}
	return out
}
