// Package scim serves SCIM 2.0 (RFC 7643, RFC 7644) under /scim/v2, for identity providers that provision users: the
// resource type User with PATCH and the filters `userName eq`, `externalId eq` and `id eq`, and the three descriptions.
//
// # What is kept
//
// Of a user patd keeps userName, externalId, displayName and active. Every other attribute of RFC 7643, and every
// attribute of an extension, is accepted and dropped. `active` is the state of patd's user: false suspends, true
// resumes. A user that is deleted here loses its tokens for good.
//
// One attribute is patd's user id, as the operator says ([UserID]). It must be there, and never changes.
//
// # How it lies in the server
//
// Requests bypass the gateway, since SCIM has bodies, errors and a content type of its own. The caller passes the chain
// as in every other call: authentication, the table of rights, limits, log and metrics. The use cases are those of
// tokens.Service.
package scim
