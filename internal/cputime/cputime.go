// Package cputime says how much processor time this process has taken, for benchmarks: on a machine that others use, the
// time of the clock means little.
package cputime

import (
	"syscall"
	"time"
)

// Process is the time that all threads of this process have taken, in the kernel and outside of it.
func Process() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it fails for a bad argument only
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
