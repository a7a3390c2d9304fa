package replicatest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
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
	log        *watched
	exited     chan struct{} // closed when it has ended; then err says how
	err        error
}

var (
	readyLine = regexp.MustCompile(`msg"?[:=]"?ready"?[ ,]"?rest"?[:=]"?([^" ]+)"?[ ,]"?grpc"?[:=]"?([^"\s]+)`)
	raceFound = regexp.MustCompile(`WARNING: DATA RACE|^panic: |^fatal error: `)
)

// start runs `patd serve` with more arguments and waits until it is ready.
func start(path string, env []string, args ...string) (*daemon, error) {
	args = append([]string{"serve", "--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0"}, args...)
	d := &daemon{cmd: exec.Command(path, args...), log: newWatched(), exited: make(chan struct{})}
	d.cmd.Env, d.cmd.Stderr, d.cmd.SysProcAttr = append(os.Environ(), env...), d.log, attached()
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.exited)
		d.log.end()
	}()
	found, err := d.log.await(readyLine)
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

// watched keeps what is written to it, and lets others wait for a text in it.
type watched struct {
	mu      sync.Mutex
	text    bytes.Buffer
	ended   bool
	changed chan struct{} // closed and made anew by each write
}

func newWatched() *watched { return &watched{changed: make(chan struct{})} }

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.changed)
	w.changed = make(chan struct{})
	return w.text.Write(p)
}

func (w *watched) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// tail is the end of what was written.
func (w *watched) tail() string {
	text := w.String()
	return text[max(0, len(text)-4096):]
}

// await waits for a match and returns it with its groups.
func (w *watched) await(re *regexp.Regexp) ([]string, error) {
	deadline := time.After(patience)
	for {
		w.mu.Lock()
		text, ended, changed := w.text.String(), w.ended, w.changed
		w.mu.Unlock()
		if m := re.FindStringSubmatch(text); m != nil {
			return m, nil
		}
		if ended {
			return nil, fmt.Errorf("it ended without %q; it said\n%s", re, text)
		}
		select {
		case <-changed:
		case <-deadline:
			return nil, fmt.Errorf("no %q after %s; it said\n%s", re, patience, text)
		}
	}
}
