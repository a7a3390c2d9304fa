package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// The exit codes of introspect: a script can tell a refusal from a fault.
const (
	exitRefused         = 1
	exitIntrospectFault = 2
)

func (c *command) introspectCommand() *cobra.Command {
	var (
		r      patdv1.IntrospectRequest
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "introspect [--scope SCOPE] < TOKEN",
		Short: "Tell what the token on standard input may do now, over gRPC",
		Long: `Tell what the token on standard input may do now. One line end after the token is taken off.

Exit codes: 0 for the decision ALLOW, 1 for every other decision, 2 when there is none.`,
		Args: takes(),
	}
	f := cmd.Flags()
	f.StringArrayVar(&r.RequiredScopes, "scope", nil, "a scope that the call at hand needs; repeat for more")
	f.StringVar(&r.Audience, "audience", "", "the `audience` that the token is presented to")
	f.StringVar(&r.ClientIp, "client-ip", "", "the `address` that the token is presented from")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return c.remoteCommand(cmd, exitIntrospectFault, func(ctx context.Context, conn grpc.ClientConnInterface, _ []string) error {
		var err error
		if r.Token, err = c.presented(); err != nil {
			return err
		}
		answer, err := patdv1.NewIntrospectionServiceClient(conn).Introspect(ctx, &r)
		if err != nil {
			return err
		}
		if asJSON {
			err = c.message(answer)
		} else {
			err = record(c.Stdout, introspectionFields(answer))
		}
		if err == nil && answer.GetDecision() != patdv1.IntrospectResponse_ALLOW {
			return &exitError{code: exitRefused}
		}
		return err
	})
}

// presented reads the token from standard input. What is too long to be one is cut, which leaves it too long.
func (c *command) presented() (string, error) {
	text, err := io.ReadAll(io.LimitReader(c.Stdin, 2*tokens.MaxInput))
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	token := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if token == "" {
		return "", errors.New("there is no token on standard input")
	}
	return strings.ToValidUTF8(token, "\uFFFD"), nil
}

func introspectionFields(r *patdv1.IntrospectResponse) []field {
	fields := []field{{"decision", r.GetDecision().String()}}
	if !r.GetActive() {
		return fields
	}
	return append(fields,
		field{"token id", r.GetTokenId()},
		field{"user", r.GetUser()},
		field{"name", r.GetName()},
		field{"scopes", strings.Join(r.GetScopes(), " ")},
		field{"suspended scopes", strings.Join(r.GetSuspendedScopes(), " ")},
		field{"missing scopes", strings.Join(r.GetMissingScopes(), " ")},
		field{"audiences", strings.Join(r.GetAudiences(), " ")},
		field{"expires", moment(r.GetExpireTime(), "never")},
	)
}
