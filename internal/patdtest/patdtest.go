// Package patdtest runs patd inside a test: the real server on a real store, on loopback.
package patdtest

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"patd/internal/servicetest"
	"patd/server"
)

// Patd is a server that serves until the test ends.
type Patd struct {
	*servicetest.Made
	Server *server.Server

	stop    func() error
	stopped atomic.Bool // by the test
}

// Start serves a service with the configuration that change makes of a plain one, which limits nothing and logs
// nothing. change may be nil.
func Start(tb testing.TB, o servicetest.Options, change func(*servicetest.Made, *server.Config)) *Patd {
	tb.Helper()
	if o.File == "" {
		o.File = filepath.Join(tb.TempDir(), "patd.db")
	}
	p := &Patd{Made: servicetest.New(tb, o)}
	c := server.Config{
		Service:           p.Service,
		Ready:             p.Store.Ready,
		Now:               o.Now,
		HTTPAddr:          "127.0.0.1:0",
		GRPCAddr:          "127.0.0.1:0",
		Version:           "test",
		Logger:            slog.New(slog.DiscardHandler),
		MintRate:          -1,
		ServiceMintRate:   -1,
		ChangeRate:        -1,
		ServiceChangeRate: -1,
		FailureRate:       -1,
		LeakRate:          -1,
	}
	if change != nil {
		change(p.Made, &c)
	}
	var err error
	if p.Server, err = server.New(c); err != nil {
		tb.Fatalf("make a server: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Server.Serve(ctx) }()
	p.stop = sync.OnceValue(func() error { cancel(); return <-done })
	tb.Cleanup(func() {
		if err := p.stop(); err != nil && !p.stopped.Load() {
			tb.Errorf("stop the server: %v", err)
		}
	})
	return p
}

// Stop ends the server before the test ends, and returns what Serve did. What it may be is the test's affair.
func (p *Patd) Stop() error {
	p.stopped.Store(true)
	return p.stop()
}
