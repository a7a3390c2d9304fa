package remote

import (
	"context"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"patd/cmd/patd/internal/cli"
	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// Events is the command that reads the audit log.
func Events(c *cli.Command, under ...*cobra.Command) *cobra.Command {
	var (
		r      patdv1.ListEventsRequest
		limit  = 50
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "events [--user USER] [--token TOKEN-ID] [--actor ACTOR] [--action ACTION] [--limit N]",
		Short: "List who did what, newest first, over gRPC",
		Args:  cli.Takes(),
	}
	f := cmd.Flags()
	f.StringVar(&r.User, "user", "", "only what is about this `USER`")
	f.StringVar(&r.TokenId, "token", "", "only what is about the token of this `ID`")
	f.StringVar(&r.Actor, "actor", "", "only what this `ACTOR` did: service:NAME, user:ID, token:ID or operator")
	f.StringVar(&r.Action, "action", "", "only this `ACTION`, e.g. token.create")
	f.Var((*cli.Count)(&limit), "limit", "list at most this many")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if r.GetTokenId() == "" {
			return nil
		}
		return tokenID(r.GetTokenId())
	}
	cmd.AddCommand(under...)
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return cli.UnknownCommand(cmd, args[0])
		}
		return nil
	}
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, _ []string) error {
			all := &patdv1.ListEventsResponse{}
			for len(all.GetEvents()) < limit {
				r.PageSize = int32(min(limit-len(all.GetEvents()), tokens.MaxPageSize))
				page, err := patdv1.NewAuditServiceClient(conn).ListEvents(ctx, &r)
				if err != nil {
					return err
				}
				all.Events = append(all.Events, page.GetEvents()...)
				if r.PageToken = page.GetNextPageToken(); r.PageToken == "" {
					break
				}
			}
			if asJSON {
				return c.Message(all)
			}
			var rows [][]string
			for _, e := range all.GetEvents() {
				outcome := e.GetOutcome().String()
				if e.GetReason() != "" {
					outcome += " " + e.GetReason()
				}
				rows = append(rows, []string{
					cli.Moment(
						e.GetTime(),
						"-",
					),
					e.GetActor(),
					e.GetAction(),
					outcome,
					cli.OrDash(e.GetUser()),
					cli.OrDash(e.GetTokenId()),
					cli.OrDash(e.GetService()),
					cli.OrDash(e.GetPeerIp()),
					cli.OrDash(e.GetDetail()),
				})
			}
			return cli.Table(
				c.Stdout,
				[]string{"TIME", "ACTOR", "ACTION", "OUTCOME", "USER", "TOKEN ID", "SERVICE", "FROM", "DETAIL"},
				rows,
			)
		},
	)
}
