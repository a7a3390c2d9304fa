package remote

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"patd/cmd/patd/internal/cli"
	patdv1 "patd/gen/patd/v1"
)

// featureImpact is the command that says what the loss of features would do.
func featureImpact(c *cli.Command) *cobra.Command {
	var (
		r           patdv1.GetFeatureImpactRequest
		lose, users cli.List
		within      = cli.Duration(30 * 24 * time.Hour)
		asJSON      bool
	)
	cmd := &cobra.Command{
		Use:   "impact --lose FEATURE --user USER | --all",
		Short: "Say which live tokens would lose what if users lost features; nothing is changed",
		Args:  cli.Takes(),
	}
	f := cmd.Flags()
	f.Var(&lose, "lose", "the `features` that would be lost, comma-separated; repeat for more")
	f.Var(&users, "user", "the `users` who would lose them, comma-separated; repeat for more")
	f.BoolVar(&r.All, "all", false, "all users would lose them")
	f.Var(&within, "used-within", "uses within this time count as lately")
	f.Int32Var(
		&r.Limit,
		"limit",
		0,
		"name at most this many users, those with the most tokens; 200 at most (default 50)",
	)
	f.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		switch {
		case len(lose) == 0:
			return errors.New("say what would be lost: --lose FEATURE")
		case r.All == (len(users) > 0):
			return errors.New("say who would lose it: --user USER, or --all")
		}
		r.Lose, r.Users, r.UsedWithin = lose, users, durationpb.New(time.Duration(within))
		return nil
	}
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, _ []string) error {
			found, err := patdv1.NewCatalogServiceClient(conn).GetFeatureImpact(ctx, &r)
			if err != nil {
				return err
			}
			if asJSON {
				return c.Message(found)
			}
			fmt.Fprintf(
				c.Stdout,
				"%s of %s would lose something; %d of them were used lately with it%s.\n\n",
				cli.Counted(found.GetTokenCount(), "token"),
				cli.Counted(found.GetUserCount(), "user"),
				found.GetRecentlyUsedTokenCount()-found.GetUnknownUseTokenCount(),
				mayHave(found),
			)
			var rows [][]string
			for _, one := range found.GetFeatures() {
				rows = append(
					rows,
					[]string{
						one.GetFeature(),
						fmt.Sprint(one.GetTokenCount()),
						fmt.Sprint(one.GetUserCount()),
						used(one),
					},
				)
			}
			if err := cli.Table(
				c.Stdout,
				[]string{"FEATURE", "TOKENS", "USERS", "USED LATELY"},
				rows,
			); err != nil ||
				len(found.GetUsers()) == 0 {
				return err
			}
			rows = nil
			for _, one := range found.GetUsers() {
				rows = append(
					rows,
					[]string{
						one.GetUser(),
						fmt.Sprint(one.GetTokenCount()),
						used(one),
						strings.Join(one.GetFeatures(), " "),
					},
				)
			}
			fmt.Fprintln(c.Stdout)
			return cli.Table(c.Stdout, []string{"USER", "TOKENS", "USED LATELY", "LOSES"}, rows)
		},
	)
}

// used is how many tokens were used lately, and of how many more that is not known.
func used(of interface {
	GetRecentlyUsedTokenCount() int64
	GetUnknownUseTokenCount() int64
},
) string {
	if n := of.GetUnknownUseTokenCount(); n > 0 {
		return fmt.Sprintf("%d (%d more perhaps)", of.GetRecentlyUsedTokenCount()-n, n)
	}
	return fmt.Sprint(of.GetRecentlyUsedTokenCount())
}

// mayHave says of how many tokens it is not known whether they were used with what would be lost, and why.
func mayHave(found *patdv1.GetFeatureImpactResponse) string {
	n := found.GetUnknownUseTokenCount()
	switch {
	case n == 0:
		return ""
	case found.GetUseBasis() == patdv1.GetFeatureImpactResponse_TOKEN:
		return fmt.Sprintf(
			", and %d more may have been: uses are recorded by scope since %s only, or their services did not say what they need",
			n,
			found.GetScopeUsesSince().AsTime().Format(time.RFC3339),
		)
	default:
		return fmt.Sprintf(", and %d more may have been: their services did not say what they need", n)
	}
}
