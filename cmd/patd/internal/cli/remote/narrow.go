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
		f       tokenFilter
		r       patdv1.BulkNarrowTokensRequest
		unused  cli.Duration
		confirm int64
		asJSON  bool
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
	cmd.Flags().
		Int64Var(&confirm, "confirm", -1, "pause them: the scopes of `N` tokens, as this command said without it")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.PreRunE = func(*cobra.Command, []string) error { return f.read(c.Now()) }
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, _ []string) error {
			inventory := patdv1.NewInventoryServiceClient(conn)
			r.Filter, r.UnusedFor, r.DryRun = f.filter(), unusedFor(unused), true
			answer, err := inventory.BulkNarrowTokens(ctx, &r)
			if err != nil {
				return err
			}
			n := answer.GetCount()
			switch {
			case confirm < 0 && asJSON:
				return c.Message(answer)
			case confirm < 0:
				for _, left := range []struct {
					n   int64
					why string
				}{{answer.GetNotRecordedCount(), "their uses are not known for so long"}, {answer.GetUnscopedCount(), "some uses did not say which scopes they needed"}} {
					if left.n > 0 {
						fmt.Fprintf(c.Stderr, "patd: %d tokens are left alone: %s\n", left.n, left.why)
					}
				}
				_, err := fmt.Fprintf(
					c.Stdout,
					"%d scopes of %d tokens would be paused; nothing was changed. To pause them: --confirm %d\n",
					answer.GetScopeCount(),
					n,
					n,
				)
				return err
			case confirm != n:
				return fmt.Errorf("%d tokens have unused scopes now, not %d; nothing was changed", n, confirm)
			}
			for r.DryRun, r.Plan = false, answer.GetPlan(); !answer.GetDone(); {
				if answer, err = inventory.BulkNarrowTokens(ctx, &r); err != nil {
					return err
				}
				if !answer.GetDone() {
					fmt.Fprintf(c.Stderr, "patd: %d of %d narrowed\n", answer.GetNarrowedCount(), n)
				}
			}
			if asJSON {
				return c.Message(answer)
			}
			_, err = fmt.Fprintf(
				c.Stdout,
				"%d scopes of %d tokens paused\n",
				answer.GetPausedScopeCount(),
				answer.GetNarrowedCount(),
			)
			return err
		},
	)
}
