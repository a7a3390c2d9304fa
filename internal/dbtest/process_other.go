//go:build !linux

package dbtest

import (
	"errors"
	"os/exec"
)

var errPlatform = errors.New("servers for tests are run on Linux only")

type account struct{}

func unprivileged(string) (account, error) { return account{}, errPlatform }
func (account) give(string) error          { return nil }
func (account) use(*exec.Cmd)              {}

type process struct{ ended chan struct{} }

func startProcess(*exec.Cmd, string, account) (*process, error) { return nil, errPlatform }
func (*process) kill() error                                    { return errPlatform }
func (*process) freeze() error                                  { return errPlatform }
func (*process) thaw() error                                    { return errPlatform }
