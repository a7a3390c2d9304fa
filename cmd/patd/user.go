package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	patdv1 "patd/gen/patd/v1"
)

func (c *command) userCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "user", Short: "Read and change users' features and states, over gRPC"}
	return c.group(cmd,
		c.userFeatures(),
		c.userRefresh(),
		c.userState("suspend", "Make all of a user's tokens inactive, until resumed", suspendUser),
		c.userState("resume", "End a user's suspension", resumeUser),
		c.userState("delete", "Forget a user and end all of its tokens for good", deleteUser),
		c.userShow(), c.userList(),
	)
}

func (c *command) userFeatures() *cobra.Command {
	var (
		whole, add, remove []string
		asJSON             bool
	)
	cmd := &cobra.Command{
		Use:   "features USER [--set LIST | --add LIST | --remove LIST]",
		Short: "Print what a user holds, after a change if one is asked for",
		Args:  takes("USER"),
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
	return c.remoteCommand(cmd, exitFault, func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
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
			answer, err = users.UpdateUserFeatures(ctx, &patdv1.UpdateUserFeaturesRequest{User: user, Add: add, Remove: remove})
		default:
			answer, err = users.GetUserFeatures(ctx, &patdv1.GetUserFeaturesRequest{User: user})
		}
		if err != nil {
			return err
		}
		if asJSON {
			return c.message(answer)
		}
		var lines []error
		for _, held := range answer.GetFeatures() {
			_, err := fmt.Fprintln(c.Stdout, held.GetName())
			lines = append(lines, err)
		}
		return errors.Join(lines...)
	})
}

func (c *command) userRefresh() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "refresh USER",
		Short: "Ask the source of features about a user anew, so that a change there counts at once",
		Args:  takes("USER"),
	}
	return c.remoteCommand(cmd, exitFault, func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
		_, err := patdv1.NewUserServiceClient(conn).RefreshUser(ctx, &patdv1.RefreshUserRequest{User: args[0]})
		return err
	})
}

// changeUser changes a user's state, and answers what to print: as JSON and as a record.
type changeUser func(ctx context.Context, users patdv1.UserServiceClient, user, reason string) (proto.Message, []field, error)

func (c *command) userState(name, short string, change changeUser) *cobra.Command {
	var (
		reason string
		asJSON bool
	)
	cmd := &cobra.Command{Use: name + " USER", Short: short, Args: takes("USER")}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c.remoteCommand(cmd, exitFault, func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
		answer, fields, err := change(ctx, patdv1.NewUserServiceClient(conn), args[0], reason)
		if err != nil {
			return err
		}
		if asJSON {
			return c.message(answer)
		}
		return record(c.Stdout, append([]field{{"user", args[0]}}, fields...))
	})
}

func suspendUser(ctx context.Context, users patdv1.UserServiceClient, user, reason string) (proto.Message, []field, error) {
	answer, err := users.SuspendUser(ctx, &patdv1.SuspendUserRequest{User: user, Reason: reason})
	return answer.GetUser(), []field{{"state", answer.GetUser().GetState().String()}}, err
}

func resumeUser(ctx context.Context, users patdv1.UserServiceClient, user, reason string) (proto.Message, []field, error) {
	answer, err := users.ResumeUser(ctx, &patdv1.ResumeUserRequest{User: user, Reason: reason})
	return answer.GetUser(), []field{{"state", answer.GetUser().GetState().String()}}, err
}

func deleteUser(ctx context.Context, users patdv1.UserServiceClient, user, reason string) (proto.Message, []field, error) {
	answer, err := users.DeleteUser(ctx, &patdv1.DeleteUserRequest{User: user, Reason: reason})
	return answer, []field{{"tokens revoked", fmt.Sprint(answer.GetRevokedCount())}}, err
}
