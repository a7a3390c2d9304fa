package call

import (
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// Right says who may call a method. The zero value allows no caller.
type Right struct {
	// any: a service with any of these permissions or admin. 0: no service.
	any tokens.Permission
	// user: a signed-in user. The domain checks that it acts on its own things only.
	user bool
	// asUser: the caller could act as the user with what it gets, so no operator may call it.
	asUser bool
	// self: every service and signed-in user; the call is about the caller alone.
	self bool
	// bearer: only the bearer of a personal access token, not even admin.
	bearer bool
	// Open: every caller; the credential is not checked.
	Open bool
	// Anyone: every caller, but as an ordinary call: logged, limited per address, with our errors.
	Anyone bool
	// stream: the call lasts as long as the client wants.
	stream bool
	// action is the name of a change in the audit log. Refused attempts are recorded. Empty: the method only reads.
	action tokens.Action
	// Reads: the method changes nothing, so it ignores an Idempotency-Key.
	Reads bool
	// keyed: the method supports an Idempotency-Key. A method that neither reads nor is keyed rejects one.
	keyed bool
	// mints: the method makes a token's secret, and is charged to its caller's mints. A method that neither reads,
	// mints nor ends is charged to its caller's changes.
	mints bool
	// ends: the method revokes access, and is charged to its caller's revocations. No other method is.
	ends bool
	// Conditional: the method supports a precondition on its one record. Any other method rejects one.
	Conditional bool
	// Hot: called for each request to the company's APIs, so success is not logged.
	Hot bool
}

// TakesKey reports whether a call of the method may have an Idempotency-Key.
func (r Right) TakesKey() bool { return r.keyed }

// quiet reports whether a successful call is logged at debug level only.
func (r Right) quiet() bool { return r.Open || r.Hot }

// Rights returns the complete table of who may call what. A method that is not in it is refused; a test checks all
// served methods.
func Rights() map[string]Right {
	const (
		introspect   = tokens.PermIntrospect
		tokenManager = tokens.PermTokens
		users        = tokens.PermUsers
		catalog      = tokens.PermCatalog
		readUser     = tokens.PermUsers | tokens.PermTokens
		// `catalog` reads users' features in order to describe them.
		readFeatures = readUser | tokens.PermCatalog
		audit        = tokens.PermAudit
		admin        = tokens.PermAdmin
	)
	return map[string]Right{
		patdv1.TokenService_CreateToken_FullMethodName: {
			asUser: true,
			any:    tokenManager,
			user:   true,
			action: tokens.ActionTokenCreate,
			mints:  true,
			keyed:  true,
		},
		patdv1.TokenService_GetToken_FullMethodName: {
			any:         tokenManager,
			user:        true,
			Conditional: true,
			Reads:       true,
		},
		patdv1.TokenService_ListTokens_FullMethodName: {any: tokenManager, user: true, Reads: true},
		patdv1.TokenService_UpdateToken_FullMethodName: {
			any:         tokenManager,
			user:        true,
			action:      tokens.ActionTokenUpdate,
			Conditional: true,
		},
		patdv1.TokenService_RotateToken_FullMethodName: {
			asUser:      true,
			any:         tokenManager,
			user:        true,
			action:      tokens.ActionTokenRotate,
			mints:       true,
			Conditional: true,
			keyed:       true,
		},
		patdv1.TokenService_CancelRotation_FullMethodName: {
			any:         tokenManager,
			user:        true,
			action:      tokens.ActionTokenCancel,
			Conditional: true,
		},
		patdv1.TokenService_NarrowToken_FullMethodName: {
			any:         tokenManager,
			user:        true,
			action:      tokens.ActionTokenNarrow,
			ends:        true,
			Conditional: true,
		},
		patdv1.TokenService_ResumeScopes_FullMethodName: {
			asUser:      true,
			any:         tokenManager,
			user:        true,
			action:      tokens.ActionTokenResume,
			Conditional: true,
		},
		patdv1.TokenService_ResumeToken_FullMethodName: {
			any:         tokenManager,
			user:        true,
			action:      tokens.ActionTokenIdleEnd,
			Conditional: true,
		},
		patdv1.TokenService_RevokeToken_FullMethodName: {
			any:         tokenManager,
			user:        true,
			action:      tokens.ActionTokenRevoke,
			ends:        true,
			Conditional: true,
		},
		patdv1.TokenService_RevokeTokens_FullMethodName: {
			any:    tokenManager,
			user:   true,
			action: tokens.ActionTokenRevokeAll,
			ends:   true,
		},

		patdv1.InventoryService_SearchTokens_FullMethodName: {any: tokenManager, Reads: true},
		patdv1.InventoryService_BulkRevokeTokens_FullMethodName: {
			any:    tokenManager,
			action: tokens.ActionTokenRevokeMatching,
			ends:   true,
		},
		patdv1.InventoryService_BulkNarrowTokens_FullMethodName: {
			any:    tokenManager,
			action: tokens.ActionTokenNarrowMatching,
			ends:   true,
		},
		patdv1.InventoryService_GetIdlePreview_FullMethodName: {any: tokenManager, Reads: true},

		patdv1.SelfService_GetSelf_FullMethodName: {bearer: true, Conditional: true, Reads: true},
		patdv1.SelfService_RevokeSelf_FullMethodName: {
			bearer:      true,
			action:      tokens.ActionTokenRevoke,
			ends:        true,
			Conditional: true,
		},
		patdv1.SelfService_RotateSelf_FullMethodName: {
			bearer:      true,
			action:      tokens.ActionTokenRotate,
			mints:       true,
			Conditional: true,
			keyed:       true,
		},

		patdv1.IntrospectionService_Introspect_FullMethodName:         {any: introspect, Hot: true, Reads: true},
		patdv1.IntrospectionService_BatchIntrospect_FullMethodName:    {any: introspect, Hot: true, Reads: true},
		patdv1.IntrospectionService_IntrospectStream_FullMethodName:   {any: introspect, stream: true, Reads: true},
		patdv1.IntrospectionService_WatchInvalidations_FullMethodName: {any: introspect, stream: true, Reads: true},
		patdv1.IntrospectionService_ReportUses_FullMethodName:         {any: introspect},
		// It changes nothing that is stored.
		patdv1.IntrospectionService_AcknowledgeInvalidations_FullMethodName: {any: introspect, Reads: true},

		patdv1.UserService_GetUser_FullMethodName: {
			any:         readUser,
			user:        true,
			Conditional: true,
			Reads:       true,
		},
		patdv1.UserService_ListUsers_FullMethodName: {any: users, Reads: true},
		patdv1.UserService_SuspendUser_FullMethodName: {
			any:         users,
			action:      tokens.ActionUserSuspend,
			ends:        true,
			Conditional: true,
		},
		patdv1.UserService_ResumeUser_FullMethodName: {
			any:         users,
			action:      tokens.ActionUserResume,
			Conditional: true,
		},
		patdv1.UserService_DeleteUser_FullMethodName: {
			any:         users,
			action:      tokens.ActionUserDelete,
			ends:        true,
			Conditional: true,
		},
		patdv1.UserService_GetUserFeatures_FullMethodName: {
			any:         readFeatures,
			user:        true,
			Conditional: true,
			Reads:       true,
		},
		patdv1.UserService_SetUserFeatures_FullMethodName: {
			any:         users,
			action:      tokens.ActionUserFeatures,
			Conditional: true,
		},
		patdv1.UserService_UpdateUserFeatures_FullMethodName: {
			any:         users,
			action:      tokens.ActionUserFeatures,
			Conditional: true,
		},
		patdv1.UserService_RefreshUser_FullMethodName: {any: users, action: tokens.ActionUserRefresh},

		patdv1.CatalogService_CreateFeature_FullMethodName: {any: catalog, action: tokens.ActionFeatureCreate},
		patdv1.CatalogService_GetFeature_FullMethodName:    {any: catalog, Conditional: true, Reads: true},
		patdv1.CatalogService_ReplaceFeature_FullMethodName: {
			any:         catalog,
			action:      tokens.ActionFeatureReplace,
			Conditional: true,
		},
		patdv1.CatalogService_DeleteFeature_FullMethodName: {
			any:         catalog,
			action:      tokens.ActionFeatureDelete,
			Conditional: true,
		},
		patdv1.CatalogService_ListFeatures_FullMethodName: {any: catalog, Reads: true},
		// Who plans features asks it, and who administers which user has them. It shows no more than both may see.
		patdv1.CatalogService_GetFeatureImpact_FullMethodName: {any: catalog | users, Reads: true},
		patdv1.CatalogService_CreateAudience_FullMethodName:   {any: catalog, action: tokens.ActionAudienceCreate},
		patdv1.CatalogService_GetAudience_FullMethodName:      {any: catalog, Conditional: true, Reads: true},
		patdv1.CatalogService_ReplaceAudience_FullMethodName: {
			any:         catalog,
			action:      tokens.ActionAudienceReplace,
			Conditional: true,
		},
		patdv1.CatalogService_DeleteAudience_FullMethodName: {
			any:         catalog,
			action:      tokens.ActionAudienceDelete,
			Conditional: true,
		},
		patdv1.CatalogService_ListAudiences_FullMethodName: {any: catalog, Reads: true},
		patdv1.CatalogService_CheckAudience_FullMethodName: {any: catalog, Reads: true},
		patdv1.CatalogService_BlockTokens_FullMethodName: {
			any:    catalog,
			action: tokens.ActionTokenBlock,
			ends:   true,
		},
		patdv1.CatalogService_UnblockTokens_FullMethodName: {any: catalog, action: tokens.ActionTokenUnblock},

		patdv1.ServiceAccountService_CreateService_FullMethodName: {
			any:    admin,
			action: tokens.ActionServiceCreate,
			keyed:  true,
		},
		patdv1.ServiceAccountService_ListServices_FullMethodName: {any: admin, Reads: true},
		patdv1.ServiceAccountService_RotateService_FullMethodName: {
			any:    admin,
			action: tokens.ActionServiceRotate,
			keyed:  true,
		},
		patdv1.ServiceAccountService_RevokeService_FullMethodName: {
			any:    admin,
			action: tokens.ActionServiceRevoke,
			ends:   true,
		},

		patdv1.WebhookService_CreateWebhook_FullMethodName: {
			any:    admin,
			action: tokens.ActionWebhookCreate,
			keyed:  true,
		},
		patdv1.WebhookService_GetWebhook_FullMethodName: {any: admin, Conditional: true, Reads: true},
		patdv1.WebhookService_ReplaceWebhook_FullMethodName: {
			any:         admin,
			action:      tokens.ActionWebhookUpdate,
			Conditional: true,
		},
		patdv1.WebhookService_DeleteWebhook_FullMethodName: {
			any:         admin,
			action:      tokens.ActionWebhookDelete,
			Conditional: true,
		},
		patdv1.WebhookService_ListWebhooks_FullMethodName: {any: admin, Reads: true},
		patdv1.WebhookService_RotateWebhookSecret_FullMethodName: {
			any:         admin,
			action:      tokens.ActionWebhookRotate,
			Conditional: true,
			keyed:       true,
		},
		patdv1.WebhookService_TestWebhook_FullMethodName:           {any: admin, action: tokens.ActionWebhookTest},
		patdv1.WebhookService_ListWebhookDeliveries_FullMethodName: {any: admin, Reads: true},
		patdv1.WebhookService_GetWebhookDelivery_FullMethodName:    {any: admin, Reads: true},
		patdv1.WebhookService_RedeliverWebhook_FullMethodName:      {any: admin, action: tokens.ActionWebhookRedeliver},

		patdv1.AuditService_ListEvents_FullMethodName: {any: audit, Reads: true},

		patdv1.PageService_CreatePageSession_FullMethodName: {
			asUser: true,
			any:    tokenManager,
			action: tokens.ActionSessionHandoff,
		},

		// What it returns is the same for all, and public.
		patdv1.SignInService_GetSignIn_FullMethodName: {Open: true, Reads: true},
		patdv1.SignInService_WhoAmI_FullMethodName:    {self: true, Reads: true},

		// No credential is needed: possession of a secret suffices to revoke it.
		patdv1.LeakService_ReportLeaks_FullMethodName: {Anyone: true},

		// A gateway asks about its client's token.
		authv3.Authorization_Check_FullMethodName: {any: introspect, Reads: true},

		healthv1.Health_Check_FullMethodName:                              {Open: true, Reads: true},
		healthv1.Health_List_FullMethodName:                               {Open: true, Reads: true},
		healthv1.Health_Watch_FullMethodName:                              {Open: true, stream: true, Reads: true},
		reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName: {Open: true, stream: true, Reads: true},
	}
}

// caller returns the capacity in which an actor may make a call: a signed-in user about its own things is a user, and
// about all others an operator, if it is one. False: it may not make it.
func (r Right) caller(a tokens.Actor, req any) (tokens.Actor, bool) {
	if r.Allows(a) && (r.self || reaches(a, req)) {
		return a, true
	}
	op := a.AsOperator()
	return op, op.Kind == tokens.OperatorActor && r.Allows(op)
}

// Allows reports whether an actor has the right.
func (r Right) Allows(a tokens.Actor) bool {
	switch a.Kind {
	case tokens.ServiceActor:
		return r.self && a.Permissions != 0 || r.any != 0 && a.Permissions.Has(r.any)
	case tokens.UserActor:
		return r.user || r.self
	case tokens.OperatorActor: // a person; what only introspects is for programs
		return !r.asUser && r.any&^tokens.PermIntrospect != 0 && a.Permissions.Has(r.any)
	case tokens.TokenActor:
		return r.bearer
	default:
		return false
	}
}
