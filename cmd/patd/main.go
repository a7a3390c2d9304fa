package main

import (
	"context"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"patd/cmd/patd/internal/cli"
)

func main() { os.Exit(process()) }

// process runs the command as a process of its own: the real streams, and signals.
func process() int {
	defer profiled()()
	// All files of this process, the store's journals too, are for its user alone.
	syscall.Umask(0o077)
	// A write beyond the limit on file sizes is an error, not the end of the process.
	signal.Ignore(syscall.SIGXFSZ)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	s := stopper{signals: make(chan os.Signal, 3), hurry: make(chan struct{})}
	signal.Notify(s.signals, syscall.SIGTERM, os.Interrupt)
	go s.watch(stop)
	var libraries libraryLog
	libraries.install()
	return Main(ctx, os.Args[1:], cli.System{
		Stdin:     os.Stdin,
		Stdout:    os.Stdout,
		Stderr:    os.Stderr,
		Getenv:    os.LookupEnv,
		Environ:   os.Environ,
		Hurry:     s.hurried,
		Libraries: libraries.to,
	})
}

// stopper turns signals into requests to stop. It lasts as long as the process.
type stopper struct {
	signals  chan os.Signal
	hurry    chan struct{}
	hurrying atomic.Bool
}

// hurried returns a channel that the second signal closes.
func (s *stopper) hurried() <-chan struct{} {
	s.hurrying.Store(true)
	return s.hurry
}

// watch makes the first signal a request to stop and, where a command wants that, the second one a request to hurry.
// After that signals have their usual effect, so that one more ends the process.
func (s *stopper) watch(stop context.CancelFunc) {
	<-s.signals
	stop()
	if s.hurrying.Load() {
		<-s.signals
		close(s.hurry)
	}
	signal.Stop(s.signals)
}
