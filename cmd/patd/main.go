package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// System is what a run of the command has of the world around it.
type System struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// Getenv reads an environment variable, and tells whether it is set.
	Getenv func(string) (string, bool)
	// Environ lists the environment variables as NAME=VALUE; nil: they are not known.
	Environ func() []string
}

func main() { os.Exit(process()) }

// process runs the command as a process of its own: the real streams, and signals.
func process() int {
	// Whatever this process makes, the store's journals too, is for its user alone.
	syscall.Umask(0o077)
	// A limit on the size of files is an error of the write that meets it, not the end of the process.
	signal.Ignore(syscall.SIGXFSZ)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	// The first signal asks to stop; from then on signals have their usual effect, so that a second one insists.
	context.AfterFunc(ctx, stop)
	return Main(ctx, os.Args[1:], System{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.LookupEnv, Environ: os.Environ})
}
