package server

import (
	"patd/server/internal/call"
	"patd/server/internal/connection"
	"patd/server/internal/metrics"
)

// What callers of this package make, though inner rooms use it.
type (
	// Verifier says who signed in with a JWT.
	Verifier = call.Verifier
	// SharedLimit counts for all servers on one store what a name does.
	SharedLimit = call.SharedLimit
	// Figure is one figure more for /metrics.
	Figure = metrics.Figure
	// ConnectionLimits bounds the connections of each listener.
	ConnectionLimits = connection.Limits
)
