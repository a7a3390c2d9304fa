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
// Minting and rotating, per caller; bad credentials, per address; and the refused attempts of one caller that the audit log
// takes (see package limit). A limited call is RESOURCE_EXHAUSTED with the reason RATE_LIMITED, google.rpc.RetryInfo, and
// whole seconds in Retry-After over REST and in the trailer retry-after over gRPC. Whoever cannot be told apart is not made
// to pay for others: behind proxies, configure which are trusted, so that each client has its own address.
// Health, metadata and calls without a credential are not limited.
//
// # What is never written
//
// Logs, errors and metrics hold no payload, no path and no query, since a caller may have put a secret into the wrong place.
// What looks like a JWT is withheld as a secret of patd's own is. An error about a request that could not be read is built
// anew from what is known to be safe.
package server
