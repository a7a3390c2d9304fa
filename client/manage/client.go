package manage

import (
	"context"
	"time"

	"google.golang.org/grpc"

	patdv1 "patd/gen/patd/v1"
)

// Config configures a [Client]. The zero Config is sensible.
type Config struct {
	// Attempts is how often a call is made at most. 0: 5. 1: calls are not repeated.
	Attempts int
	// AttemptTimeout bounds one attempt. The context of a call bounds all of them. 0: 15 seconds.
	AttemptTimeout time.Duration
	// MaxPause bounds one pause between two attempts. If patd asks for a longer one, the call fails, with
	// [Error].RetryAfter. 0: 10 seconds.
	MaxPause time.Duration
}

// Client has the services of patd. It is safe for concurrent use.
type Client struct {
	Tokens    patdv1.TokenServiceClient
	Self      patdv1.SelfServiceClient
	Inventory patdv1.InventoryServiceClient
	Users     patdv1.UserServiceClient
	Catalog   patdv1.CatalogServiceClient
	Services  patdv1.ServiceAccountServiceClient
	Webhooks  patdv1.WebhookServiceClient
	Audit     patdv1.AuditServiceClient
	Pages     patdv1.PageServiceClient
	SignIn    patdv1.SignInServiceClient
	Leaks     patdv1.LeakServiceClient
}

// New makes a Client over a connection that carries a credential: see client.Dial. The caller owns the connection.
func New(conn grpc.ClientConnInterface, config Config) *Client {
	c := Safe(conn, config)
	return &Client{
		Tokens: patdv1.NewTokenServiceClient(
			c,
		),
		Self:      patdv1.NewSelfServiceClient(c),
		Inventory: patdv1.NewInventoryServiceClient(c),
		Users:     patdv1.NewUserServiceClient(c),
		Catalog:   patdv1.NewCatalogServiceClient(c),
		Services:  patdv1.NewServiceAccountServiceClient(c),
		Webhooks:  patdv1.NewWebhookServiceClient(c),
		Audit: patdv1.NewAuditServiceClient(
			c,
		),
		Pages:  patdv1.NewPageServiceClient(c),
		SignIn: patdv1.NewSignInServiceClient(c),
		Leaks:  patdv1.NewLeakServiceClient(c),
	}
}

// Safe returns a connection whose calls are repeated, have idempotency keys and fail with an [*Error]. Streams pass as
// they are.
func Safe(conn grpc.ClientConnInterface, config Config) grpc.ClientConnInterface {
	if config.Attempts <= 0 {
		config.Attempts = 5
	}
	if config.AttemptTimeout <= 0 {
		config.AttemptTimeout = 15 * time.Second
	}
	if config.MaxPause <= 0 {
		config.MaxPause = 10 * time.Second
	}
	return &safe{conn: conn, config: config}
}

// safe is the connection of a Client.
type safe struct {
	conn   grpc.ClientConnInterface
	config Config
}

var _ grpc.ClientConnInterface = (*safe)(nil)

// NewStream opens a stream as it is.
func (s *safe) NewStream(
	ctx context.Context,
	desc *grpc.StreamDesc,
	method string,
	opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	return s.conn.NewStream(ctx, desc, method, opts...)
}
