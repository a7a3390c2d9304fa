package dbtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// account is whom a server runs as: databases refuse to run as root.
type account struct{ credential *syscall.Credential } // nil: as whoever runs the test

// unprivileged finds an account for a server: the test's own, unless that is root, then the one of that name, or
// nobody.
func unprivileged(name string) (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		return account{}, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return account{}, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return account{}, err
	}
	return account{&syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), NoSetGroups: true}}, nil
}

// give makes a file the account's own.
func (a account) give(path string) error {
	if a.credential == nil {
		return nil
	}
	return os.Chown(path, int(a.credential.Uid), int(a.credential.Gid))
}

// use makes a command run as the account, in a process group of its own, and end when the test's process does.
func (a account) use(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.credential, Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// process is a running server with its children.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

// startProcess runs a server; what it writes goes to a file.
func startProcess(cmd *exec.Cmd, path string, a account) (*process, error) {
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the server's log: %w", err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	a.use(cmd)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		_ = cmd.Wait() // that it was killed is no news
	}()
	return p, nil
}

// kill ends the server and its children, who may be in process groups of their own, and waits for all of them.
func (p *process) kill() error {
	family := p.family()
	err := signal(family, syscall.SIGKILL)
	<-p.ended
	// A child is adopted by somebody else when its parent is gone, so there is nothing to wait on but its end.
	for _, pid := range family[1:] {
		for alive(pid) {
			runtime.Gosched()
		}
	}
	return err
}

// freeze stops the server and its children, and waits until every thread of theirs has stopped: the signal reaches one
// thread, and the others run on until that one has been scheduled.
func (p *process) freeze() error {
	family := p.family()
	if err := signal(family, syscall.SIGSTOP); err != nil {
		return err
	}
	for _, pid := range family {
		for running(pid) {
			runtime.Gosched()
		}
	}
	return nil
}

func (p *process) thaw() error { return signal(p.family(), syscall.SIGCONT) }

// family lists the server and its children, the server first: it can then make no more of them.
func (p *process) family() []int {
	pid := p.cmd.Process.Pid
	all := []int{pid}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for field := range strings.FieldsSeq(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(all, child)
			}
		}
	}
	return all
}

func signal(pids []int, s syscall.Signal) error {
	for _, pid := range pids {
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal the server: %w", err)
		}
	}
	return nil
}

// alive reports whether a process is there and more than a zombie.
func alive(pid int) bool {
	now := state(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return now != 0 && now != 'Z'
}

// running reports whether any thread of a process may still run.
func running(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	return slices.ContainsFunc(
		threads,
		func(path string) bool { return !strings.ContainsRune("\x00TtZX", state(path)) },
	)
}

// state is the letter of proc(5) for the state of a process or thread; 0: there is none.
func state(path string) rune {
	stat, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	_, after, ok := strings.Cut(string(stat), ") ")
	if !ok || after == "" {
		return 0
	}
	return rune(after[0])
}
