package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/config"
	"patd/cmd/patd/internal/cli/orphans"
	"patd/cmd/patd/internal/cli/storeadmin"
	"patd/server"
	"patd/store"
	"patd/store/cache"
	"patd/tokens"
	"patd/tokens/secret"
)

func serveCommand(c *cli.Command) *cobra.Command {
	var s config.Settings
	cmd := &cobra.Command{
		Use:   "serve --data-dir DIR",
		Short: "Serve gRPC and REST until SIGTERM or SIGINT",
		Long: `Serve gRPC and REST until SIGTERM or SIGINT. Then, for --drain-delay, /readyz and gRPC health say that the server is
stopping while everything is still served; a second signal ends this delay. After it finish what is under way, write what is
still to be written, and exit with 0. The first start makes the store and its digest key. A changed key file or certificate is noticed;
on SIGHUP both are read again at once.

Each flag is also a variable, --http-addr PATD_HTTP_ADDR, and a key of the --config file, http-addr.`,
		Args: cli.Takes(),
	}
	f := cmd.Flags()
	s.ServeFlags(f)
	var log *slog.Logger
	var policy tokens.Policy
	cmd.PreRunE = func(*cobra.Command, []string) (err error) {
		if log, err = config.NewLogger(c, &s); err != nil {
			return err
		}
		warnOfVariables(c, cmd.Root(), log)
		if err = refusePlainText(&s); err != nil {
			return err
		}
		if policy, err = s.Policy(f.Changed("default-ttl")); err != nil {
			return err
		}
		if _, err = config.PlaceOf(c, &s); err != nil {
			return err
		}
		if err = s.Source.Read(c, f); err != nil {
			return err
		}
		if err = s.SignIn.Read(c, f, &s.Page); err != nil {
			return err
		}
		return s.Provisioning.Read(c, f, &s.SignIn)
	}
	cmd.RunE = c.Run(func(ctx context.Context, _ []string) error {
		return announced(ctx, log, func() error { return serveStore(ctx, c, &s, policy, log, nil) })
	})
	return cmd
}

// serveStore opens the store, serves until ctx ends, and leaves nothing unwritten. Ready, which may be nil, is called
// after calls are first accepted and before the log says so.
//
// It closes what it opened in the opposite order, once the server is drained: sign-in, the source of features, the
// store with its pending writes.
func serveStore(
	ctx context.Context,
	c *cli.Command,
	s *config.Settings,
	policy tokens.Policy,
	log *slog.Logger,
	ready func(*server.Server, *tokens.Service) error,
) (err error) {
	files, err := certificate(s, log)
	if err != nil {
		return err
	}
	seen, err := openTelemetry(ctx, c)
	if err != nil {
		return err
	}
	defer closeTelemetry(seen, log)
	supervisor, err := supervise(c, files, log)
	if err != nil {
		return err
	}
	defer supervisor.close()
	var certificate *tls.Config
	if files != nil {
		certificate = files.TLS()
	}
	o, err := storeadmin.Open(ctx, c, s, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, storeadmin.Closed("the store", o)) }()
	servers, err := o.Join(ctx, processName())
	if err != nil {
		return err
	}
	if o.Fresh {
		log.Info("made a new store", "store", o.Place.String())
	}
	if !o.RowsSealed() {
		log.Warn(
			"rows that are edited in the database are believed, since they are not sealed; when every server is of this version, run `" + store.SealRows + "`",
		)
	}
	source, release, err := openFeatureSource(ctx, &s.Source, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, storeadmin.Closed("the source of features", release)) }()
	users, err := s.SignIn.Open(log)
	if err != nil {
		return err
	}
	events, err := s.Provisioning.Open(log)
	if err != nil {
		return err
	}
	ring := secret.NewKeyring(o.Keys)
	useMemory(c, s.CacheSize)
	cached := cache.New(o.Store, cache.Options{Size: int64(s.CacheSize)})
	service, err := storeadmin.NewService(c, o, cached, ring, s, policy, source)
	if err != nil {
		return err
	}
	hooks := webhookEngine(o, service, s, c.Now, log)
	ends := &expiries{store: o.Store, certificate: certificate, now: c.Now, log: log}
	config := server.Config{
		Service:              service,
		Servers:              servers,
		Ready:                keysReady(o, cached),
		Parts:                partsOf(o, cached, users, source, ends),
		Figures:              figures(cached, o.Store, c.Log, users, source, ends, hooks),
		Logger:               log,
		HTTPAddr:             s.HTTPAddr,
		GRPCAddr:             s.GRPCAddr,
		MetricsAddr:          s.MetricsAddr,
		Sockets:              supervisor.sockets,
		Issuer:               s.Issuer,
		TLS:                  certificate,
		Insecure:             s.Insecure,
		TrustedProxies:       s.TrustedProxies,
		Reflection:           s.Reflection,
		ForwardAuthorization: s.ForwardAuthorization,
		RequestTimeout:       time.Duration(s.RequestTimeout),
		DrainTimeout:         time.Duration(s.DrainTimeout),
		DrainDelay: time.Duration(
			s.DrainDelay,
		),
		UnknownCallerMemory: int64(s.UnknownCallerMemory),
		Connections:         s.Connections.Limits(),
		Version:             version(),
		StoreKind:           map[bool]string{true: "PostgreSQL", false: "SQLite"}[o.Place.Remote()],
		AcceptBasic:         s.Bearer.Accept.Basic(),
		AcceptAPIKey:        s.Bearer.Accept.APIKey(),
		GitHubLeaks:         s.Leaks.Server(),
		Tracing:             tracingOf(seen, s.TraceUserIDs),
	}
	if config.Page, err = s.Page.Server(users); err != nil {
		return err
	}
	s.Rates.Apply(&config)
	s.Provisioning.Apply(&config, events)
	if c.Hurry != nil && s.DrainDelay > 0 {
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
		config.SignIn, config.CLISignIn = users, s.SignIn.CLI
		users.Start()
	}
	if events != nil {
		defer events.Close()
		events.Start()
	}
	srv, err := server.New(config)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w; choose other addresses by --http-addr and --grpc-addr", err)
	}
	if err != nil {
		return err
	}
	defer closeTelemetry(seen, log) // before what the metrics are read from is closed
	if err := seen.Send(ctx, srv.Registry()); err != nil {
		return stillborn(srv, err)
	}
	if o.Place.Keys != "" {
		supervisor.keys = make(chan chan<- struct{})
	}
	return runServer(ctx, c, srv, service, supervisor, ready, func(ctx context.Context) {
		var g sync.WaitGroup
		g.Go(func() { ends.watch(ctx) })
		g.Go(func() { hooks.Run(ctx) })
		g.Go(func() { o.Retain(ctx, s, c.Now, log) })
		g.Go(func() { followKeys(ctx, o, ring, s.PersonalPrefix, supervisor.keys, c, log) })
		g.Go(func() { orphans.Watch(ctx) })
		g.Go(func() {
			service.RunNotices(ctx, func(err error) {
				log.Warn("notices could not be written; it is tried again", "cause", cli.Redact(err.Error()))
			})
		})
		g.Go(func() {
			service.Follow(ctx, s.PersonalPrefix, func(err error) {
				log.Debug("the store could not be followed", "error", cli.Redact(err.Error()))
			})
		})
		g.Wait()
	})
}

// processName names this process among the servers of the store, for people.
func processName() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "unknown"
	}
	return fmt.Sprintf("%.200s/%d", host, os.Getpid())
}

// runServer serves until ctx ends, and follows the store and the key file meanwhile.
func runServer(
	ctx context.Context,
	c *cli.Command,
	srv *server.Server,
	service *tokens.Service,
	supervisor *supervision,
	ready func(*server.Server, *tokens.Service) error,
	follow func(context.Context),
) error {
	// The server follows the keys until it has stopped serving.
	followed, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	if ready != nil {
		if err := ready(srv, service); err != nil {
			return stillborn(srv, err)
		}
	}
	c.Announce.Info("ready", "rest", srv.Issuer(), "grpc", srv.GRPCAddr())
	defer supervisor.ready(ctx, srv)()
	var following sync.WaitGroup
	following.Go(func() { follow(followed) })
	following.Go(func() { supervisor.beat(followed, srv) })
	following.Go(func() { supervisor.reload(ctx, srv) })
	defer func() {
		stop()
		following.Wait()
	}()
	return srv.Serve(ctx)
}

// stillborn closes what New has opened, and returns the error for which the server does not serve.
func stillborn(srv *server.Server, err error) error {
	ended, end := context.WithCancel(context.Background())
	end()
	return errors.Join(err, srv.Serve(ended))
}

// certificate reads the pair of files for TLS; nil: plain text.
func certificate(s *config.Settings, log *slog.Logger) (*server.Certificate, error) {
	switch {
	case s.TLSCert == "" && s.TLSKey == "":
		return nil, nil
	case s.TLSCert == "" || s.TLSKey == "":
		return nil, errors.New("--tls-cert and --tls-key go together")
	}
	return server.LoadCertificate(s.TLSCert, s.TLSKey, log)
}
