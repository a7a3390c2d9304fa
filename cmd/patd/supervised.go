package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/systemd"
	"patd/server"
)

// supervision connects a server with its supervisor, such as systemd: what it says, the sockets that it gave, and
// SIGHUP.
type supervision struct {
	notify      *systemd.Notifier // nil: none
	sockets     server.Sockets
	hangups     chan os.Signal
	certificate *server.Certificate // nil: plain text
	log         *slog.Logger
	// keys gets a channel to close once the hash keys were read again; nil: they are in no file.
	keys chan chan<- struct{}
}

// supervise reads from the environment what supervisor there is. From here on SIGHUP ends the process no more: one that
// comes while the server starts is heeded when it serves.
func supervise(c *cli.Command, certificate *server.Certificate, log *slog.Logger) (*supervision, error) {
	sockets, err := systemd.Listeners(systemd.Getenv(c.Getenv), "http", "grpc", "metrics")
	if err != nil {
		return nil, err
	}
	v := &supervision{
		notify: systemd.NewNotifier(
			systemd.Getenv(c.Getenv),
		),
		hangups:     make(chan os.Signal, 1),
		certificate: certificate,
		log:         log,
		sockets:     server.Sockets{HTTP: sockets["http"], GRPC: sockets["grpc"], Metrics: sockets["metrics"]},
	}
	signal.Notify(v.hangups, syscall.SIGHUP)
	return v, nil
}

// close gives SIGHUP its usual effect again, and closes sockets that no server took.
func (v *supervision) close() {
	signal.Stop(v.hangups)
	for _, lis := range []net.Listener{v.sockets.HTTP, v.sockets.GRPC, v.sockets.Metrics} {
		if lis != nil {
			_ = lis.Close() // the server has closed it already, or never accepted from it
		}
	}
}

// said logs that the supervisor could not be told something. Serving goes on.
func (v *supervision) said(err error) {
	if err != nil {
		v.log.Warn("the supervisor could not be notified", "error", cli.Redact(err.Error()))
	}
}

// ready tells the supervisor that the server serves, and from then on when it is asked to stop. It returns a function
// that ends the latter.
func (v *supervision) ready(asked context.Context, srv *server.Server) func() {
	v.said(v.notify.Ready("serving REST at " + srv.Issuer() + " and gRPC at " + srv.GRPCAddr()))
	told := make(chan struct{})
	unasked := context.AfterFunc(asked, func() {
		defer close(told)
		v.said(v.notify.Stopping())
	})
	return func() {
		if !unasked() {
			<-told
		}
	}
}

// beat feeds the supervisor's watchdog as long as the server is alive, until ctx ends.
func (v *supervision) beat(ctx context.Context, srv *server.Server) {
	if v.notify.Beat() == 0 {
		return
	}
	tick := time.NewTicker(v.notify.Beat())
	defer tick.Stop()
	for {
		within, cancel := context.WithTimeout(ctx, v.notify.Beat())
		err := srv.Alive(within)
		cancel()
		if err == nil {
			err = v.notify.Alive()
		}
		v.said(err)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// reload reads the certificate and the hash keys again on each SIGHUP, until the server is asked to stop.
func (v *supervision) reload(asked context.Context, srv *server.Server) {
	for {
		select {
		case <-asked.Done():
			return
		case <-v.hangups:
		}
		v.said(v.notify.Reloading())
		if v.certificate != nil {
			if err := v.certificate.Reload(); err != nil {
				v.log.Error("the TLS certificate could not be read anew; the one before it stays", "cause", err.Error())
			}
		}
		if v.keys != nil {
			done := make(chan struct{})
			select {
			case <-asked.Done():
				return
			case v.keys <- done:
			}
			select {
			case <-asked.Done():
				return
			case <-done:
			}
		}
		if asked.Err() != nil {
			return
		}
		v.log.Info("reloaded")
		v.said(v.notify.Ready("serving REST at " + srv.Issuer() + " and gRPC at " + srv.GRPCAddr()))
	}
}
