// Package server is patd's transport: gRPC and REST in front of tokens.Service, and nothing that decides about a token.
//
// # How a call flows
//
// A gRPC call passes the chain (recover, metrics and log, error map, deadline, authenticate, limit, authorize, size) and
// reaches a handler, which turns the message into a call of tokens.Service and the answer back.
//
// A REST call passes the HTTP front (request id, client address, limits, security headers) and the grpc-gateway, which
// dials an in-process listener. Behind that listener stands a second grpc.Server with the same services and the same
// chain, so there is one place where a caller is authenticated and one table of rights. What arrives there was written by
// the HTTP front, and no network peer can reach it: only there are the private metadata keys believed that carry the
// request id and the client's address.
//
// The OAuth endpoints (RFC 7662, RFC 7009, RFC 8693) take HTML forms, which the gateway does not. They stand beside it: the HTTP
// front, authentication of the client, and then tokens.Service, with the limits, the log line and the metrics of the chain.
// A client shows a service token, by Basic, in the form, or as a bearer; where none is shown, possession of the token that
// is presented is what counts.
//
// # Gateways
//
// Envoy asks by gRPC (envoy.service.auth.v3.Authorization, see envoyService), with a service token of its own; nginx, Traefik and
// Caddy ask by GET /v1/forward-auth (see forwardAuth), with none. Both say which scopes and which audience a route needs, and both
// are told the same of a request that may pass: X-Auth-User, X-Auth-Scopes (of those that were asked for), X-Auth-Token-Id,
// which is the personal access token's also where an access token was presented, and X-Token-Expires-At. A user id may be any
// text, so in X-Auth-User all of it is percent-encoded but printable ASCII other than space % , " \ { }; a percent-decoder gives
// it back.
//
// What is no answer closes a gateway. An outage is 503, for Envoy as a denial, since a gRPC error is what failure_mode_allow lets
// pass. A parameter that is unknown, or given and empty, is 400, for Envoy a denial with 500: taken as left out it would
// leave a route open. A request without one good token is 401 with the challenge of RFC 6750, also one with two tokens,
// for which that has 400, because gateways take 400 for a fault of patd's.
//
// # Introspection
//
// Introspect, BatchIntrospect and IntrospectStream are called for each request that the company's APIs serve, and take
// the same steps of the chain by a shorter way: their messages are read and written by hand (wirecodec.go), a call is one
// object, its request id and its deadline come into being when they are needed, and POST /v1/introspect and
// /v1/introspect:batch do not go through the gateway (direct.go). Whatever is unusual about a message goes the long way, and
// tests compare the two. Calls that went well are counted, and logged at level debug only.
//
// # Streams
//
// A stream passes the same chain once, at its start, and has no deadline. Its caller is looked at again each second: a
// service that was revoked loses its streams. When the server stops, what is under way is answered, and the stream ends with
// UNAVAILABLE. What fails for one request of an IntrospectStream is told in its answer. A watcher that does not read for 10 s
// is cut off.
//
// # What is refused
//
// A method without a row in the rights table is refused, for everybody. A new RPC therefore answers
// PERMISSION_DENIED until somebody has thought about who may call it, and a test fails.
//
// # Who signs in
//
// A bearer credential with the form of a JWT goes to Config.SignIn (see package signin); everything else is a token of
// patd's own. A signed-in user reaches what is its own, by its id or as "me". About anybody else the answer is one and the same,
// whether that user exists and whether the request is well formed.
//
// # What is limited
//
// Mints, other changes and revocations, each by a budget of its caller; bad credentials, per address, which are counted after
// a look and never keep a good one out; and the refused attempts of one caller that the audit log takes (see package limit). A limited call is RESOURCE_EXHAUSTED with the reason RATE_LIMITED, google.rpc.RetryInfo, and
// whole seconds in Retry-After over REST and in the trailer retry-after over gRPC. The exchanges and refreshes of one personal access token are
// limited too, and so are the reports of leaks from one address. Servers on one store count what has a name together (see
// Config.Shared), and addresses each for itself. A token presented to introspection, by a gateway or otherwise,
// never counts as a bad credential of whoever presents it: one attacker behind a gateway must not lock out the gateway.
// Whoever cannot be told apart is not made to pay for others: behind proxies, configure which are trusted, so that each
// client has its own address. Health, metadata, and other calls without a credential are not limited.
//
// # What is never written
//
// Logs, errors and metrics hold no payload, no path and no query, since a caller may have put a secret into the wrong place.
// What looks like a JWT is withheld as a secret of patd's own is. An error about a request that could not be read is built
// anew from what is known to be safe.
package server
