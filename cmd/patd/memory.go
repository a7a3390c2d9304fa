package main

import (
	"runtime/debug"

	"patd/cmd/patd/internal/cli"
)

// gcPercent lets garbage grow to four times what is in use before it is collected: most of what a call leaves is small
// and soon forgotten, and collecting less often was measured to be a good part of a call's cost.
const gcPercent = 400

// roomBesideCache is what a server takes apart from what it keeps of the store, when it is busy.
const roomBesideCache = 128 << 20

// useMemory has the collector work as suits a server with so large a cache. As what is in use grows to that, garbage may
// no longer grow to a multiple of it: the limit makes the collector come earlier. What the operator says by GOGC and
// GOMEMLIMIT goes before.
func useMemory(c *cli.Command, cache cli.ByteSize) {
	if _, given := c.Getenv("GOGC"); !given {
		debug.SetGCPercent(gcPercent)
	}
	if _, given := c.Getenv("GOMEMLIMIT"); !given {
		debug.SetMemoryLimit(int64(cache)/4*5 + roomBesideCache)
	}
}
