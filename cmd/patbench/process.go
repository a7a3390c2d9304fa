package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"patd/internal/cputime"
)

// process is a server in a process of its own.
type process struct {
	name       string
	grpc, http string // addresses
	cmd        *exec.Cmd
	ended      chan error
	ready      time.Duration // from the start until it said that it is
}

// hello is the line in which a server says where it listens.
type hello struct {
	Msg, GRPC, REST string
}

// start runs a server and waits until it says that it is ready, on stdout or stderr.
func start(ctx context.Context, name string, env []string, command string, args ...string) (*process, error) {
	p := &process{
		name: name,
		//nolint:gosec // our own servers
		cmd:   exec.CommandContext(ctx, command, args...),
		ended: make(chan error, 1),
	}
	p.cmd.Env = append(append(os.Environ(), "PATD_DRAIN_DELAY=0s"), env...)
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	pipe, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	began := time.Now()
	if err := errors.Join(p.cmd.Start(), w.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), pipe.Close())
	}
	lines := bufio.NewReader(pipe)
	var said ending
	for {
		line, err := lines.ReadBytes('\n')
		_, _ = said.Write(line)
		if err != nil {
			_ = p.cmd.Wait() // its state says how it ended
			err = fmt.Errorf("start %s: it ended before it was ready, %s: %s", name, p.cmd.ProcessState, said)
			return nil, errors.Join(err, pipe.Close())
		}
		var h hello
		if json.Unmarshal(line, &h) == nil && h.Msg == "ready" {
			p.grpc, p.http, p.ready = h.GRPC, h.REST, time.Since(began)
			break
		}
	}
	go func() {
		_, _ = io.Copy(&said, lines) // its log
		err := errors.Join(p.cmd.Wait(), pipe.Close())
		if err != nil {
			err = fmt.Errorf("%s ended, %w: %s", name, err, said)
		}
		p.ended <- err
	}()
	return p, nil
}

// ending is the end of what a server wrote.
type ending []byte

// Write implements io.Writer.
func (e *ending) Write(text []byte) (int, error) {
	const most = 4000
	*e = append(*e, text...)
	if len(*e) > 2*most { // not at each line
		*e = append((*e)[:0], (*e)[len(*e)-most:]...)
	}
	return len(text), nil
}

// stop asks the server to stop and waits until it has.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return <-p.ended
}

// clockTick is the unit of the CPU times in /proc (USER_HZ, which is 100 on every architecture that Go runs on).
const clockTick = 10 * time.Millisecond

// cpu is the CPU time, user and system, that the process has used.
func (p *process) cpu() (time.Duration, error) { return pid(p.cmd.Process.Pid).cpu() }

// pid is the number of a process.
type pid int

// cpu is the CPU time that the process has used.
func (p pid) cpu() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", int(p)))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may hold anything: the fields are counted after it (proc(5)).
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("read the CPU time: too few fields")
	}
	user, uerr := strconv.ParseInt(fields[11], 10, 64)
	system, serr := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick, errors.Join(uerr, serr)
}

// itself is this program, where no server is asked.
type itself struct{}

func (itself) cpu() (time.Duration, error) { return cputime.Process(), nil }

// resident is how much of the process is in memory, in MiB.
func (p *process) resident() (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kib float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kib); err == nil {
			return kib / 1024, nil
		}
	}
	return 0, errors.New("read the resident memory: /proc does not have it")
}

// startPatd serves a dataset.
func (b *bench) startPatd(ctx context.Context, d dataset) (*process, error) {
	return start(
		ctx,
		"patd",
		nil,
		b.patd,
		"serve",
		"--data-dir",
		d.dir,
		"--http-addr",
		"127.0.0.1:0",
		"--grpc-addr",
		"127.0.0.1:0",
		"--log-format",
		"json",
	)
}

// service makes a service with these permissions and returns its secret.
func (b *bench) service(ctx context.Context, d dataset, permissions ...string) (string, error) {
	b.services++
	args := []string{
		"service",
		"create",
		fmt.Sprintf("bench-%d-%d-%d", os.Getpid(), time.Now().Unix(), b.services),
		"--data-dir",
		d.dir,
	}
	for _, p := range permissions {
		args = append(args, "--permission", p)
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, b.patd, args...) //nolint:gosec // our own command
	cmd.Stderr = &stderr
	secret, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("create a service: %w: %s", err, &stderr)
	}
	return strings.TrimSpace(string(secret)), nil
}

// startEcho runs this program again, as the baselines.
func startEcho(ctx context.Context) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(filepath.Base(self), ".test") {
		return start(ctx, "echo", []string{echoEnv + "=1"}, self)
	}
	return start(ctx, "echo", nil, self, "echo")
}

// echoEnv makes a test binary of this package an echo server.
const echoEnv = "PATBENCH_ECHO"
