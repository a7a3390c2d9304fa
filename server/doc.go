// Package server is patd's transport: gRPC and REST in front of tokens.Service, and nothing that decides about a token.
//
// # How a call flows
//
// A gRPC call passes the interceptor chain (recover, request id, metrics and log, error map, deadline, authenticate,
// authorize and limit, size) and reaches a handler, which turns the message into a call of tokens.Service and the answer
// back.
//
// A REST call passes the HTTP front (request id, client address, limits, security headers) and the grpc-gateway, which
// dials an in-process listener. Behind that listener stands a second grpc.Server with the same services and the same
// chain, so there is one place where a caller is authenticated and one table of rights. What arrives there was written by
// the HTTP front, and no network peer can reach it: only there are the private metadata keys believed that carry the
// request id and the client's address.
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
