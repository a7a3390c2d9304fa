package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/config"
	"patd/server"
	"patd/tokens"
)

func devCommand(c *cli.Command) *cobra.Command {
	var s config.Settings
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Serve a throw-away store with a demo user, and print lines to paste",
		Args:  cli.Takes(),
	}
	s.DevFlags(cmd.Flags())
	s.Source.Kind = config.SourceTable // holds the demo user's features
	var log *slog.Logger
	var policy tokens.Policy
	cmd.PreRunE = func(*cobra.Command, []string) (err error) {
		if log, err = config.NewLogger(c, &s); err != nil {
			return err
		}
		if policy, err = s.Policy(cmd.Flags().Changed("default-ttl")); err != nil {
			return err
		}
		if err = s.Source.OnlyChosen(cmd.Flags(), false); err != nil {
			return err
		}
		if err = s.SignIn.Read(c, cmd.Flags(), &s.Page); err != nil {
			return err
		}
		return s.Provisioning.Read(c, cmd.Flags(), &s.SignIn)
	}
	cmd.RunE = c.Run(func(ctx context.Context, _ []string) error { return serveDev(ctx, c, &s, policy, log) })
	return cmd
}

// serveDev serves a store in a temporary folder, which is removed at the end.
func serveDev(
	ctx context.Context,
	c *cli.Command,
	s *config.Settings,
	policy tokens.Policy,
	log *slog.Logger,
) (err error) {
	dir, err := os.MkdirTemp("", "patd-dev-") // mode 0700
	if err != nil {
		return fmt.Errorf("make a folder for the throw-away store: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// Here the end of the terminal ends the command; for serve, the signal is a hint to check the key file.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer stop()
	d := demo{dir: dir}
	s.HandoffTTL = tokens.PageSessionMax // the link must also work for somebody who reads it later
	s.DataDir = filepath.Join(dir, "data")
	alone := *c
	alone.Getenv = func(string) (string, bool) { return "", false } // its own key, regardless of PATD_HASH_KEY
	return serveStore(ctx, &alone, s, policy, log, func(srv *server.Server, service *tokens.Service) error {
		if err := d.fill(ctx, service); err != nil {
			return err
		}
		link, err := d.link(ctx, srv, service)
		if err != nil {
			return err
		}
		return d.welcome(c.Stdout, srv, link)
	})
}

// demo is the starting point of a newcomer: a user with features, and a service that may do everything.
type demo struct{ dir string }

const demoUser = "demo"

func (d demo) features() []string {
	return []string{"billing.read", "deploy.run", "reports.read", "reports.write"}
}

// header returns the file with curl's header: ps would show a secret in an argument.
func (d demo) header() string { return filepath.Join(d.dir, "header") }

func (d demo) tokenFile() string { return filepath.Join(d.dir, "token") }

func (d demo) fill(ctx context.Context, service *tokens.Service) error {
	m, err := service.CreateService(
		ctx,
		tokens.Operator(),
		tokens.ServiceRequest{Name: "dev", Permissions: []string{"admin"}},
	)
	if err != nil {
		return fmt.Errorf("make a service to call with: %w", err)
	}
	if _, err := service.SetUserFeatures(ctx, tokens.Operator(), demoUser, d.features()); err != nil {
		return fmt.Errorf("make the demo user: %w", err)
	}
	err = os.WriteFile(d.header(), []byte("Authorization: Bearer "+m.Secret.Reveal()+"\n"), 0o600)
	if err == nil {
		err = os.WriteFile(d.tokenFile(), []byte(m.Secret.Reveal()+"\n"), 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep the service token: %w", err)
	}
	return nil
}

// link returns an address that signs a browser in as the demo user, once.
func (d demo) link(ctx context.Context, srv *server.Server, service *tokens.Service) (string, error) {
	ttl := tokens.PageSessionMax
	_, code, err := service.HandOff(ctx, tokens.Operator(), tokens.HandoffRequest{User: demoUser, TTL: &ttl})
	if err != nil {
		return "", fmt.Errorf("make a link to the page: %w", err)
	}
	return srv.HandoffURL(code), nil
}

// The lines work in bash and zsh, pasted one by one or all at once, with curl and nothing else. curl reads the token's
// secret from standard input, and the caller's from a file. The minted secret goes to a file of the owner's alone,
// which ends with patd, and not to the terminal.
const welcome = `{link}

Open this link, once, to make a token in the browser. patd runs with a throw-away store until Ctrl-C.

  REST   {url}
  gRPC   {grpc}
  user   {user}, who holds the features {features}

Paste this into another terminal: it mints a token, asks what it may do, lists it, revokes it and asks again.

export PATD_URL={url} PATD_HEADER='{header}' PATD_ADDR={grpc} PATD_TOKEN_FILE='{token}'
(umask 077; curl -sS -H @"$PATD_HEADER" "$PATD_URL/v1/users/{user}/tokens" -d '{"name": "laptop", "scopes": ["reports.read", "deploy.run"], "ttl": "1d"}' > '{minted}')
sed 's/"secret": *"[^"]*"/"secret":"…"/' '{minted}'
SECRET=$(sed -n 's/.*"secret": *"\([^"]*\)".*/\1/p' '{minted}')
printf '{"token": "%s", "required_scopes": ["reports.read"]}' "$SECRET" | curl -sS -H @"$PATD_HEADER" "$PATD_URL/v1/introspect" -d @-
curl -sS -H @"$PATD_HEADER" "$PATD_URL/v1/users/{user}/tokens"
curl -sS -H @"$PATD_HEADER" -X DELETE "$PATD_URL/v1/users/{user}/tokens/$(printf '%s\n' "$SECRET" | cut -d_ -f2)"
printf '{"token": "%s"}' "$SECRET" | curl -sS -H @"$PATD_HEADER" "$PATD_URL/v1/introspect" -d @-

`

func (d demo) welcome(w io.Writer, srv *server.Server, link string) error {
	text := strings.NewReplacer(
		"{link}", link, "{url}", srv.Issuer(), "{grpc}", srv.GRPCAddr(), "{user}", demoUser,
		"{features}", strings.Join(d.features(), ", "), "{header}", d.header(), "{token}", d.tokenFile(),
		"{minted}", filepath.Join(d.dir, "minted.json"),
	).Replace(welcome)
	_, err := io.WriteString(w, text)
	return err
}
