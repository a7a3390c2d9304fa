//go:build !linux

package main

// clock says that this system is not asked.
func (d *doctor) clock() { d.ok("clock", "this system does not say whether the clock is synchronized") }
