package remote

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"patd/cmd/patd/internal/cli"
	patdv1 "patd/gen/patd/v1"
)

func tokenRotate(c *cli.Command) *cobra.Command {
	var (
		r      patdv1.RotateTokenRequest
		grace  cli.Duration
		life   lifetime
		retire string
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "rotate --user USER TOKEN-ID",
		Short: "Give a token a new secret and print it, this once",
		Long: `Give a token a new secret and print it, this once: alone on standard output, all else on standard error. The present
secret works on for the grace. The expiry stays as it is unless --renew, --ttl, --expire-time or --never-expires is given.
While the secret before the present one still works, the token is not rotated again, unless --force ends that one.`,
		Args: takesToken,
	}
	ownerFlags(cmd, &r.User, &asJSON, func() (err error) {
		if cmd.Flags().Changed("grace") {
			r.Grace = durationpb.New(time.Duration(grace))
		}
		if r.RetirePrevious, err = retirePrevious(retire); err != nil {
			return err
		}
		r.NeverExpires = life.never
		if r.Ttl, r.ExpireTime, err = life.read(); err != nil {
			return err
		}
		if r.GetRenew() && (r.GetTtl() != nil || r.GetExpireTime() != nil || life.never) {
			return errors.New("give one of --renew, --ttl, --expire-time and --never-expires")
		}
		return nil
	})
	f := cmd.Flags()
	f.Var(&grace, "grace", "how long the present secret works on, 0s to 30d")
	f.Lookup("grace").DefValue = "24h"
	f.BoolVar(&r.Renew, "renew", false, "give the token the lifetime that it had, again from now")
	f.BoolVar(&r.DropUnheld, "drop-unheld", false, "take away the scopes that the user does not hold now")
	f.StringVar(
		&retire,
		"retire-previous",
		"",
		"when the present secret ends: after-grace (the default), or on-first-use of the new one,\nor else after the grace",
	)
	f.BoolVar(
		&r.Force,
		"force",
		false,
		"rotate although the secret before the present one still works, and end that one",
	)
	life.addTo(cmd, "as before when left out")
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			r.TokenId = args[0]
			answer, err := patdv1.NewTokenServiceClient(conn).RotateToken(ctx, &r)
			if err != nil {
				return err
			}
			if asJSON {
				return c.Message(answer)
			}
			return printSecret(c, answer.GetToken(), answer.GetSecret(),
				cli.Field{"expiry", strings.ToLower(answer.GetExpireTimeChange().String())},
				cli.Field{"scopes taken away", strings.Join(answer.GetDroppedScopes(), " ")},
				cli.Field{"previous secret works until", cli.Moment(answer.GetPreviousSecretExpireTime(), "")})
		},
	)
}

// retirePrevious reads the value of --retire-previous.
func retirePrevious(text string) (patdv1.Rotation_RetirePrevious, error) {
	switch text {
	case "":
		return 0, nil
	case "after-grace":
		return patdv1.Rotation_AFTER_GRACE, nil
	case "on-first-use":
		return patdv1.Rotation_ON_FIRST_USE, nil
	}
	return 0, errors.New("--retire-previous must be after-grace or on-first-use")
}

func tokenResume(c *cli.Command) *cobra.Command {
	var (
		r      patdv1.ResumeTokenRequest
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "resume --user USER TOKEN-ID",
		Short: "End the pause of a token that was not used",
		Long: `End the pause of a token that was not used for longer than the server's --idle-ttl. Its secret works again, and counts as
used now. A token that is not paused stays as it is.`,
		Args: takesToken,
	}
	ownerFlags(cmd, &r.User, &asJSON, nil)
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			r.TokenId = args[0]
			answer, err := patdv1.NewTokenServiceClient(conn).ResumeToken(ctx, &r)
			if err != nil {
				return err
			}
			return printToken(c, answer.GetToken(), asJSON)
		},
	)
}

func tokenCancelRotation(c *cli.Command) *cobra.Command {
	var (
		r      patdv1.CancelRotationRequest
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "cancel-rotation --user USER TOKEN-ID",
		Short: "Put a token back as it was before its rotation",
		Long: `Put a token back as it was before its rotation, with the expiry that it had. The new secret ends at once. That is
possible while the previous secret works and the new one was never used.`,
		Args: takesToken,
	}
	ownerFlags(cmd, &r.User, &asJSON, nil)
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			r.TokenId = args[0]
			answer, err := patdv1.NewTokenServiceClient(conn).CancelRotation(ctx, &r)
			if err != nil {
				return err
			}
			return printToken(c, answer.GetToken(), asJSON)
		},
	)
}
