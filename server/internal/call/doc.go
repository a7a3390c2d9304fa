// Package call holds the steps that every call passes, by gRPC or HTTP. Chain identifies the caller, limits, checks the
// table of rights, rejects, counts and logs. A Call is what the chain knows about one call, and is the context that
// handlers get.
//
// The steps of a gRPC call are, in this order: recover, metrics and log, error map, deadline, authenticate, limit,
// authorize, size. Guard registers services so that the caller of a unary call is known before its message is read. The
// endpoints that net/http serves beside the gateway make their own Call and take the same steps one by one.
//
// A method without a row in the table of rights is refused to every caller.
package call
