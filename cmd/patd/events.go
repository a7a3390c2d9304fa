package main

import (
	"context"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

func (c *command) eventsCommand() *cobra.Command {
	var (
		r      patdv1.ListEventsRequest
		limit  = 50
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "events [--user USER] [--token TOKEN-ID] [--actor ACTOR] [--action ACTION] [--limit N]",
		Short: "List who did what, newest first, over gRPC",
		Args:  takes(),
	}
	f := cmd.Flags()
	f.StringVar(&r.User, "user", "", "only what is about this `USER`")
	f.StringVar(&r.TokenId, "token", "", "only what is about the token of this `ID`")
	f.StringVar(&r.Actor, "actor", "", "only what this `ACTOR` did: service:NAME, user:ID, token:ID or operator")
	f.StringVar(&r.Action, "action", "", "only this `ACTION`, e.g. token.create")
	f.Var((*count)(&limit), "limit", "list at most this many")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if r.GetTokenId() == "" {
			return nil
		}
		return tokenID(r.GetTokenId())
	}
	cmd.AddCommand(c.eventsPrune())
	return c.remoteCommand(cmd, exitFault, func(ctx context.Context, conn grpc.ClientConnInterface, _ []string) error {
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
			return c.message(all)
		}
		var rows [][]string
		for _, e := range all.GetEvents() {
			outcome := e.GetOutcome().String()
			if e.GetReason() != "" {
				outcome += " " + e.GetReason()
			}
			rows = append(rows, []string{
				moment(e.GetTime(), "-"), e.GetActor(), e.GetAction(), outcome, orDash(e.GetUser()), orDash(e.GetTokenId()),
				orDash(e.GetService()), orDash(e.GetPeerIp()), orDash(e.GetDetail()),
			})
		}
		return table(c.Stdout, []string{"TIME", "ACTOR", "ACTION", "OUTCOME", "USER", "TOKEN ID", "SERVICE", "FROM", "DETAIL"}, rows)
	})
}
