// Package waittest waits, in tests, for what comes about elsewhere and is not announced: in another goroutine, process
// or database. What is announced, on a channel or by a line in a log, is waited for there.
package waittest

import (
	"testing"
	"time"
)

// Patience bounds a wait. Nothing takes nearly as long, unless it is broken.
const Patience = time.Minute

// Until asks until it is so, and returns how long that took. The test fails if it is not so in a minute.
func Until(tb testing.TB, what string, so func() bool) time.Duration {
	tb.Helper()
	return Within(tb, Patience, what, so)
}

// Within is Until with another bound. It asks often at first, and then each 20 ms: to ask without a pause would take
// the CPU from what it waits for.
func Within(tb testing.TB, most time.Duration, what string, so func() bool) time.Duration {
	tb.Helper()
	began := time.Now()
	for pause := time.Millisecond; !so(); pause = min(pause*5/4, 20*time.Millisecond) {
		if since := time.Since(began); since > most {
			tb.Fatalf("%s: not so after %s", what, since)
		}
		<-time.After(pause)
	}
	return time.Since(began)
}
