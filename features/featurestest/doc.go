// Package featurestest is the suite that every source of features passes, bare and through its cache: unknown user,
// empty, odd ids, oversized, malformed, slow, cancelled, outage and recovery. A new source is done when Run passes
// on the real thing.
package featurestest
