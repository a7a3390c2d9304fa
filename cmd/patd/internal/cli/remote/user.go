package remote

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"patd/cmd/patd/internal/cli"
	patdv1 "patd/gen/patd/v1"
)

// User is the command that manages users.
func User(c *cli.Command) *cobra.Command {
	cmd := &cobra.Command{Use: "user", Short: "Read and change users' features and states, over gRPC"}
	return c.Group(cmd,
		userFeatures(c),
		userRefresh(c),
		userState(c, "suspend", "Make all of a user's tokens inactive, until resumed", suspendUser),
		userState(c, "resume", "End a user's suspension", resumeUser),
		userState(c, "delete", "Forget a user and end all of its tokens for good", deleteUser),
		userShow(c), userList(c),
	)
}

func userFeatures(c *cli.Command) *cobra.Command {
	var (
		whole, add, remove []string
		asJSON             bool
	)
	cmd := &cobra.Command{
		Use:   "features USER [--set LIST | --add LIST | --remove LIST]",
		Short: "Print what a user holds, after a change if one is asked for",
		Args:  cli.Takes("USER"),
	}
	f := cmd.Flags()
	f.StringSliceVar(&whole, "set", nil, "hold exactly the features of this `LIST`, comma-separated; '' for none")
	f.StringSliceVar(&add, "add", nil, "hold those of this `LIST` too")
	f.StringSliceVar(&remove, "remove", nil, "no longer hold those of this `LIST`")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if f.Changed("set") && (f.Changed("add") || f.Changed("remove")) {
			return errors.New("--set goes with neither --add nor --remove")
		}
		return nil
	}
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			users, user := patdv1.NewUserServiceClient(conn), args[0]
			var answer interface {
				proto.Message
				GetFeatures() []*patdv1.Feature
			}
			var err error
			switch {
			case f.Changed("set"):
				answer, err = users.SetUserFeatures(ctx, &patdv1.SetUserFeaturesRequest{User: user, Features: whole})
			case f.Changed("add") || f.Changed("remove"):
				answer, err = users.UpdateUserFeatures(
					ctx,
					&patdv1.UpdateUserFeaturesRequest{User: user, Add: add, Remove: remove},
				)
			default:
				answer, err = users.GetUserFeatures(ctx, &patdv1.GetUserFeaturesRequest{User: user})
			}
			if err != nil {
				return err
			}
			if asJSON {
				return c.Message(answer)
			}
			var lines []error
			for _, held := range answer.GetFeatures() {
				_, err := fmt.Fprintln(c.Stdout, held.GetName())
				lines = append(lines, err)
			}
			return errors.Join(lines...)
		},
	)
}

func userRefresh(c *cli.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "refresh USER",
		Short: "Ask the source of features about a user anew, so that a change there counts at once",
		Args:  cli.Takes("USER"),
	}
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			_, err := patdv1.NewUserServiceClient(conn).RefreshUser(ctx, &patdv1.RefreshUserRequest{User: args[0]})
			return err
		},
	)
}

// userChange is a change of a user's state.
type userChange struct {
	user, reason string
	wait         *durationpb.Duration // nil: it does not wait
}

// changeUser changes a user's state, and returns what to print: as JSON and as a record.
type changeUser func(ctx context.Context, users patdv1.UserServiceClient, u userChange) (proto.Message, []cli.Field, error)

func userState(c *cli.Command, name, short string, change changeUser) *cobra.Command {
	var (
		reason string
		asJSON bool
	)
	cmd := &cobra.Command{Use: name + " USER", Short: short, Args: cli.Takes("USER")}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	wait := func() *durationpb.Duration { return nil }
	if name == "suspend" {
		wait = waitFlag(cmd)
	}
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			answer, fields, err := change(
				ctx,
				patdv1.NewUserServiceClient(conn),
				userChange{user: args[0], reason: reason, wait: wait()},
			)
			if err != nil {
				return err
			}
			if asJSON {
				return c.Message(answer)
			}
			return cli.Record(c.Stdout, append([]cli.Field{{"user", args[0]}}, fields...))
		},
	)
}

func suspendUser(
	ctx context.Context,
	users patdv1.UserServiceClient,
	u userChange,
) (proto.Message, []cli.Field, error) {
	answer, err := users.SuspendUser(ctx, &patdv1.SuspendUserRequest{User: u.user, Reason: u.reason, Wait: u.wait})
	fields := []cli.Field{{"state", answer.GetUser().GetState().String()}}
	return answer.GetUser(), append(fields, receiptFields(answer.GetUser().GetReceipt())...), err
}

func resumeUser(ctx context.Context, users patdv1.UserServiceClient, u userChange) (proto.Message, []cli.Field, error) {
	answer, err := users.ResumeUser(ctx, &patdv1.ResumeUserRequest{User: u.user, Reason: u.reason})
	return answer.GetUser(), []cli.Field{{"state", answer.GetUser().GetState().String()}}, err
}

func deleteUser(ctx context.Context, users patdv1.UserServiceClient, u userChange) (proto.Message, []cli.Field, error) {
	answer, err := users.DeleteUser(ctx, &patdv1.DeleteUserRequest{User: u.user, Reason: u.reason})
	return answer, []cli.Field{{"tokens revoked", fmt.Sprint(answer.GetRevokedCount())}}, err
}
