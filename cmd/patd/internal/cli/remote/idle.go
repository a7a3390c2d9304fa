package remote

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"patd/cmd/patd/internal/cli"
	patdv1 "patd/gen/patd/v1"
)

func tokenPreviewIdle(c *cli.Command) *cobra.Command {
	var (
		r      patdv1.GetIdlePreviewRequest
		idle   cli.Duration
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "preview-idle",
		Short: "Say which tokens the idle pause would announce and pause; nothing is changed",
		Long: `Say which active tokens the idle pause (--idle-ttl of patd serve) would announce and pause. Nothing is changed. The idle
pause need not be on.`,
		Args: cli.Takes(),
	}
	cmd.Flags().
		Var(&idle, "idle-ttl", "tokens that were not used for so `long`, e.g. 180d; without it: the server's --idle-ttl")
	cmd.Flags().
		Int32Var(&r.Limit, "limit", 0, "name at most this many tokens, the longest unused; 200 at most (default 50)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, _ []string) error {
			if idle != 0 {
				r.IdleTtl = durationpb.New(time.Duration(idle))
			}
			found, err := patdv1.NewInventoryServiceClient(conn).GetIdlePreview(ctx, &r)
			if err != nil {
				return err
			}
			if asJSON {
				return c.Message(found)
			}
			fmt.Fprintf(
				c.Stdout,
				"%d active tokens: %d would be announced now, %d are announced, %d would be paused now; these are of %d users. %d are paused already.\n",
				found.GetActiveTokenCount(),
				found.GetAnnounceTokenCount(),
				found.GetWaitingTokenCount(),
				found.GetPauseTokenCount(),
				found.GetUserCount(),
				found.GetPausedTokenCount(),
			)
			var rows [][]string
			for _, t := range found.GetTokens() {
				used := "never"
				if t.GetLastUsedTime() != nil {
					used = t.GetLastUsedTime().AsTime().Format(time.RFC3339)
				}
				rows = append(
					rows,
					[]string{
						t.GetTokenId(),
						t.GetUser(),
						t.GetName(),
						used,
						t.GetPauseTime().AsTime().Format(time.RFC3339),
					},
				)
			}
			if len(rows) == 0 {
				return nil
			}
			fmt.Fprintln(c.Stdout)
			return cli.Table(c.Stdout, []string{"TOKEN", "USER", "NAME", "LAST USED", "PAUSE"}, rows)
		},
	)
}
