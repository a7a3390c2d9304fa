package manage

import (
	"context"
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	patdv1 "patd/gen/patd/v1"
)

// EachToken iterates over the tokens of a user. An error ends it, and is its last pair.
func (c *Client) EachToken(ctx context.Context, r *patdv1.ListTokensRequest) iter.Seq2[*patdv1.Token, error] {
	return each(ctx, r, c.Tokens.ListTokens, (*patdv1.ListTokensResponse).GetTokens)
}

// EachMatch iterates over the tokens of all users that a search finds.
func (c *Client) EachMatch(ctx context.Context, r *patdv1.SearchTokensRequest) iter.Seq2[*patdv1.Token, error] {
	return each(ctx, r, c.Inventory.SearchTokens, (*patdv1.SearchTokensResponse).GetTokens)
}

// EachUser iterates over users.
func (c *Client) EachUser(ctx context.Context, r *patdv1.ListUsersRequest) iter.Seq2[*patdv1.User, error] {
	return each(ctx, r, c.Users.ListUsers, (*patdv1.ListUsersResponse).GetUsers)
}

// EachFeature iterates over the features of the catalogue.
func (c *Client) EachFeature(ctx context.Context, r *patdv1.ListFeaturesRequest) iter.Seq2[*patdv1.Feature, error] {
	return each(ctx, r, c.Catalog.ListFeatures, (*patdv1.ListFeaturesResponse).GetFeatures)
}

// EachAudience iterates over audiences.
func (c *Client) EachAudience(ctx context.Context, r *patdv1.ListAudiencesRequest) iter.Seq2[*patdv1.Audience, error] {
	return each(ctx, r, c.Catalog.ListAudiences, (*patdv1.ListAudiencesResponse).GetAudiences)
}

// EachService iterates over services.
func (c *Client) EachService(ctx context.Context, r *patdv1.ListServicesRequest) iter.Seq2[*patdv1.Service, error] {
	return each(ctx, r, c.Services.ListServices, (*patdv1.ListServicesResponse).GetServices)
}

// EachWebhook iterates over webhooks.
func (c *Client) EachWebhook(ctx context.Context, r *patdv1.ListWebhooksRequest) iter.Seq2[*patdv1.Webhook, error] {
	return each(ctx, r, c.Webhooks.ListWebhooks, (*patdv1.ListWebhooksResponse).GetWebhooks)
}

// EachDelivery iterates over the deliveries of a webhook.
func (c *Client) EachDelivery(
	ctx context.Context,
	r *patdv1.ListWebhookDeliveriesRequest,
) iter.Seq2[*patdv1.WebhookDelivery, error] {
	return each(ctx, r, c.Webhooks.ListWebhookDeliveries, (*patdv1.ListWebhookDeliveriesResponse).GetDeliveries)
}

// EachEvent iterates over the audit log.
func (c *Client) EachEvent(ctx context.Context, r *patdv1.ListEventsRequest) iter.Seq2[*patdv1.Event, error] {
	return each(ctx, r, c.Audit.ListEvents, (*patdv1.ListEventsResponse).GetEvents)
}

// each iterates over all pages of a list, from where the request begins. It does not change the request.
func each[Q, R proto.Message, T any](
	ctx context.Context, request Q, list func(context.Context, Q, ...grpc.CallOption) (R, error), items func(R) []T,
) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		next, _ := proto.Clone(request).(Q)
		for {
			page, err := list(ctx, next)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range items(page) {
				if !yield(item, nil) {
					return
				}
			}
			at := text(page, "next_page_token", "after")
			if at == "" {
				return
			}
			fields := next.ProtoReflect().Descriptor().Fields()
			for _, name := range []protoreflect.Name{"page_token", "after"} {
				if f := fields.ByName(name); f != nil {
					next.ProtoReflect().Set(f, protoreflect.ValueOfString(at))
				}
			}
		}
	}
}

// text returns the first of some text fields that a message has.
func text(m proto.Message, names ...protoreflect.Name) string {
	for _, name := range names {
		if f := m.ProtoReflect().Descriptor().Fields().ByName(name); f != nil {
			return m.ProtoReflect().Get(f).String()
		}
	}
	return ""
}
