package call

import (
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// Right says who may call a method. The zero right lets nobody in.
type Right struct {
	// any of these permissions of a service, or admin. 0: no service.
	any tokens.Permission
	// user: a signed-in user. That it acts on its own things only is for the domain to decide.
	user bool
	// bearer: the bearer of a personal access token, and nobody else, not even admin.
	bearer bool
	// Open: everybody; a credential is not even looked at.
	Open bool
	// Anyone: everybody, too, but as a call like others: logged, limited per address, its errors ours.
	Anyone bool
	// stream: it lasts as long as the caller wants.
	stream bool
	// action names a change in the audit log. Refused attempts at it are recorded. Empty: the method only reads.
	action tokens.Action
	// Reads: it changes nothing, so that an Idempotency-Key means nothing to it.
	Reads bool
	// keyed: it honours an Idempotency-Key. What neither reads nor is keyed refuses one.
	keyed bool
	// mints: the method makes a secret of a token, and spends from its caller's mints. What neither reads, mints nor ends spends
	// from its caller's changes.
	mints bool
	// ends: the method takes access away, and spends from its caller's revocations, which nothing else does.
	ends bool
	// Conditional: it takes a precondition on the one record that it is about. Any other method refuses one.
	Conditional bool
	// Hot: it is called for each request that the company's APIs serve, so that what goes well is not logged.
	Hot bool
}

// quiet tells that a call that went well is logged for who debugs only.
func (r Right) quiet() bool { return r.Open || r.Hot }

// Rights is the table of who may call what, complete: a method that is not in it is refused, and a test goes through all that
// are served.
func Rights() map[string]Right {
	const (
		introspect   = tokens.PermIntrospect
		tokenManager = tokens.PermTokens
		users        = tokens.PermUsers
		catalog      = tokens.PermCatalog
		readUser     = tokens.PermUsers | tokens.PermTokens
		// `catalog` reads what users hold, to describe it.
		readFeatures = readUser | tokens.PermCatalog
		audit        = tokens.PermAudit
		admin        = tokens.PermAdmin
	)
	return map[string]Right{
		patdv1.TokenService_CreateToken_FullMethodName:  {any: tokenManager, user: true, action: tokens.ActionTokenCreate, mints: true, keyed: true},
		patdv1.TokenService_GetToken_FullMethodName:     {any: tokenManager, user: true, Conditional: true, Reads: true},
		patdv1.TokenService_ListTokens_FullMethodName:   {any: tokenManager, user: true, Reads: true},
		patdv1.TokenService_UpdateToken_FullMethodName:  {any: tokenManager, user: true, action: tokens.ActionTokenUpdate, Conditional: true},
		patdv1.TokenService_RotateToken_FullMethodName:  {any: tokenManager, user: true, action: tokens.ActionTokenRotate, mints: true, Conditional: true, keyed: true},
		patdv1.TokenService_RevokeToken_FullMethodName:  {any: tokenManager, user: true, action: tokens.ActionTokenRevoke, ends: true, Conditional: true},
		patdv1.TokenService_RevokeTokens_FullMethodName: {any: tokenManager, user: true, action: tokens.ActionTokenRevokeAll, ends: true},

		patdv1.SelfService_GetSelf_FullMethodName:    {bearer: true, Conditional: true, Reads: true},
		patdv1.SelfService_RevokeSelf_FullMethodName: {bearer: true, action: tokens.ActionTokenRevoke, ends: true, Conditional: true},

		patdv1.IntrospectionService_Introspect_FullMethodName:         {any: introspect, Hot: true, Reads: true},
		patdv1.IntrospectionService_BatchIntrospect_FullMethodName:    {any: introspect, Hot: true, Reads: true},
		patdv1.IntrospectionService_IntrospectStream_FullMethodName:   {any: introspect, stream: true, Reads: true},
		patdv1.IntrospectionService_WatchInvalidations_FullMethodName: {any: introspect, stream: true, Reads: true},
		patdv1.IntrospectionService_ReportUses_FullMethodName:         {any: introspect},

		patdv1.UserService_GetUser_FullMethodName:            {any: readUser, user: true, Conditional: true, Reads: true},
		patdv1.UserService_ListUsers_FullMethodName:          {any: users, Reads: true},
		patdv1.UserService_SuspendUser_FullMethodName:        {any: users, action: tokens.ActionUserSuspend, ends: true, Conditional: true},
		patdv1.UserService_ResumeUser_FullMethodName:         {any: users, action: tokens.ActionUserResume, Conditional: true},
		patdv1.UserService_DeleteUser_FullMethodName:         {any: users, action: tokens.ActionUserDelete, ends: true, Conditional: true},
		patdv1.UserService_GetUserFeatures_FullMethodName:    {any: readFeatures, user: true, Conditional: true, Reads: true},
		patdv1.UserService_SetUserFeatures_FullMethodName:    {any: users, action: tokens.ActionUserFeatures, Conditional: true},
		patdv1.UserService_UpdateUserFeatures_FullMethodName: {any: users, action: tokens.ActionUserFeatures, Conditional: true},
		patdv1.UserService_RefreshUser_FullMethodName:        {any: users, action: tokens.ActionUserRefresh},

		patdv1.CatalogService_CreateFeature_FullMethodName:   {any: catalog, action: tokens.ActionFeatureCreate},
		patdv1.CatalogService_GetFeature_FullMethodName:      {any: catalog, Conditional: true, Reads: true},
		patdv1.CatalogService_ReplaceFeature_FullMethodName:  {any: catalog, action: tokens.ActionFeatureReplace, Conditional: true},
		patdv1.CatalogService_DeleteFeature_FullMethodName:   {any: catalog, action: tokens.ActionFeatureDelete, Conditional: true},
		patdv1.CatalogService_ListFeatures_FullMethodName:    {any: catalog, Reads: true},
		patdv1.CatalogService_CreateAudience_FullMethodName:  {any: catalog, action: tokens.ActionAudienceCreate},
		patdv1.CatalogService_GetAudience_FullMethodName:     {any: catalog, Conditional: true, Reads: true},
		patdv1.CatalogService_ReplaceAudience_FullMethodName: {any: catalog, action: tokens.ActionAudienceReplace, Conditional: true},
		patdv1.CatalogService_DeleteAudience_FullMethodName:  {any: catalog, action: tokens.ActionAudienceDelete, Conditional: true},
		patdv1.CatalogService_ListAudiences_FullMethodName:   {any: catalog, Reads: true},
		patdv1.CatalogService_CheckAudience_FullMethodName:   {any: catalog, Reads: true},
		patdv1.CatalogService_BlockTokens_FullMethodName:     {any: catalog, action: tokens.ActionTokenBlock, ends: true},
		patdv1.CatalogService_UnblockTokens_FullMethodName:   {any: catalog, action: tokens.ActionTokenUnblock},

		patdv1.ServiceAccountService_CreateService_FullMethodName: {any: admin, action: tokens.ActionServiceCreate, keyed: true},
		patdv1.ServiceAccountService_ListServices_FullMethodName:  {any: admin, Reads: true},
		patdv1.ServiceAccountService_RevokeService_FullMethodName: {any: admin, action: tokens.ActionServiceRevoke, ends: true},

		patdv1.AuditService_ListEvents_FullMethodName: {any: audit, Reads: true},

		// Nobody needs a credential: possession of a secret suffices to end it.
		patdv1.LeakService_ReportLeaks_FullMethodName: {Anyone: true},

		// A gateway that asks about the token of its client.
		authv3.Authorization_Check_FullMethodName: {any: introspect, Reads: true},

		healthv1.Health_Check_FullMethodName:                              {Open: true, Reads: true},
		healthv1.Health_List_FullMethodName:                               {Open: true, Reads: true},
		healthv1.Health_Watch_FullMethodName:                              {Open: true, stream: true, Reads: true},
		reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName: {Open: true, stream: true, Reads: true},
	}
}

// Allows reports whether the right lets an actor in.
func (r Right) Allows(a tokens.Actor) bool {
	switch a.Kind {
	case tokens.ServiceActor:
		return r.any != 0 && a.Permissions.Has(r.any)
	case tokens.UserActor:
		return r.user
	case tokens.TokenActor:
		return r.bearer
	default:
		return false
	}
}
