package proctest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// patience bounds every wait for a daemon. Nothing takes nearly as long, unless it is broken.
const patience = time.Minute

// manners is how long a daemon may take to end when nobody looks at how it does.
const manners = 2 * time.Second

// Daemon is a patd that serves, as a process.
type Daemon struct {
	Cmd        *exec.Cmd
	HTTP, GRPC string // where it serves
	Log        *Output
	Stdout     *Output
	Exited     chan struct{} // closed when it has ended; then Err says how
	Err        error
}

// Start starts a command, without waiting until it serves. Output that it has somewhere else to go to is not kept.
func Start(cmd *exec.Cmd) (*Daemon, error) {
	d := &Daemon{Cmd: cmd, Log: NewOutput(), Stdout: NewOutput(), Exited: make(chan struct{})}
	if cmd.Stderr == nil {
		cmd.Stderr = d.Log
	}
	if cmd.Stdout == nil {
		cmd.Stdout = d.Stdout
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		d.Err = cmd.Wait()
		close(d.Exited)
		d.Log.End()
	}()
	return d, nil
}

// Launch starts a command that comes to serve, and waits until it does.
func Launch(cmd *exec.Cmd) (*Daemon, error) {
	d, err := Start(cmd)
	if err != nil {
		return nil, err
	}
	found, err := d.Log.Await(patience, Ready())
	if err != nil {
		d.Kill()
		return nil, fmt.Errorf("patd %s: %w", strings.Join(cmd.Args[1:], " "), err)
	}
	d.HTTP, d.GRPC = found[1], found[2]
	return d, nil
}

// Stop asks it to end and returns how it did.
func (d *Daemon) Stop() error {
	if err := d.Cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-d.Exited:
		return d.Err
	case <-time.After(patience):
		d.Kill()
		return fmt.Errorf("patd does not stop; it said\n%s", d.Log)
	}
}

// End ends it after a test that needs it no longer: by SIGTERM, since a process that is killed does not say which of its
// lines ran, and by Kill if it takes its time.
func (d *Daemon) End() {
	_ = d.Cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.Exited:
	case <-time.After(manners):
		d.Kill()
	}
}

// Kill ends it as kill -9 does, and waits for the end.
func (d *Daemon) Kill() {
	_ = d.Cmd.Process.Kill()
	<-d.Exited
}
