package server

import (
	"maps"
	"net/http"
	"slices"
)

// Paths returns the exact paths that are served over HTTP apart from the routes of gRPC methods, sorted.
func (s *Server) Paths() []string {
	f := s.front
	var all []string
	for _, paths := range []map[string]http.Handler{f.Pages, f.Forms, f.Gates} {
		all = slices.AppendSeq(all, maps.Keys(paths))
	}
	return slices.Sorted(slices.Values(all))
}
