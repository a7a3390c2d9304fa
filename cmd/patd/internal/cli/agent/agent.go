package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"patd/client/tokensource"
	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/config"
	"patd/internal/secretfile"
)

// settings are the flags of the command.
type settings struct {
	tokenFile, server, caFile, hook string
	insecure, renew, firstUse       bool
	once, now                       bool
	before, every, grace, poll      cli.Duration
}

// flags adds them, in groups.
func (s *settings) flags(f *pflag.FlagSet) {
	s.before, s.grace, s.poll = cli.Duration(
		tokensource.DefaultBefore,
	), cli.Duration(
		24*time.Hour,
	), cli.Duration(
		tokensource.DefaultPoll,
	)
	cli.Grouped(f, "Token", func(f *pflag.FlagSet) {
		f.StringVar(
			&s.tokenFile,
			"token-file",
			"",
			"`file` with the personal access token; replaced whole by each new secret",
		)
		f.StringVar(
			&s.hook,
			"hook",
			"",
			"run this `command` when the file holds a new secret; a program and its arguments, joined by spaces, without a shell",
		)
		f.BoolVar(&s.once, "once", false, "do what is due, and exit, as for cron and timers")
		f.BoolVar(&s.now, "now", false, "rotate at once, though it is not due: to try the setup, or after a leak")
	})
	cli.Grouped(f, "Rotation", func(f *pflag.FlagSet) {
		f.Var(
			&s.before,
			"before",
			"rotate this long before the end, or when a third of the lifetime is left if that is later",
		)
		f.BoolVar(
			&s.renew,
			"renew",
			true,
			"renew the token where its owner allows it (renewable_until); false: its end stays",
		)
		f.Var(&s.every, "every", "rotate this often too, whatever the end; 0s: only before the end")
		f.Var(&s.grace, "grace", "how long a replaced secret works on, from 1m to 30d")
		f.BoolVar(&s.firstUse, "retire-on-first-use", false, "end a replaced secret as soon as the new one is used")
	})
	cli.Grouped(f, "Connection", func(f *pflag.FlagSet) {
		f.StringVar(&s.server, "server", "http://127.0.0.1:8080", "base `URL` of patd")
		f.StringVar(&s.caFile, "ca-file", "", "PEM `file` of the authorities to trust, instead of the system's")
		f.BoolVar(
			&s.insecure,
			"insecure",
			false,
			"send the token in plain text to a server that is not on this machine",
		)
		f.Var(&s.poll, "poll", "look this often whether the file was replaced")
	})
}

// api makes the API that the flags name.
func (s *settings) api() (tokensource.API, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // it is one
	if s.caFile != "" {
		pem, err := secretfile.Read(s.caFile)
		if err != nil {
			return nil, fmt.Errorf("read --ca-file: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--ca-file %s holds no certificate in PEM", s.caFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	dial := tokensource.REST
	if s.insecure {
		dial = tokensource.PlaintextREST
	}
	api, err := dial(s.server, &http.Client{Transport: transport})
	if err != nil {
		return nil, fmt.Errorf("--server: %w", err)
	}
	return api, nil
}

// Command makes `patd agent`.
func Command(c *cli.Command) *cobra.Command {
	var s settings
	var logging config.Settings
	cmd := &cobra.Command{
		Use:   "agent --token-file FILE",
		Short: "Keep a personal access token in a file fresh: rotate it before its end",
		Long: `Keep a personal access token in a file fresh. Before its end the token gets a new secret and, where its owner allows that,
a new end. The file is replaced whole, with its owner and mode, before the new secret is used; the one before works on for
--grace. Then --hook runs, with the path of the file in PATD_TOKEN_FILE.

The owner lets a token do this when it is made: patd token create --self-rotate --renewable-until TIME.

It runs until SIGTERM or SIGINT, and then exits with 0. Killed at any moment, the file holds a secret that works, and the next
start completes what was begun, within the grace, if its flags are the same. A second agent for the same file exits with 1.
With --once it exits with 0 when nothing is due or all that was due is done.`,
		Args: cli.Takes(),
	}
	f := cmd.Flags()
	s.flags(f)
	cli.Grouped(f, "Log", func(f *pflag.FlagSet) { logging.LogFlags(f, "info", "text") })
	var log *slog.Logger
	var api tokensource.API
	cmd.PreRunE = func(*cobra.Command, []string) (err error) {
		if log, err = config.NewLogger(c, &logging); err != nil {
			return err
		}
		switch grace := time.Duration(s.grace); {
		case s.tokenFile == "":
			return errors.New("say which token: --token-file FILE, with a token that may rotate itself")
		case grace < time.Minute || grace > 30*24*time.Hour:
			return errors.New("--grace must be from 1m to 30d")
		case s.before <= 0 || s.poll <= 0:
			return errors.New("--before and --poll must be longer than 0s")
		case s.every < 0 || s.every > 0 && time.Duration(s.every) < time.Minute:
			return errors.New("--every must be 1m or longer, or 0s")
		}
		api, err = s.api()
		return err
	}
	cmd.RunE = c.Run(func(ctx context.Context, _ []string) error { return s.run(ctx, c, api, log) })
	return cmd
}

// run looks after the token until ctx ends, or once.
func (s *settings) run(ctx context.Context, c *cli.Command, api tokensource.API, log *slog.Logger) (err error) {
	held, shared, err := acquire(s.tokenFile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.release()) }()
	if shared {
		log.Warn("this file system cannot lock: two agents for one file get the same secrets, but both run the hook")
	}
	if secretfile.OthersCanRead(s.tokenFile) {
		log.Warn("the token can be read by others than its owner; chmod 600 it", "file", s.tokenFile)
	}
	source, err := tokensource.New(tokensource.Config{
		API:              api,
		Store:            tokensource.NewFile(s.tokenFile),
		Before:           time.Duration(s.before),
		Every:            time.Duration(s.every),
		KeepExpiry:       !s.renew,
		Grace:            time.Duration(s.grace),
		RetireOnFirstUse: s.firstUse,
		Poll:             time.Duration(s.poll),
		Logger:           log,
		Now:              c.Now,
	})
	if err != nil {
		return err
	}
	a := &agent{source: source, hook: newHook(c, s.hook, s.tokenFile, held, log)}
	if secret, err := source.Secret(ctx); err == nil { // else the first step says what is wrong
		if err := a.hook.begin(secret); err != nil {
			return err
		}
	}
	if s.once {
		return a.once(ctx, s.now)
	}
	for now := s.now; ; now = false {
		_ = a.step(ctx, now) // it is logged, and tried again
		if !sleep(ctx, a.hook.wait(source.Wait())) {
			log.Info("stopping")
			return nil
		}
	}
}

type agent struct {
	source *tokensource.Source
	hook   *hook
}

// step does what is due, and runs the hook if there is another secret.
func (a *agent) step(ctx context.Context, now bool) error {
	do := a.source.Step
	if now {
		do = a.source.RotateNow
	}
	err := do(ctx)
	secret, serr := a.source.Secret(ctx)
	if serr != nil {
		return errors.Join(err, serr)
	}
	if ctx.Err() != nil { // the hook would be killed; the next start runs it
		return err
	}
	return errors.Join(err, a.hook.check(ctx, secret, a.source.Status()))
}

// once is step for a command that ends then.
func (a *agent) once(ctx context.Context, now bool) error {
	if err := a.step(ctx, now); err != nil {
		return err
	}
	if st := a.source.Status(); !st.SelfRotate {
		return errors.New("the token may not rotate itself; its owner allows that by self_rotate")
	}
	return nil
}

// sleep reports whether it slept the whole time.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
