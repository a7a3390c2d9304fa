package storeadmin

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/timestamppb"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/config"
	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
	"patd/tokens/secret"
)

// onStore runs work on the store itself, whether the server runs or not.
type onStore func(ctx context.Context, o *Opened, args []string) error

// storeCommand makes a command that works on the store itself, and creates one if there is none.
func storeCommand(c *cli.Command, cmd *cobra.Command, do onStore) *cobra.Command {
	return commandOn(c, cmd, Open, do)
}

// commandOn makes a command that works on the store that open returns.
func commandOn(
	c *cli.Command,
	cmd *cobra.Command,
	open func(context.Context, *cli.Command, *config.Settings, *slog.Logger) (*Opened, error),
	do onStore,
) *cobra.Command {
	s := config.Settings{DatabaseTimeout: config.Patient}
	cli.Grouped(cmd.Flags(), "Store", s.StoreFlags)
	cli.Grouped(cmd.Flags(), "Log", func(f *pflag.FlagSet) { s.LogFlags(f, "warn", "text") })
	var log *slog.Logger
	cmd.PreRunE = func(*cobra.Command, []string) (err error) {
		if log, err = config.NewLogger(c, &s); err == nil {
			_, err = config.PlaceOf(c, &s)
		}
		return err
	}
	cmd.RunE = c.Run(func(ctx context.Context, args []string) (err error) {
		o, err := open(ctx, c, &s, log)
		if err != nil {
			return err
		}
		defer func() {
			if cerr := o.Close(); err == nil && cerr != nil {
				err = fmt.Errorf("close the store: %w", cerr)
			}
		}()
		if o.Fresh {
			fmt.Fprintf(c.Stderr, "patd: made a new store, %s\n", o.Place)
		}
		return do(ctx, o, args)
	})
	return cmd
}

// Service is the command that manages services.
func Service(c *cli.Command) *cobra.Command {
	cmd := &cobra.Command{Use: "service", Short: "Make, list, rotate and revoke service tokens, on the store itself"}
	return c.Group(cmd, serviceCreate(c), serviceList(c), serviceRotate(c), serviceRevoke(c))
}

// Accounts makes the token service for managing services: it needs no policy of personal access tokens.
func Accounts(c *cli.Command, o *Opened) (*tokens.Service, error) {
	return NewService(c, o, nil, secret.NewKeyring(o.Keys), &config.Settings{}, tokens.Policy{}, nil)
}

func serviceCreate(c *cli.Command) *cobra.Command {
	var (
		r      tokens.ServiceRequest
		ttl    cli.Duration
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "create NAME --permission PERMISSION --data-dir DIR",
		Short: "Make a service and print the secret of its token, this once",
		Long: `Make a service and print the secret of its token, this once: alone on standard output, all else on standard error.
The permissions are introspect, tokens, users, catalog, audit and admin; admin implies all.`,
		Args: cli.Takes("NAME"),
	}
	f := cmd.Flags()
	f.StringSliceVar(
		&r.Permissions,
		"permission",
		nil,
		"what the service may do: a `PERMISSION`, or several separated by commas; or repeat",
	)
	f.StringVar(&r.Audience, "audience", "", "bind the service to tokens of this `audience`")
	f.Var(&ttl, "ttl", "how long the token lives")
	f.Lookup("ttl").DefValue = "365d"
	f.BoolVar(&asJSON, "json", false, "print JSON, the secret in it")
	return storeCommand(c, cmd, func(ctx context.Context, o *Opened, args []string) error {
		r.Name = args[0]
		for i, p := range r.Permissions {
			r.Permissions[i] = strings.TrimSpace(p)
		}
		if f.Changed("ttl") {
			d := time.Duration(ttl)
			r.TTL = &d
		}
		service, err := Accounts(c, o)
		if err != nil {
			return err
		}
		m, err := service.CreateService(ctx, tokens.Operator(), r)
		if err != nil {
			return err
		}
		account := accountMessage(m.Service)
		if asJSON {
			return c.Message(&patdv1.CreateServiceResponse{Service: account, Secret: m.Secret.Reveal()})
		}
		return printSecret(c, account, m.Secret)
	})
}

func serviceList(c *cli.Command) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list --data-dir DIR",
		Short: "List services: those that are live first, by when they expire",
		Args:  cli.Takes(),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return storeCommand(c, cmd, func(ctx context.Context, o *Opened, _ []string) error {
		service, err := Accounts(c, o)
		if err != nil {
			return err
		}
		var accounts []tokens.ServiceAccount
		for page := (tokens.Page{Size: tokens.MaxPageSize}); ; {
			found, next, err := service.Services(ctx, tokens.Operator(), page)
			if err != nil {
				return err
			}
			accounts = append(accounts, found...)
			if page.Token = next; next == "" {
				break
			}
		}
		now := service.Now()
		slices.SortStableFunc(accounts, byExpiry(now))
		all := &patdv1.ListServicesResponse{}
		for _, a := range accounts {
			all.Services = append(all.Services, accountMessage(a))
		}
		if asJSON {
			return c.Message(all)
		}
		var rows [][]string
		for _, a := range all.GetServices() {
			rows = append(rows, []string{
				a.GetName(),
				a.GetTokenId(),
				a.GetState().String(),
				strings.Join(a.GetPermissions(), ","),
				cli.OrDash(a.GetAudience()),
				cli.Moment(a.GetIssueTime(), "-"),
				cli.Moment(a.GetExpireTime(), "never"),
			})
		}
		return cli.Table(
			c.Stdout,
			[]string{"NAME", "TOKEN ID", "STATE", "PERMISSIONS", "AUDIENCE", "ISSUED", "EXPIRES"},
			rows,
		)
	})
}

// byExpiry sorts services: the live ones, soonest expiry first, and then the others, latest expiry first.
func byExpiry(now time.Time) func(a, b tokens.ServiceAccount) int {
	return func(a, b tokens.ServiceAccount) int {
		live, other := a.Status(now) == tokens.StateActive, b.Status(now) == tokens.StateActive
		switch {
		case live && !other:
			return -1
		case other && !live:
			return 1
		case live:
			return expiry(a).Compare(expiry(b))
		default:
			return expiry(b).Compare(expiry(a))
		}
	}
}

// expiry returns when a service expires; one that never does is after all others.
func expiry(a tokens.ServiceAccount) time.Time {
	if a.ExpireTime.IsZero() {
		return time.Unix(1<<40, 0)
	}
	return a.ExpireTime
}

func serviceRotate(c *cli.Command) *cobra.Command {
	var (
		r          tokens.RotateServiceRequest
		grace, ttl cli.Duration
		asJSON     bool
	)
	cmd := &cobra.Command{
		Use:   "rotate NAME --data-dir DIR",
		Short: "Give a service's token a new secret, and print it, this once",
		Long: `Give a service's token a new secret, and print it, this once: alone on standard output, all else on standard error.
The name and the token id stay, and with them the OAuth client id. Both secrets are accepted during the grace: give the
new one to the programs that use the service meanwhile.`,
		Args: cli.Takes("NAME"),
	}
	f := cmd.Flags()
	f.Var(&grace, "grace", "how long the present secret is accepted, never past its own expiry")
	f.Lookup("grace").DefValue = "7d"
	f.Var(&ttl, "ttl", "how long the new secret lives")
	f.Lookup("ttl").DefValue = "as long as the present one did"
	f.BoolVar(
		&r.Force,
		"force",
		false,
		"rotate although a secret is still in the grace of an earlier rotation, which ends it at once",
	)
	f.BoolVar(&asJSON, "json", false, "print JSON, the secret in it")
	return storeCommand(c, cmd, func(ctx context.Context, o *Opened, args []string) error {
		r.Name = args[0]
		if f.Changed("grace") {
			d := time.Duration(grace)
			r.Grace = &d
		}
		if f.Changed("ttl") {
			d := time.Duration(ttl)
			r.TTL = &d
		}
		service, err := Accounts(c, o)
		if err != nil {
			return err
		}
		m, err := service.RotateService(ctx, tokens.Operator(), r)
		if err != nil {
			return err
		}
		account, until := accountMessage(m.Service), timestamppb.New(m.PreviousUntil)
		if asJSON {
			return c.Message(
				&patdv1.RotateServiceResponse{
					Service:                  account,
					Secret:                   m.Secret.Reveal(),
					PreviousSecretExpireTime: until,
				},
			)
		}
		return printSecret(c, account, m.Secret)
	})
}

// printSecret prints the new secret of a service alone on standard output, and all else on standard error.
func printSecret(c *cli.Command, account *patdv1.Service, s tokens.Secret) error {
	if err := cli.Record(c.Stderr, accountFields(account)); err != nil {
		return err
	}
	_, err := fmt.Fprintln(c.Stdout, s.Reveal())
	return err
}

func serviceRevoke(c *cli.Command) *cobra.Command {
	var (
		reason string
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "revoke NAME --data-dir DIR",
		Short: "End a service's token for good",
		Args:  cli.Takes("NAME"),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return storeCommand(c, cmd, func(ctx context.Context, o *Opened, args []string) error {
		service, err := Accounts(c, o)
		if err != nil {
			return err
		}
		a, err := service.RevokeService(ctx, tokens.Operator(), args[0], reason)
		if err != nil {
			return err
		}
		account := accountMessage(a)
		if asJSON {
			return c.Message(account)
		}
		return cli.Record(c.Stdout, accountFields(account))
	})
}

// accountMessage returns a service in its wire form.
func accountMessage(a tokens.ServiceAccount) *patdv1.Service {
	now := a.AsOf
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
	if !a.RotateTime.IsZero() {
		m.RotateTime = timestamppb.New(a.RotateTime)
	}
	if a.PreviousUntil.After(now) && a.Revocation == nil {
		m.PreviousSecretExpireTime = timestamppb.New(a.PreviousUntil)
	}
	if !a.ExpireTime.IsZero() {
		m.ExpireTime = timestamppb.New(a.ExpireTime)
	}
	if r := a.Revocation; r != nil {
		m.RevokeTime, m.RevokedBy, m.RevokeReason = timestamppb.New(r.Time), r.By, r.Reason
	}
	return m
}

func accountFields(a *patdv1.Service) []cli.Field {
	return []cli.Field{
		{"name", a.GetName()},
		{"token id", a.GetTokenId()},
		{"state", a.GetState().String()},
		{"permissions", strings.Join(a.GetPermissions(), " ")},
		{"audience", a.GetAudience()},
		{"issued", cli.Moment(a.GetIssueTime(), "")},
		{"expires", cli.Moment(a.GetExpireTime(), "never")},
		{"rotated", cli.Moment(a.GetRotateTime(), "")},
		{"previous secret until", cli.Moment(a.GetPreviousSecretExpireTime(), "")},
		{"revoked", cli.Moment(a.GetRevokeTime(), "")},
		{"revoked by", a.GetRevokedBy()},
		{"reason", a.GetRevokeReason()},
	}
}
