// Package rest is the outermost HTTP handler and the gateway from JSON to gRPC. Front gives each request its id and each answer
// its headers, finds the client's address and refuses what must not reach the gateway; the gateway calls gRPC on a listener in the
// same process, behind which the chain of package call stands as it does on the network.
package rest
