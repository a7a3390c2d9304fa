// Package introspect serves patd.v1.IntrospectionService: single questions, batches, streams, uses, and the watch for
// invalidations.
//
// Its calls are made for each request that the company's APIs serve. They take the steps of the chain by a shorter way: their
// messages are read and written by hand (codec.go), a call is one object, its request id and its deadline come into being when they
// are needed, and POST /v1/introspect and /v1/introspect:batch do not pass the gateway (direct.go). Anything unusual about a message
// takes the long way, and tests compare the two.
package introspect
