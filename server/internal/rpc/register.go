package rpc

import (
	"google.golang.org/grpc"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/receipt"
	"patd/tokens"
)

// Register registers the management services of patd.v1: all but introspection. receipts is where calls wait until a
// change is in effect everywhere; issuer is the base of addresses; signIn may be nil.
func Register(g grpc.ServiceRegistrar, svc *tokens.Service, receipts *receipt.Board, issuer string, signIn *SignIn) {
	patdv1.RegisterTokenServiceServer(g, tokenService{service: svc, receipts: receipts})
	patdv1.RegisterSelfServiceServer(g, selfService{service: svc})
	patdv1.RegisterUserServiceServer(g, userService{service: svc, receipts: receipts})
	patdv1.RegisterServiceAccountServiceServer(g, accountService{service: svc})
	patdv1.RegisterInventoryServiceServer(g, inventoryService{service: svc})
	patdv1.RegisterAuditServiceServer(g, auditService{service: svc})
	patdv1.RegisterCatalogServiceServer(g, catalogService{service: svc})
	patdv1.RegisterLeakServiceServer(g, leakService{service: svc})
	patdv1.RegisterPageServiceServer(g, pageService{service: svc, issuer: issuer})
	patdv1.RegisterWebhookServiceServer(g, webhookService{service: svc})
	patdv1.RegisterSignInServiceServer(g, signInService{signIn: signIn})
}
