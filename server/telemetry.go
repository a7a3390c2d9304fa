package server

import "github.com/prometheus/client_golang/prometheus"

// Registry returns the metrics of the server, the same as GET /metrics returns, for programs that send them on.
func (s *Server) Registry() prometheus.Gatherer { return s.registry }
