// Package server assembles patd's transport, gRPC and REST in front of tokens.Service: the listeners, TLS, health, and
// the order of shutdown. It decides nothing about tokens.
//
// # Rooms
//
// The steps of every call are in internal/call; internal/rest is the HTTP front and the gateway; internal/rpc,
// internal/introspect, internal/oauth, internal/github and internal/extauth hold the handlers, which do not depend on
// each other.
// internal/httpx is shared by those that serve HTTP. All of them use internal/fault (the table of errors),
// internal/metrics, internal/wire, internal/connection and internal/limit.
//
// # How a call flows
//
// A gRPC call passes the chain to a handler, which converts the message to a call of tokens.Service, and the result
// back.
//
// A REST call passes the HTTP front (request id, client address, limits, security headers) and the grpc-gateway, which
// dials an in-process listener. Behind that listener is a second grpc.Server with the same services and the same chain,
// so there is one place where callers are authenticated and one table of rights. Its metadata comes from the HTTP
// front, and no network peer can reach it: only there are the private metadata keys with the request id and the
// client's address trusted.
//
// The OAuth endpoints and forward-auth bypass the gateway and take the chain's steps themselves.
//
// # Streams
//
// A stream passes the same chain once, at its start, and has no deadline. Its caller is checked again each second, and
// before each answer: a revoked service loses its streams. When the server stops, pending requests are answered, and
// the stream ends with UNAVAILABLE. The error of one request of an IntrospectStream is sent in its answer. A watcher
// that does not read for 10 s is cut off.
//
// # Who signs in
//
// A bearer credential in the form of a JWT goes to Config.SignIn (see package signin); any other is a token of patd's
// own. A signed-in user reaches its own things, by its id or as "me". Every request about another user gets the same
// error, whether or not that user exists and the request is well-formed.
//
// # What is limited
//
// Per caller: changes and recorded refusals. Per address: bad credentials and leak reports. Per personal access token:
// exchanges. A limited call gets RESOURCE_EXHAUSTED with the reason RATE_LIMITED, google.rpc.RetryInfo, and whole
// seconds in Retry-After over REST and in the trailer retry-after over gRPC. Servers on one store count mints and
// exchanges together (see Config.Shared), and addresses each by itself. A token presented for introspection, by a
// gateway or otherwise, never counts as a bad credential of its presenter: one attacker behind a gateway must not lock
// out the gateway. Behind proxies, configure the trusted ones, so that each client has its own address. Health,
// metadata, and other calls without a credential are not limited.
//
// # What is never written
//
// Logs, errors and metrics contain no payload, path or query, since a caller may have put a secret into the wrong
// place. A text that looks like a JWT is withheld like patd's own secrets. An error about an unreadable request is
// built only from text that is known to be safe.
package server
