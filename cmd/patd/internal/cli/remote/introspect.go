package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"patd/cmd/patd/internal/cli"
	patdv1 "patd/gen/patd/v1"
	"patd/tokens/secret"
)

// The exit codes of introspect: a script can distinguish a refusal from a fault.
const (
	exitRefused         = 1
	exitIntrospectFault = 2
)

// Introspect is the command that introspects a token.
func Introspect(c *cli.Command) *cobra.Command {
	var (
		r      patdv1.IntrospectRequest
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "introspect [--scope SCOPE] < TOKEN",
		Short: "Tell what the token on standard input may do now, over gRPC",
		Long: `Tell what the token on standard input may do now. One line end after the token is taken off.

Exit codes: 0 for the decision ALLOW, 1 for every other decision, 2 when there is none.`,
		Args: cli.Takes(),
	}
	f := cmd.Flags()
	f.Var((*cli.Names)(&r.RequiredScopes), "scope", "scopes that the call at hand needs, a `LIST`; or repeat")
	f.StringVar(&r.Audience, "audience", "", "the `audience` that the token is presented to")
	f.StringVar(&r.ClientIp, "client-ip", "", "the `address` that the token is presented from")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return remoteCommand(
		c,
		cmd,
		exitIntrospectFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, _ []string) error {
			var err error
			if r.Token, err = presented(c); err != nil {
				return err
			}
			answer, err := patdv1.NewIntrospectionServiceClient(conn).Introspect(ctx, &r)
			if err != nil {
				return err
			}
			if asJSON {
				err = c.Message(answer)
			} else {
				err = cli.Record(c.Stdout, introspectionFields(answer))
			}
			if err == nil && answer.GetDecision() != patdv1.IntrospectResponse_ALLOW {
				return &cli.ExitError{Code: exitRefused}
			}
			return err
		},
	)
}

// presented reads the token from standard input. Overlong input is cut, which leaves it too long for a token.
func presented(c *cli.Command) (string, error) {
	text, err := io.ReadAll(io.LimitReader(c.Stdin, 2*secret.MaxInput))
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	token := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if token == "" {
		return "", errors.New("there is no token on standard input")
	}
	return strings.ToValidUTF8(token, "\uFFFD"), nil
}

func introspectionFields(r *patdv1.IntrospectResponse) []cli.Field {
	fields := []cli.Field{{"decision", r.GetDecision().String()}}
	if !r.GetActive() {
		return fields
	}
	return append(fields,
		cli.Field{"token id", r.GetTokenId()},
		cli.Field{"user", r.GetUser()},
		cli.Field{"name", r.GetName()},
		cli.Field{"scopes", strings.Join(r.GetScopes(), " ")},
		cli.Field{"suspended scopes", strings.Join(r.GetSuspendedScopes(), " ")},
		cli.Field{"paused scopes", strings.Join(r.GetPausedScopes(), " ")},
		cli.Field{"missing scopes", strings.Join(r.GetMissingScopes(), " ")},
		cli.Field{"audiences", strings.Join(r.GetAudiences(), " ")},
		cli.Field{"expires", cli.Moment(r.GetExpireTime(), "never")},
	)
}
