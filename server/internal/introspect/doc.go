// Package introspect serves patd.v1.IntrospectionService: single requests, batches, streams, uses, and the watch for
// invalidations.
//
// Its calls are made for each request to the company's APIs. They pass the steps of the chain by a shorter way:
// messages are read and written by hand (codec.go), a call is one object, its request id and deadline are created on
// first use, and POST /v1/introspect and /v1/introspect:batch bypass the gateway (direct.go). Any unusual message takes
// the long way, and tests compare the two.
package introspect
