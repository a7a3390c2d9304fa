//go:build !race

package replicatest

// raceFlags are none: the tests have no race detector.
var raceFlags []string
