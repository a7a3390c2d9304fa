package config

import (
	"time"
)

const (
	// minRetention is the shortest --audit-retention.
	minRetention = 24 * time.Hour
	// PruneSlack is how much longer than that an event may stay, so that there is at most one audit.prune a day.
	PruneSlack = 24 * time.Hour
	// PruneInterval is how often a server checks.
	PruneInterval = 10 * time.Minute
)
