//go:build !race

package longtest

// Race reports whether the race detector is built in. It makes a program several times slower, and times say nothing.
const Race = false
