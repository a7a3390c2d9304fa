package main

import (
	"syscall"
	"time"
)

// unsynchronized is what adjtimex returns for a clock that nothing keeps right (TIME_ERROR in <sys/timex.h>).
const unsynchronized = 5

// clock asks the kernel whether the clock is kept right.
func (d *doctor) clock() {
	var t syscall.Timex
	state, err := syscall.Adjtimex(&t)
	d.kept(state, time.Duration(t.Esterror)*time.Microsecond, err)
}

// kept judges what the kernel says of the clock: how well it is kept, and by how much it may be wrong.
func (d *doctor) kept(state int, wrong time.Duration, err error) {
	switch {
	case err != nil: // a container may not ask
		d.ok("clock", "the kernel does not say whether the clock is synchronized")
	case state == unsynchronized:
		d.add(
			"clock",
			levelWarning,
			"synchronize the clock (systemd-timesyncd, chrony): it decides about expiry",
			"nothing keeps the clock of this machine right, as far as the kernel knows",
		)
	default:
		d.ok("clock", "synchronized, to %s as the kernel estimates", wrong)
	}
}
