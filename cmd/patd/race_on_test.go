//go:build race

package main

// raceDetector reports whether this test binary looks for races.
const raceDetector = true
