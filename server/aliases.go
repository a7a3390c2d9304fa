package server

import (
	"patd/server/internal/call"
	"patd/server/internal/connection"
	"patd/server/internal/metrics"
)

// Types for callers of this package that internal packages also use.
type (
	// Verifier verifies the JWT of a signed-in user.
	Verifier = call.Verifier
	// SharedLimit counts the actions of one name across all servers on one store.
	SharedLimit = call.SharedLimit
	// Figure is an additional number for /metrics.
	Figure = metrics.Figure
	// Histogram is a distribution, for a Figure.
	Histogram = metrics.Histogram
	// Tracing makes a span for each call that its sampler chooses.
	Tracing = call.Tracing
	// ConnectionLimits bounds the connections of each listener.
	ConnectionLimits = connection.Limits
)
