//go:build !linux

package replicatest

import (
	"syscall"
	"testing"
)

func attached() *syscall.SysProcAttr { return nil }

func (*daemon) freeze(t *testing.T) { t.Skip("processes are frozen on Linux only") }
func (*daemon) thaw(*testing.T)     {}
