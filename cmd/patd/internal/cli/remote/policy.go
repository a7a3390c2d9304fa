package remote

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"patd/cmd/patd/internal/cli"
	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

func audienceCheck(c *cli.Command) *cobra.Command {
	var (
		r      patdv1.CheckAudienceRequest
		maxTTL cli.Duration
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "check ID [--max-ttl TTL] [--require-named]",
		Short: "Show which live tokens exceed an audience's policy, or one to try; changes nothing",
		Args:  cli.Takes("ID"),
	}
	f := cmd.Flags()
	f.Var(&maxTTL, "max-ttl", "try this longest lifetime (default the policy in force)")
	f.BoolVar(&r.AllowNever, "allow-never", false, "with --max-ttl: and allow tokens that never expire")
	f.BoolVar(
		&r.RequireNamed,
		"require-named",
		false,
		"count the tokens that name no audience, also where they are not refused yet",
	)
	f.BoolVar(&asJSON, "json", false, "print JSON")
	annotated := cli.ArgumentsOnly(f, "max-ttl", "allow-never")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if f.Changed("max-ttl") {
			r.MaxTtl = durationpb.New(time.Duration(maxTTL))
		} else if f.Changed("allow-never") {
			return errors.New("--allow-never is a part of a policy to try, and goes with --max-ttl")
		}
		return annotated
	}
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			r.Id, r.Limit = args[0], tokens.MaxPageSize
			all := &patdv1.CheckAudienceResponse{}
			for {
				page, err := patdv1.NewCatalogServiceClient(conn).CheckAudience(ctx, &r)
				if err != nil {
					return err
				}
				all.ExceedingCount, all.UnnamedCount = page.GetExceedingCount(), page.GetUnnamedCount()
				all.Tokens = append(all.Tokens, page.GetTokens()...)
				if r.After = page.GetAfter(); r.After == "" {
					break
				}
			}
			if asJSON {
				return c.Message(all)
			}
			return printExceeding(c, all)
		},
	)
}

// printExceeding prints the result of a dry run: the tokens on standard output, their number on standard error.
func printExceeding(c *cli.Command, all *patdv1.CheckAudienceResponse) error {
	var rows [][]string
	for _, t := range all.GetTokens() {
		left := "never"
		if t.GetExpiresIn() != nil {
			left = tokens.FormatDuration(t.GetExpiresIn().AsDuration().Round(time.Second))
		}
		rows = append(rows, []string{t.GetTokenId(), t.GetUser(), t.GetName(), left, cli.Yes(t.GetBlocked())})
	}
	fmt.Fprintf(c.Stderr, "patd: %d live token(s) exceed the policy\n", all.GetExceedingCount())
	if n := all.GetUnnamedCount(); n > 0 {
		fmt.Fprintf(
			c.Stderr,
			"patd: %d live token(s) name no audience, and are refused where the audience must be named\n",
			n,
		)
	}
	return cli.Table(c.Stdout, []string{"TOKEN ID", "USER", "NAME", "EXPIRES IN", "BLOCKED"}, rows)
}

// changeBlocks blocks or unblocks some tokens of an audience, and returns how many it changed, and how many are left.
type changeBlocks func(ctx context.Context, catalog patdv1.CatalogServiceClient, id, reason string) (done int32, left int64, err error)

func audienceBlocks(c *cli.Command, name, short string, change changeBlocks) *cobra.Command {
	var (
		reason string
		asJSON bool
	)
	cmd := &cobra.Command{Use: name + " ID", Short: short, Args: cli.Takes("ID")}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			catalog, total := patdv1.NewCatalogServiceClient(conn), 0
			for {
				done, left, err := change(ctx, catalog, args[0], reason)
				if err != nil {
					return err
				}
				// Nothing done and some left means that another process is at work, which is better not raced.
				if total += int(done); left == 0 || done == 0 {
					return printBlocks(c, name, total, left, asJSON)
				}
			}
		},
	)
}

func printBlocks(c *cli.Command, name string, total int, left int64, asJSON bool) error {
	if asJSON {
		return c.JSON(map[string]any{name + "ed_count": total, "remaining_count": left})
	}
	return cli.Record(c.Stdout, []cli.Field{{name + "ed", fmt.Sprint(total)}, {"remaining", fmt.Sprint(left)}})
}

func blockTokens(ctx context.Context, catalog patdv1.CatalogServiceClient, id, reason string) (int32, int64, error) {
	answer, err := catalog.BlockTokens(ctx, &patdv1.BlockTokensRequest{Id: id, Reason: reason})
	return answer.GetBlockedCount(), answer.GetRemainingCount(), err
}

func unblockTokens(ctx context.Context, catalog patdv1.CatalogServiceClient, id, reason string) (int32, int64, error) {
	answer, err := catalog.UnblockTokens(ctx, &patdv1.UnblockTokensRequest{Id: id, Reason: reason})
	return answer.GetUnblockedCount(), answer.GetRemainingCount(), err
}
