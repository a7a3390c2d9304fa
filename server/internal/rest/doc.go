// Package rest is the outermost HTTP handler and the gateway from JSON to gRPC. Front adds the request id and the
// response headers, finds the client's address and rejects what must not reach the gateway. The gateway calls gRPC on a
// listener in the same process, with the same chain of package call in front as on the network.
package rest
