package replicatest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"

	"patd/internal/proctest"
)

// run runs one command of a patd and returns its standard output, without the line end.
func run(path string, env []string, args ...string) (string, error) {
	cmd := exec.Command(path, args...)
	cmd.Env = append(append(os.Environ(), "PATD_DRAIN_DELAY=0s"), env...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("patd %s: %w: %s%s", strings.Join(args, " "), err, exit.Stderr, out)
	}
	return strings.TrimSpace(string(out)), err
}

// daemon is a running patd that serves.
type daemon struct {
	cmd        *exec.Cmd
	http, grpc string
	log        *proctest.Output
	exited     chan struct{} // closed when it has ended; then err says how
	err        error
}

var (
	readyLine = proctest.Ready()
	raceFound = regexp.MustCompile(`WARNING: DATA RACE|^panic: |^fatal error: `)
)

// start runs `patd serve` with more arguments and waits until it is ready.
func start(path string, env []string, args ...string) (*daemon, error) {
	args = append([]string{"serve", "--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0"}, args...)
	d := &daemon{cmd: exec.Command(path, args...), log: proctest.NewOutput(), exited: make(chan struct{})}
	d.cmd.Env, d.cmd.Stderr, d.cmd.SysProcAttr = append(os.Environ(), env...), d.log, attached()
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.exited)
		d.log.End()
	}()
	found, err := d.log.Await(patience, readyLine)
	if err != nil {
		d.kill()
		return nil, fmt.Errorf("patd %s: %w", strings.Join(args, " "), err)
	}
	d.http, d.grpc = found[1], found[2]
	return d, nil
}

// stop asks it to end and returns how it did.
func (d *daemon) stop() error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-d.exited:
		return d.err
	case <-time.After(patience):
		d.kill()
		return fmt.Errorf("patd does not stop; it said\n%s", d.log)
	}
}

// kill ends it as kill -9 does, and waits for the end.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.exited
}
