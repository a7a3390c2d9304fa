// Package extauth decides for gateways whether a request may pass. Envoy asks by gRPC (envoy.service.auth.v3.Authorization), with a
// service token of its own; nginx, Traefik and Caddy ask by GET /v1/forward-auth, with none.
//
// Both say which scopes and which audience a route needs, and both are told the same of a request that may pass: X-Auth-User,
// X-Auth-Scopes (of those that were asked for), X-Auth-Token-Id, which is the personal access token's also where an access token
// was presented, and X-Token-Expires-At. A user id may be any text, so in X-Auth-User all of it is percent-encoded but printable
// ASCII other than space % , " \ { }; a percent-decoder gives it back.
//
// What is no answer closes a gateway. An outage is 503, for Envoy as a denial, since a gRPC error is what failure_mode_allow lets
// pass. A parameter that is unknown, or given and empty, is 400, for Envoy a denial with 500: taken as left out it would leave a
// route open. A request without one good token is 401 with the challenge of RFC 6750, also one with two tokens, for which that has
// 400, because gateways take 400 for a fault of patd's.
package extauth
