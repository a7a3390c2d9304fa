package remote

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"patd/cmd/patd/internal/cli"
	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

func userShow(c *cli.Command) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "show USER", Short: "Show a user's state", Args: cli.Takes("USER")}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			answer, err := patdv1.NewUserServiceClient(conn).GetUser(ctx, &patdv1.GetUserRequest{User: args[0]})
			if err != nil {
				return err
			}
			u := answer.GetUser()
			if asJSON {
				return c.Message(u)
			}
			return cli.Record(c.Stdout, []cli.Field{
				{"user", u.GetUser()}, {"state", u.GetState().String()}, {"created", cli.Moment(u.GetCreateTime(), "")},
			})
		},
	)
}

func userList(c *cli.Command) *cobra.Command {
	var (
		r      patdv1.ListUsersRequest
		state  string
		asJSON bool
	)
	cmd := &cobra.Command{Use: "list", Short: "List the users that patd has met, by id", Args: cli.Takes()}
	cmd.Flags().StringVar(&state, "state", "", "only those of this `STATE`: active or suspended")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if v, ok := patdv1.User_State_value[strings.ToUpper(state)]; ok && v != 0 {
			r.State = patdv1.User_State(v)
		} else if state != "" {
			return errors.New("--state must be active or suspended")
		}
		return nil
	}
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, _ []string) error {
			all := &patdv1.ListUsersResponse{}
			r.PageSize = tokens.MaxPageSize
			for {
				page, err := patdv1.NewUserServiceClient(conn).ListUsers(ctx, &r)
				if err != nil {
					return err
				}
				all.Users = append(all.Users, page.GetUsers()...)
				if r.PageToken = page.GetNextPageToken(); r.PageToken == "" {
					break
				}
			}
			if asJSON {
				return c.Message(all)
			}
			var rows [][]string
			for _, u := range all.GetUsers() {
				rows = append(rows, []string{u.GetUser(), u.GetState().String(), cli.Moment(u.GetCreateTime(), "-")})
			}
			return cli.Table(c.Stdout, []string{"USER", "STATE", "CREATED"}, rows)
		},
	)
}
