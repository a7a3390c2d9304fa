package replicatest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"patd/internal/waittest"
)

// attached makes a process end when the test's does, however that comes.
func attached() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// freeze keeps a replica from running, and waits until every thread of it has stopped: the signal reaches one of them,
// and the others run on until that one has been scheduled.
func (d *daemon) freeze(t *testing.T) {
	t.Helper()
	must(t, d.Cmd.Process.Signal(syscall.SIGSTOP))
	waittest.Within(t, patience, "the replica stands still", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", d.Cmd.Process.Pid))
		must(t, err)
		for _, thread := range threads {
			stat, err := os.ReadFile(thread)
			if _, after, _ := strings.Cut(string(stat), ") "); err == nil && !strings.HasPrefix(after, "T") {
				return false
			}
		}
		return true
	})
}

func (d *daemon) thaw(t *testing.T) {
	t.Helper()
	must(t, d.Cmd.Process.Signal(syscall.SIGCONT))
}
