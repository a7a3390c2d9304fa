// Package server puts patd's transport together, gRPC and REST in front of tokens.Service: the listeners, TLS, health, and the order
// of shutting down. Nothing here decides about a token.
//
// # Rooms
//
// What every call passes is in internal/call; internal/rest is the HTTP front and the gateway; internal/rpc, internal/introspect,
// internal/oauth and internal/extauth hold the handlers, none of which leans on another. internal/httpx is what those share that
// serve HTTP. Under all of them lie internal/fault (the table of errors), internal/metrics, internal/wire, internal/connection and
// internal/limit.
//
// # How a call flows
//
// A gRPC call passes the chain and reaches a handler, which turns the message into a call of tokens.Service and the result back.
//
// A REST call passes the HTTP front (request id, client address, limits, security headers) and the grpc-gateway, which
// dials an in-process listener. Behind that listener stands a second grpc.Server with the same services and the same
// chain, so there is one place where a caller is authenticated and one table of rights. What arrives there was written by
// the HTTP front, and no network peer can reach it: only there are the private metadata keys believed that carry the
// request id and the client's address.
//
// The OAuth endpoints and forward-auth stand beside the gateway and take the chain's steps by themselves.
//
// # Streams
//
// A stream passes the same chain once, at its start, and has no deadline. Its caller is looked at again each second, and before
// each answer: a service that was revoked loses its streams. When the server stops, what is under way is answered, and the stream
// ends with UNAVAILABLE. What fails for one request of an IntrospectStream is told in its answer. A watcher that does not read for
// 10 s is cut off.
//
// # Who signs in
//
// A bearer credential with the form of a JWT goes to Config.SignIn (see package signin); everything else is a token of
// patd's own. A signed-in user reaches what is its own, by its id or as "me". About any other user the answer is one and the same,
// whether that user exists and whether the request is well formed.
//
// # What is limited
//
// Changes and recorded refusals, per caller; bad credentials, reports of leaks, per address; the exchanges of one personal access
// token. A limited call is RESOURCE_EXHAUSTED with the reason RATE_LIMITED, google.rpc.RetryInfo, and whole seconds in Retry-After
// over REST and in the trailer retry-after over gRPC. Servers on one store count what has a name together (see Config.Shared), and
// addresses each for itself. A token presented to introspection, by a gateway or otherwise, never counts as a bad credential of
// its presenter: one attacker behind a gateway must not lock out the gateway. Behind proxies, configure which are trusted, so that
// each client has its own address. Health, metadata, and other calls without a credential are not limited.
//
// # What is never written
//
// Logs, errors and metrics hold no payload, no path and no query, since a caller may have put a secret into the wrong place.
// What looks like a JWT is withheld as a secret of patd's own is. An error about a request that could not be read is built
// anew from what is known to be safe.
package server
