package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// onStore runs work on the store itself, the server running or not.
type onStore func(ctx context.Context, o *opened, args []string) error

// storeCommand makes a command that works on the store itself, and makes one where there is none.
func (c *command) storeCommand(cmd *cobra.Command, do onStore) *cobra.Command {
	return c.commandOn(cmd, c.open, do)
}

// commandOn makes a command that works on the store that open answers.
func (c *command) commandOn(cmd *cobra.Command, open func(context.Context, *settings, *slog.Logger) (*opened, error), do onStore) *cobra.Command {
	s := settings{databaseTimeout: patient}
	s.storeFlags(cmd.Flags())
	s.logFlags(cmd.Flags(), "warn", "text")
	var log *slog.Logger
	cmd.PreRunE = func(*cobra.Command, []string) (err error) {
		if log, err = c.logger(&s); err == nil {
			_, err = c.place(&s)
		}
		return err
	}
	cmd.RunE = c.run(func(ctx context.Context, args []string) (err error) {
		o, err := open(ctx, &s, log)
		if err != nil {
			return err
		}
		defer func() {
			if cerr := o.Close(); err == nil && cerr != nil {
				err = fmt.Errorf("close the store: %w", cerr)
			}
		}()
		if o.fresh {
			fmt.Fprintf(c.Stderr, "patd: made a new store, %s\n", o.place)
		}
		return do(ctx, o, args)
	})
	return cmd
}

func (c *command) serviceCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "service", Short: "Make, list and revoke service tokens, on the store itself"}
	return c.group(cmd, c.serviceCreate(), c.serviceList(), c.serviceRevoke())
}

// accounts makes the token service for managing services: no policy of personal access tokens matters to it.
func (c *command) accounts(o *opened) (*tokens.Service, error) {
	return c.service(o, nil, tokens.NewKeyring(o.keys), &settings{}, tokens.Policy{}, nil)
}

func (c *command) serviceCreate() *cobra.Command {
	var (
		r      tokens.ServiceRequest
		ttl    duration
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "create NAME --permission PERMISSION --data-dir DIR",
		Short: "Make a service and print the secret of its token, this once",
		Long: `Make a service and print the secret of its token, this once: alone on standard output, all else on standard error.
The permissions are introspect, tokens, users, catalog, audit and admin; admin implies all.`,
		Args: takes("NAME"),
	}
	f := cmd.Flags()
	f.StringSliceVar(&r.Permissions, "permission", nil, "what the service may do: a `PERMISSION`, or several separated by commas; or repeat")
	f.StringVar(&r.Audience, "audience", "", "bind the service to tokens of this `audience`")
	f.Var(&ttl, "ttl", "how long the token lives")
	f.Lookup("ttl").DefValue = "365d"
	f.BoolVar(&asJSON, "json", false, "print JSON, the secret in it")
	return c.storeCommand(cmd, func(ctx context.Context, o *opened, args []string) error {
		r.Name = args[0]
		for i, p := range r.Permissions {
			r.Permissions[i] = strings.TrimSpace(p)
		}
		if f.Changed("ttl") {
			d := time.Duration(ttl)
			r.TTL = &d
		}
		service, err := c.accounts(o)
		if err != nil {
			return err
		}
		m, err := service.CreateService(ctx, tokens.Operator(), r)
		if err != nil {
			return err
		}
		account := accountMessage(m.Service, service.Now())
		if asJSON {
			return c.message(&patdv1.CreateServiceResponse{Service: account, Secret: m.Secret.Reveal()})
		}
		if err := record(c.Stderr, accountFields(account)); err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.Stdout, m.Secret.Reveal())
		return err
	})
}

func (c *command) serviceList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "list --data-dir DIR", Short: "List services, newest first", Args: takes()}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c.storeCommand(cmd, func(ctx context.Context, o *opened, _ []string) error {
		service, err := c.accounts(o)
		if err != nil {
			return err
		}
		all := &patdv1.ListServicesResponse{}
		for page := (tokens.Page{Size: tokens.MaxPageSize}); ; {
			found, next, err := service.Services(ctx, tokens.Operator(), page)
			if err != nil {
				return err
			}
			for _, a := range found {
				all.Services = append(all.Services, accountMessage(a, service.Now()))
			}
			if page.Token = next; next == "" {
				break
			}
		}
		if asJSON {
			return c.message(all)
		}
		var rows [][]string
		for _, a := range all.GetServices() {
			rows = append(rows, []string{
				a.GetName(), a.GetTokenId(), a.GetState().String(), strings.Join(a.GetPermissions(), ","), orDash(a.GetAudience()),
				moment(a.GetIssueTime(), "-"), moment(a.GetExpireTime(), "never"),
			})
		}
		return table(c.Stdout, []string{"NAME", "TOKEN ID", "STATE", "PERMISSIONS", "AUDIENCE", "ISSUED", "EXPIRES"}, rows)
	})
}

func (c *command) serviceRevoke() *cobra.Command {
	var (
		reason string
		asJSON bool
	)
	cmd := &cobra.Command{Use: "revoke NAME --data-dir DIR", Short: "End a service's token for good", Args: takes("NAME")}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c.storeCommand(cmd, func(ctx context.Context, o *opened, args []string) error {
		service, err := c.accounts(o)
		if err != nil {
			return err
		}
		a, err := service.RevokeService(ctx, tokens.Operator(), args[0], reason)
		if err != nil {
			return err
		}
		account := accountMessage(a, service.Now())
		if asJSON {
			return c.message(account)
		}
		return record(c.Stdout, accountFields(account))
	})
}

// accountMessage is a service as the wire shows it.
func accountMessage(a tokens.ServiceAccount, now time.Time) *patdv1.Service {
	m := &patdv1.Service{
		TokenId: a.ID.String(), Name: a.Name, Permissions: a.Permissions.Names(), Audience: a.Audience,
		IssueTime: timestamppb.New(a.IssueTime),
	}
	switch a.Status(now) {
	case tokens.StateActive:
		m.State = patdv1.Service_ACTIVE
	case tokens.StateExpired:
		m.State = patdv1.Service_EXPIRED
	case tokens.StateRevoked:
		m.State = patdv1.Service_REVOKED
	}
	if !a.ExpireTime.IsZero() {
		m.ExpireTime = timestamppb.New(a.ExpireTime)
	}
	if r := a.Revocation; r != nil {
		m.RevokeTime, m.RevokedBy, m.RevokeReason = timestamppb.New(r.Time), r.By, r.Reason
	}
	return m
}

func accountFields(a *patdv1.Service) []field {
	return []field{
		{"name", a.GetName()},
		{"token id", a.GetTokenId()},
		{"state", a.GetState().String()},
		{"permissions", strings.Join(a.GetPermissions(), " ")},
		{"audience", a.GetAudience()},
		{"issued", moment(a.GetIssueTime(), "")},
		{"expires", moment(a.GetExpireTime(), "never")},
		{"revoked", moment(a.GetRevokeTime(), "")},
		{"revoked by", a.GetRevokedBy()},
		{"reason", a.GetRevokeReason()},
	}
}
