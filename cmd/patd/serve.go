package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"patd/server"
	"patd/store/cache"
	"patd/tokens"
)

func (c *command) serveCommand() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "serve --data-dir DIR",
		Short: "Serve gRPC and REST until SIGTERM or SIGINT",
		Long: `Serve gRPC and REST until SIGTERM or SIGINT. Then, for --drain-delay, /readyz and gRPC health say that the server is
stopping while everything is still served; a second signal ends this delay. After it finish what is under way, write what is
still to be written, and exit with 0. The first start makes the store and its digest key. A changed key file or certificate is noticed.

Each flag is also a variable, --http-addr PATD_HTTP_ADDR, and a key of the --config file, http-addr.`,
		Args: takes(),
	}
	f := cmd.Flags()
	s.serveFlags(f)
	var log *slog.Logger
	var policy tokens.Policy
	cmd.PreRunE = func(*cobra.Command, []string) (err error) {
		if log, err = c.logger(&s); err != nil {
			return err
		}
		c.warnOfVariables(cmd.Root(), log)
		if err = s.refusePlainText(); err != nil {
			return err
		}
		if policy, err = s.policy(f.Changed("default-ttl")); err != nil {
			return err
		}
		if _, err = c.place(&s); err != nil {
			return err
		}
		if err = s.source.read(c, f); err != nil {
			return err
		}
		return s.signIn.read(c, f)
	}
	cmd.RunE = c.run(func(ctx context.Context, _ []string) error {
		return announced(ctx, log, func() error { return c.serve(ctx, &s, policy, log, nil) })
	})
	return cmd
}

// serve opens the store, serves until ctx ends, and leaves nothing unwritten. Ready, which may be nil, is called
// between the moment from which calls are accepted and the line that says so.
//
// What it opens it closes in the opposite order, once the server is drained: sign-in, the source of features, the store
// with what it has still to write.
func (c *command) serve(ctx context.Context, s *settings, policy tokens.Policy, log *slog.Logger, ready func(*server.Server, *tokens.Service) error) (err error) {
	certificate, err := s.certificate(log)
	if err != nil {
		return err
	}
	o, err := c.open(ctx, s, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closed("the store", o)) }()
	if o.fresh {
		log.Info("made a new store", "store", o.place.String())
	}
	source, release, err := s.source.open(ctx, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closed("the source of features", release)) }()
	users, err := s.signIn.open(log)
	if err != nil {
		return err
	}
	ring := tokens.NewKeyring(o.keys)
	c.useMemory(s.cacheSize)
	cached := cache.New(o.Store, cache.Options{Size: int64(s.cacheSize)})
	service, err := c.service(o, cached, ring, s, policy, source)
	if err != nil {
		return err
	}
	ends := &expiries{store: o.Store, certificate: certificate, now: c.now, log: log}
	config := server.Config{
		Service: service, Ready: o.ready(cached), Figures: figures(cached, o.Store, c.log, users, ends), Logger: log,
		HTTPAddr: s.httpAddr, GRPCAddr: s.grpcAddr, MetricsAddr: s.metricsAddr, Issuer: s.issuer,
		TLS: certificate, Insecure: s.insecure, TrustedProxies: s.trustedProxies, Reflection: s.reflection,
		ForwardAuthorization: s.forwardAuthorization, RequestTimeout: time.Duration(s.requestTimeout), DrainTimeout: time.Duration(s.drainTimeout),
		DrainDelay: time.Duration(s.drainDelay), UnknownCallerMemory: int64(s.unknownCallerMemory), Connections: s.connections.limits(),
		Version: version(),
	}
	s.rates.apply(&config)
	if c.Hurry != nil && s.drainDelay > 0 {
		config.Hurry = c.Hurry()
	}
	if o.Shared() {
		config.Shared = o.Spend
	}
	config.Details = func() map[string]string {
		details := storeDetails(cached, o.Store)
		maps.Copy(details, signInDetails(users))
		return details
	}
	if users != nil {
		defer users.Close()
		config.SignIn = users
		users.Start()
	}
	srv, err := server.New(config)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w; choose other addresses by --http-addr and --grpc-addr", err)
	}
	if err != nil {
		return err
	}
	return c.runServer(ctx, srv, service, ready, func(ctx context.Context, hint <-chan os.Signal) {
		var g sync.WaitGroup
		g.Go(func() { ends.watch(ctx) })
		g.Go(func() { o.retain(ctx, s, c.now, log) })
		g.Go(func() { o.follow(ctx, ring, s.personalPrefix, hint, c, log) })
		g.Go(func() {
			service.Follow(ctx, s.personalPrefix, func(err error) {
				log.Debug("the store could not be followed", "error", redact(err.Error()))
			})
		})
		g.Wait()
	})
}

// closed closes what was opened.
func closed(what string, opened io.Closer) error {
	if err := opened.Close(); err != nil {
		return fmt.Errorf("close %s: %w", what, err)
	}
	return nil
}

// runServer serves until ctx ends, and follows the key file as long.
func (c *command) runServer(ctx context.Context, srv *server.Server, service *tokens.Service,
	ready func(*server.Server, *tokens.Service) error, follow func(context.Context, <-chan os.Signal),
) error {
	hint := make(chan os.Signal, 1)
	signal.Notify(hint, syscall.SIGHUP)
	defer signal.Stop(hint)
	// What the server follows it follows to the end: until then it serves.
	followed, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	if ready != nil {
		if err := ready(srv, service); err != nil {
			ended, end := context.WithCancel(ctx)
			end() // Serve closes what New opened
			return errors.Join(err, srv.Serve(ended))
		}
	}
	c.announce.Info("ready", "rest", srv.Issuer(), "grpc", srv.GRPCAddr())
	var following sync.WaitGroup
	following.Go(func() { follow(followed, hint) })
	defer func() {
		stop()
		following.Wait()
	}()
	return srv.Serve(ctx)
}

// certificate reads the pair of files that TLS is served with; nil: plain text.
func (s *settings) certificate(log *slog.Logger) (*tls.Config, error) {
	switch {
	case s.tlsCert == "" && s.tlsKey == "":
		return nil, nil
	case s.tlsCert == "" || s.tlsKey == "":
		return nil, errors.New("--tls-cert and --tls-key go together")
	}
	return server.LoadTLS(s.tlsCert, s.tlsKey, log)
}
