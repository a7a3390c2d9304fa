package remote

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"patd/cmd/patd/internal/cli"
	patdv1 "patd/gen/patd/v1"
)

// changes are the flags of `token update`.
type changes struct {
	token  patdv1.Token
	labels []string
	end    string
	until  string
}

func tokenUpdate(c *cli.Command) *cobra.Command {
	var (
		r      patdv1.UpdateTokenRequest
		ch     changes
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "update --user USER TOKEN-ID",
		Short: "Change a token's name, description, labels and networks, or narrow it",
		Long: `Change what is given and leave the rest as it is. Scopes can only become fewer, and the end only earlier; then the token
renews itself no longer than that either, unless --renewable-until is given. What can be given several times replaces all
that was there; '' alone leaves none.`,
		Args: takesToken,
	}
	f := cmd.Flags()
	ownerFlags(cmd, &r.User, &asJSON, func() (err error) {
		fields := map[string]string{
			"name":            "name",
			"description":     "description",
			"scope":           "scopes",
			"expire-time":     "expire_time",
			"label":           "labels",
			"cidr":            "allowed_cidrs",
			"self-rotate":     "self_rotate",
			"renewable-until": "renewable_until",
		}
		mask := []string{}
		for flag, field := range fields {
			if f.Changed(flag) {
				mask = append(mask, field)
			}
		}
		if len(mask) == 0 {
			return errors.New(
				"say what to change: --name, --description, --scope, --expire-time, --label, --cidr, --self-rotate or\n--renewable-until",
			)
		}
		slices.Sort(mask)
		r.UpdateMask = strings.Join(mask, ",")
		r.Token, err = ch.read(f.Changed("expire-time"))
		return err
	})
	f.StringVar(&ch.token.Name, "name", "", "what to call it")
	f.StringVar(&ch.token.Description, "description", "", "what it is for")
	f.Var((*cli.Names)(&ch.token.Scopes), "scope", "the scopes that it keeps, of those it has, a `LIST`; or repeat")
	f.StringVar(&ch.end, "expire-time", "", "when the token ends, e.g. 2030-01-31T12:00:00Z; only earlier")
	f.StringArrayVar(&ch.labels, "label", nil, "a label, `KEY=VALUE`; repeat for more")
	f.StringSliceVar(&ch.token.AllowedCidrs, "cidr", nil, "networks that it may be used from, a `LIST`; or repeat")
	f.BoolVar(
		&ch.token.SelfRotate,
		"self-rotate",
		false,
		"let the token give itself a new secret; =false: it no longer may",
	)
	renewableFlag(cmd, &ch.until, "; '' for not at all")
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			r.TokenId = args[0]
			answer, err := patdv1.NewTokenServiceClient(conn).UpdateToken(ctx, &r)
			if err != nil {
				return err
			}
			return printToken(c, answer.GetToken(), asJSON)
		},
	)
}

// read returns the changes in the form of a request.
func (ch *changes) read(ends bool) (t *patdv1.Token, err error) {
	t = &ch.token
	if t.Labels, err = labelled(unlessNone(ch.labels)); err != nil {
		return nil, err
	}
	if t.RenewableUntil, err = renewable(ch.until); err != nil {
		return nil, err
	}
	t.AllowedCidrs = unlessNone(t.GetAllowedCidrs())
	if ends {
		t.ExpireTime, err = instant(ch.end)
	}
	return t, err
}

// unlessNone returns the values of a flag, or none if it was given as an empty text.
func unlessNone(values []string) []string {
	if len(values) == 1 && values[0] == "" {
		return nil
	}
	return values
}
