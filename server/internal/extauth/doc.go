// Package extauth decides for gateways whether a request may pass. Envoy asks by gRPC
// (envoy.service.auth.v3.Authorization), with a service token of its own; nginx, Traefik and Caddy ask by GET
// /v1/forward-auth, without a credential.
//
// Both name the scopes and the audience that a route needs, and both get the same headers for a request that may pass:
// X-Auth-User, X-Auth-Scopes (the requested ones), X-Auth-Token-Id, which for an access token is the id of its
// personal access token, and X-Token-Expires-At. A user id may be any text, so X-Auth-User is percent-encoded, except
// printable ASCII other than space % , " \ { }; a percent-decoder restores it.
//
// An error closes a gateway. An outage is 503, for Envoy as a denial, since failure_mode_allow lets a gRPC error pass.
// A parameter that is unknown or empty is 400, for Envoy a denial with 500: ignoring it could leave a route open. A
// request without exactly one good token is 401 with the challenge of RFC 6750. That includes one with two tokens, for
// which RFC 6750 has 400: gateways treat a 400 as a fault of patd's.
package extauth
