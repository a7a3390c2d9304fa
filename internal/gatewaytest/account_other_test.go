//go:build !linux

package gatewaytest

import (
	"os/exec"
	"testing"
)

type account struct{}

func unprivileged(t *testing.T) account {
	t.Helper()
	t.Skip("gateways are run on Linux only")
	return account{}
}

func (account) use(*exec.Cmd)     {}
func (account) give(string) error { return nil }

func (*process) freeze(t *testing.T) { t.Skip("processes are frozen on Linux only") }
func (*process) thaw()               {}
