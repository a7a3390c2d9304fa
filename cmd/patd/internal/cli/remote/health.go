package remote

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"patd/cmd/patd/internal/cli"
)

// Health makes the command that asks a server whether it serves, for probes in images without a shell.
func Health(c *cli.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a server over gRPC whether it serves; no credential is needed",
		Long: `Ask a server over gRPC whether it serves; no credential is needed. A server that starts, stops, or cannot reach its store
for some seconds does not.

Exit codes: 0 when it serves, 1 otherwise.`,
		Args: cli.Takes(),
	}
	var r Connection
	cli.Grouped(cmd.Flags(), "Connection", r.addressFlags)
	cmd.RunE = c.Run(func(ctx context.Context, _ []string) (err error) {
		conn, err := r.connect(nil)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, conn.Close()) }()
		return checkHealth(ctx, c, conn, &r)
	})
	return cmd
}

func checkHealth(ctx context.Context, c *cli.Command, conn grpc.ClientConnInterface, r *Connection) error {
	answer, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
	if err != nil {
		return r.explain(err)
	}
	if answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		return errors.New("the server does not serve now: " + answer.GetStatus().String())
	}
	_, err = fmt.Fprintln(c.Stdout, "serving")
	return err
}
