package remote

import (
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"patd/cmd/patd/internal/cli"
	patdv1 "patd/gen/patd/v1"
)

// waitFlag adds the flag of a command that can wait for a receipt. The result returns its value; nil: it was not given.
func waitFlag(cmd *cobra.Command) func() *durationpb.Duration {
	var wait cli.Duration
	cmd.Flags().
		Var(&wait, "wait", "wait up to this `DURATION` until every verifier that watches refuses, and print who does not yet")
	return func() *durationpb.Duration {
		if !cmd.Flags().Changed("wait") {
			return nil
		}
		return durationpb.New(time.Duration(wait))
	}
}

// receiptFields are what a receipt says; none for nil.
func receiptFields(r *patdv1.Receipt) []cli.Field {
	switch {
	case r == nil:
		return nil
	case r.GetRefusedEverywhere():
		return []cli.Field{{"refused everywhere", "since " + cli.Moment(r.GetSince(), "")}}
	default:
		return []cli.Field{{"refused everywhere", "not known yet; silent: " + strings.Join(r.GetSilent(), ", ")}}
	}
}
