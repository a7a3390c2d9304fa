package server

import (
	"maps"
	"net/http"
	"slices"

	"google.golang.org/grpc"

	"patd/server/internal/call"
)

// ServiceInfo lists what is served on the network.
func (s *Server) ServiceInfo() map[string]grpc.ServiceInfo { return s.grpc.GetServiceInfo() }

// InProcessInfo lists what is served behind the gateway.
func (s *Server) InProcessInfo() map[string]grpc.ServiceInfo { return s.inProcess.GetServiceInfo() }

// Methods lists the methods with a row of rights.
func Methods() map[string]bool {
	found := map[string]bool{}
	for full, r := range call.Rights() {
		found[full] = !r.Open && !r.Anyone
	}
	return found
}

// Conditional reports of each method with a row of rights whether it takes a precondition.
func Conditional() map[string]bool {
	found := map[string]bool{}
	for full, r := range call.Rights() {
		found[full] = r.Conditional
	}
	return found
}

// Endpoints lists the paths that are served without the gateway.
func (s *Server) Endpoints() []string {
	var all []string
	for _, paths := range []map[string]http.Handler{s.front.Pages, s.front.Forms, s.front.Gates} {
		all = slices.AppendSeq(all, maps.Keys(paths))
	}
	slices.Sort(all)
	return all
}
