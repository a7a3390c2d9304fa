//go:build race

package replicatest

// raceFlags build what the tests run with the race detector, as they have it themselves.
var raceFlags = []string{"-race"}
