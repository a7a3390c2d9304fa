//go:build !profile

package main

// profiled does nothing: see profile.go.
func profiled() (stop func()) { return func() {} }
