package gatewaytest

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"patd/internal/proctest"
)

// account is whom a gateway runs as: never root, as in a data centre, so that what only root may read stays unread.
type account struct{ credential *syscall.Credential } // nil: as whoever runs the test

// unprivileged is the test's own account, unless that is root: then nobody.
func unprivileged(t *testing.T) account {
	t.Helper()
	if os.Geteuid() != 0 {
		return account{}
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		proctest.Missing(t, "the account nobody")
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	must(t, err)
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	must(t, err)
	return account{&syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), NoSetGroups: true}}
}

// use makes a command run as the account, in a process group of its own.
func (a account) use(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: a.credential}
}

// give makes a file the account's own.
func (a account) give(path string) error {
	if a.credential == nil {
		return nil
	}
	return os.Chown(path, int(a.credential.Uid), int(a.credential.Gid))
}

// freeze keeps a process from running, and waits until every thread of it has stopped: the signal reaches one of them,
// and the others run on for a moment.
func (p *process) freeze(t *testing.T) {
	t.Helper()
	must(t, syscall.Kill(p.cmd.Process.Pid, syscall.SIGSTOP))
	poll, deadline := time.NewTicker(time.Millisecond), time.After(patience)
	defer poll.Stop()
	for !p.frozen() {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatal("a process does not stop")
		}
	}
}

// frozen reports whether no thread may run: proc(5) has the state of each behind its name, which may hold anything.
func (p *process) frozen() bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
	for _, thread := range threads {
		text, err := os.ReadFile(thread)
		if at := strings.LastIndex(string(text), ") "); err == nil && at >= 0 && text[at+2] != 'T' {
			return false
		}
	}
	return true
}

// thaw lets a frozen process run again.
func (p *process) thaw() { _ = syscall.Kill(p.cmd.Process.Pid, syscall.SIGCONT) }
