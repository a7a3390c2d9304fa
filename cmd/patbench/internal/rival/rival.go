// Package rival runs the programs that patbench measures beside patd: servers that others ask about a credential, each
// in a process of its own on loopback, and the local verification of JWTs.
//
// Each server gets tokens of its own by its own API, in memory, with its logs turned down as far as it allows. So what
// is measured is the least that it can take. Every answer is checked: it must be about the very token that was
// presented, and say that it is good.
package rival

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Call presents the tokens that follow from a random number, and checks the answers. It returns how many there were.
// Workers that call at the same time have different numbers, from 0.
type Call = func(ctx context.Context, worker int, rnd *rand.Rand) (int, error)

// Work is one way to check a token.
type Work struct {
	Name string
	Call Call
}

// Config says how to start a server.
type Config struct {
	Binary  string
	Dir     string // a directory for what it writes
	Tokens  int    // how many it gets
	Workers int    // how many calls are in flight
}

// Server is a server at work.
type Server struct {
	Works []Work

	name  string
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended, and err is there
	err   error
	close func() // closes connections to it
}

// prepared gives the server the calls that measure it, made by this client. It is stopped if that fails.
func (s *Server) prepared(client *http.Client, prepare func() ([]Work, error)) (*Server, error) {
	s.close = client.CloseIdleConnections
	return s.at(prepare())
}

// at gives the server the calls that measure it; a call that fails says what the server logged last. It is stopped if
// there is an error in place of calls.
func (s *Server) at(works []Work, err error) (*Server, error) {
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare %s: %w%s", s.name, err, s.logged()), s.Stop())
	}
	for _, w := range works {
		call := w.Call
		w.Call = func(ctx context.Context, worker int, rnd *rand.Rand) (int, error) {
			n, err := call(ctx, worker, rnd)
			if err != nil && ctx.Err() == nil {
				err = fmt.Errorf("%w%s", err, s.logged())
			}
			return n, err
		}
		s.Works = append(s.Works, w)
	}
	return s, nil
}

// PID is the number of its process.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Stop asks the server to stop, and kills it when it does not within ten seconds.
func (s *Server) Stop() error {
	if s.close != nil {
		s.close()
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.ended:
	case <-time.After(10 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
	return nil // how a rival ends is no concern of ours
}

// probe returns nil once a server is ready.
type probe = func(context.Context) error

// start runs a server with nothing of this program's environment but the search path, and waits until probe succeeds.
func start(
	ctx context.Context, name string, c Config, env []string, probe probe, args ...string,
) (*Server, error) {
	log, err := os.Create(filepath.Join(c.Dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, c.Binary, args...) //nolint:gosec // the operator names it
	s := &Server{name: name, cmd: cmd, ended: make(chan struct{})}
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = c.Dir, log, log
	s.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.Dir}, env...)
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(syscall.SIGTERM) }
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(s.ended)
		s.err = s.cmd.Wait()
	}()
	if err := s.await(ctx, probe); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s, %s: %w%s", name, c.Binary, err, s.logged()), s.Stop())
	}
	return s, nil
}

// await repeats probe until it succeeds, the server has ended, or two minutes are over.
func (s *Server) await(ctx context.Context, probe probe) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		err := probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-s.ended:
			return fmt.Errorf("it ended: %w", s.err)
		case <-ctx.Done():
			return err
		}
	}
}

// logged is the end of what the server wrote, for an error.
func (s *Server) logged() string {
	const most = 2000
	text, err := os.ReadFile(filepath.Join(s.cmd.Dir, "log"))
	if text = bytes.TrimSpace(text); err != nil || len(text) == 0 {
		return "; its log is empty"
	}
	return fmt.Sprintf("; its log ends: %s", text[max(0, len(text)-most):])
}

// freeAddresses are addresses of loopback on which nothing listened a moment ago: not all rivals choose one themselves.
func freeAddresses(ctx context.Context, n int) ([]string, error) {
	var listen net.ListenConfig
	addresses := make([]string, n)
	for i := range addresses {
		lis, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer lis.Close()
		addresses[i] = lis.Addr().String()
	}
	return addresses, nil
}

// inParallel calls f for each number below n, eight at a time, until one fails.
func inParallel(ctx context.Context, n int, f func(context.Context, int) error) error {
	const at = 8
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, at)
	for first := range at {
		go func() {
			var err error
			for i := first; i < n && err == nil; i += at {
				err = f(ctx, i)
			}
			if err != nil {
				cancel()
			}
			errs <- err
		}()
	}
	var failed error
	for range at {
		if err := <-errs; err != nil && (failed == nil || errors.Is(failed, context.Canceled)) {
			failed = err
		}
	}
	return failed
}
