package main

import (
	"runtime/debug"

	"patd/cmd/patd/internal/cli"
)

// gcPercent lets garbage grow to four times the live heap before collection: most of a call's garbage is small and
// short-lived, and collecting less often was measured to save a good part of a call's cost.
const gcPercent = 400

// roomBesideCache is the memory that a busy server takes beside its cache.
const roomBesideCache = 128 << 20

// useMemory tunes the garbage collector to the size of the cache. As the live heap grows towards that, garbage may no
// longer grow to a multiple of it: the limit makes the collector run earlier. GOGC and GOMEMLIMIT take precedence.
func useMemory(c *cli.Command, cache cli.ByteSize) {
	if _, given := c.Getenv("GOGC"); !given {
		debug.SetGCPercent(gcPercent)
	}
	if _, given := c.Getenv("GOMEMLIMIT"); !given {
		debug.SetMemoryLimit(int64(cache)/4*5 + roomBesideCache)
	}
}
