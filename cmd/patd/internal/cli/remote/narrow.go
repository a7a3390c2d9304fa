package remote

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"patd/cmd/patd/internal/cli"
	patdv1 "patd/gen/patd/v1"
)

// unusedFor reads how long scopes were not used; nil: never used.
func unusedFor(d cli.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(time.Duration(d))
}

func tokenNarrow(c *cli.Command) *cobra.Command {
	var (
		r       patdv1.NarrowTokenRequest
		unused  cli.Duration
		confirm bool
		asJSON  bool
	)
	cmd := &cobra.Command{
		Use:   "narrow --user USER TOKEN-ID",
		Short: "Pause scopes of a token that were not used, for its owner to resume within 30 days",
		Long: `Pause scopes of a token: those that were never used, or not for so long, or those that are named. Without --confirm it
says which these are, and changes nothing. Paused scopes are not in effect until the owner resumes them (patd token
resume-scopes); after 30 days they are removed for good.`,
		Args: takesToken,
	}
	ownerFlags(cmd, &r.User, &asJSON, func() error {
		if len(r.GetScopes()) > 0 && unused != 0 {
			return errors.New("give either --scope or --unused-for")
		}
		return nil
	})
	cmd.Flags().Var((*cli.Names)(&r.Scopes), "scope", "pause these, used or not, a `LIST` such as a,b; or repeat")
	cmd.Flags().
		Var(&unused, "unused-for", "pause those not used for so `long`, in whole days, e.g. 90d; without it: never used")
	cmd.Flags().BoolVar(&confirm, "confirm", false, "pause them")
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			r.TokenId, r.UnusedFor, r.DryRun = args[0], unusedFor(unused), !confirm
			answer, err := patdv1.NewTokenServiceClient(conn).NarrowToken(ctx, &r)
			if err != nil {
				return err
			}
			if asJSON {
				return c.Message(answer)
			}
			list := strings.Join(answer.GetNarrowedScopes(), " ")
			switch n := answer.GetUnscopedUses().GetUseCount(); {
			case list == "":
				_, err = fmt.Fprintln(c.Stdout, "no scope is to be paused")
			case r.GetDryRun():
				_, err = fmt.Fprintf(
					c.Stdout,
					"would be paused: %s; nothing was changed. To pause them: --confirm\n",
					list,
				)
				if n > 0 {
					fmt.Fprintf(c.Stderr, "patd: some %d uses did not say which scopes they needed\n", n)
				}
			default:
				_, err = fmt.Fprintf(
					c.Stdout,
					"paused: %s; can be resumed until %s\n",
					list,
					cli.Moment(answer.GetResumeUntil(), ""),
				)
			}
			return err
		},
	)
}

func tokenResumeScopes(c *cli.Command) *cobra.Command {
	var (
		r      patdv1.ResumeScopesRequest
		asJSON bool
	)
	cmd := &cobra.Command{
		Use: "resume-scopes --user USER TOKEN-ID", Short: "Have paused scopes of a token in effect again",
		Args: takesToken,
	}
	ownerFlags(cmd, &r.User, &asJSON, nil)
	cmd.Flags().Var((*cli.Names)(&r.Scopes), "scope", "only these, a `LIST` such as a,b; or repeat")
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			r.TokenId = args[0]
			answer, err := patdv1.NewTokenServiceClient(conn).ResumeScopes(ctx, &r)
			if err != nil {
				return err
			}
			return printToken(c, answer.GetToken(), asJSON)
		},
	)
}

func tokenNarrowMatching(c *cli.Command) *cobra.Command {
	var (
		f      tokenFilter
		r      patdv1.BulkNarrowTokensRequest
		unused cli.Duration
		b      bulk
	)
	cmd := &cobra.Command{
		Use:   "narrow-matching",
		Short: "Pause the unused scopes of all tokens that a filter selects, once their number is confirmed",
		Long: `Pause the unused scopes of all active tokens that a filter selects, as patd token narrow does. Without --confirm it says
how many these are, and changes nothing. With --confirm N it pauses them if N tokens have any.`,
		Args: cli.Takes(),
	}
	f.addTo(cmd.Flags())
	cmd.Flags().
		Var(&unused, "unused-for", "pause scopes not used for so `long`, in whole days, e.g. 90d; without it: never used")
	cmd.Flags().
		BoolVar(&r.IncludeUnscoped, "include-unscoped", false, "narrow tokens too that were used where the service did not say which scopes it needed")
	b.addTo(cmd.Flags(), "pause them: the scopes of `N` tokens, as this command said without it")
	cmd.PreRunE = func(*cobra.Command, []string) error { return f.read(c.Now()) }
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, _ []string) error {
			inventory := patdv1.NewInventoryServiceClient(conn)
			r.Filter, r.UnusedFor = f.filter(), unusedFor(unused)
			return runBulk(ctx, c, b, bulkChange[*patdv1.BulkNarrowTokensResponse]{
				dryRun: func(ctx context.Context) (*patdv1.BulkNarrowTokensResponse, error) {
					r.DryRun = true
					return inventory.BulkNarrowTokens(ctx, &r)
				},
				step: func(ctx context.Context, plan string) (*patdv1.BulkNarrowTokensResponse, error) {
					r.DryRun, r.Plan = false, plan
					return inventory.BulkNarrowTokens(ctx, &r)
				},
				would:   func(a *patdv1.BulkNarrowTokensResponse) error { return wouldNarrow(c, a) },
				changed: "%d tokens have unused scopes now, not %d",
				did: func(a *patdv1.BulkNarrowTokensResponse) string {
					return fmt.Sprintf("%d of %d narrowed", a.GetNarrowedCount(), b.confirm)
				},
				done: func(a *patdv1.BulkNarrowTokensResponse) string {
					return fmt.Sprintf("%d scopes of %d tokens paused", a.GetPausedScopeCount(), a.GetNarrowedCount())
				},
			})
		},
	)
}

// wouldNarrow says how many scopes would be paused, and which tokens would be left alone.
func wouldNarrow(c *cli.Command, a *patdv1.BulkNarrowTokensResponse) error {
	for _, left := range []struct {
		n   int64
		why string
	}{
		{a.GetNotRecordedCount(), "their uses are not known for so long"},
		{a.GetUnscopedCount(), "some uses did not say which scopes they needed"},
	} {
		if left.n > 0 {
			fmt.Fprintf(c.Stderr, "patd: %d tokens are left alone: %s\n", left.n, left.why)
		}
	}
	_, err := fmt.Fprintf(
		c.Stdout,
		"%d scopes of %d tokens would be paused; nothing was changed. To pause them: --confirm %[2]d\n",
		a.GetScopeCount(),
		a.GetCount(),
	)
	return err
}
