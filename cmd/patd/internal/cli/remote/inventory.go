package remote

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"patd/cmd/patd/internal/cli"
	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// tokenFilter is a selection of tokens given on a command line.
type tokenFilter struct {
	q                      patdv1.SearchTokensRequest
	state                  string
	labels                 []string
	expires, unused, older string
}

func (f *tokenFilter) addTo(fs *pflag.FlagSet) {
	fs.StringVar(&f.q.User, "user", "", "only those of the user with this `id`")
	fs.StringVar(&f.state, "state", "", "only those of this `STATE`: active, expired or revoked")
	fs.StringVar(
		&f.q.Q,
		"q",
		"",
		"only those whose name contains this `text`; without --user also the one with this id",
	)
	fs.StringVar(&f.q.Audience, "audience", "", "only those that name this `audience`")
	fs.StringVar(&f.q.Scope, "scope", "", "only those that were granted this `scope`")
	fs.StringArrayVar(&f.labels, "label", nil, "only those with this label, `KEY=VALUE`; repeat for more")
	fs.StringVar(
		&f.expires,
		"expires-before",
		"",
		"only those that end before this `time`, or within so long, e.g. 30d",
	)
	fs.StringVar(
		&f.unused,
		"unused-since",
		"",
		"only those not used since this `time`, or for so long, e.g. 90d; never used: by their issue",
	)
	fs.StringVar(&f.older, "created-before", "", "only those made before this `time`, or so long ago, e.g. 365d")
}

// read makes the request of the flags.
func (f *tokenFilter) read(now time.Time) (err error) {
	if v, ok := patdv1.Token_State_value[strings.ToUpper(f.state)]; ok && v != 0 {
		f.q.State = patdv1.Token_State(v)
	} else if f.state != "" {
		return errors.New("--state must be active, expired or revoked")
	}
	if f.q.Label, err = labelled(f.labels); err != nil {
		return err
	}
	for _, t := range []struct {
		flag, text string
		sign       time.Duration
		to         **timestamppb.Timestamp
	}{
		{"expires-before", f.expires, 1, &f.q.ExpiresBefore}, {"unused-since", f.unused, -1, &f.q.UnusedSince},
		{"created-before", f.older, -1, &f.q.CreatedBefore},
	} {
		var d cli.Duration
		if t.text == "" {
			continue
		} else if at, err := time.Parse(time.RFC3339Nano, t.text); err == nil {
			*t.to = timestamppb.New(at)
		} else if d.Set(t.text) == nil {
			*t.to = timestamppb.New(now.Add(t.sign * time.Duration(d)))
		} else {
			return fmt.Errorf("--%s must be a time such as 2030-01-31T12:00:00Z, or how long such as 90d", t.flag)
		}
	}
	return nil
}

// ofUser reports whether the filter is one that a user may ask about its own tokens.
func (f *tokenFilter) ofUser() bool {
	return f.q.GetUser() != "" && f.q.GetScope() == "" && len(f.labels) == 0 && f.q.GetOrder() == "" &&
		f.expires == "" && f.unused == "" && f.older == ""
}

func tokenList(c *cli.Command) *cobra.Command {
	var (
		f      tokenFilter
		limit  int
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List tokens, newest first: of one user with --user, or else of all",
		Long: `List tokens, newest first: of one user with --user, or else of all. With --expires-before or --state expired the
tokens of all are listed by their expiry, unless --order says otherwise.`,
		Args: cli.Takes(),
	}
	f.addTo(cmd.Flags())
	cmd.Flags().
		StringVar(&f.q.Order, "order", "", "-issue_time, issue_time, -expire_time or `expire_time`; a minus: the latest first")
	cmd.Flags().IntVar(&limit, "limit", 1000, "list `N` tokens at most; 0: all")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if limit < 0 {
			return errors.New("--limit must not be negative")
		}
		return f.read(c.Now())
	}
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, _ []string) error {
			pages := f.pages(conn)
			all, more := &patdv1.SearchTokensResponse{}, false
			for token, first := "", true; first || token != ""; first = false {
				found, next, err := pages(ctx, token)
				if err != nil {
					return err
				}
				all.Tokens, token = append(all.Tokens, found...), next
				if n := len(all.GetTokens()); limit > 0 && n >= limit && (n > limit || next != "") {
					all.Tokens, more = all.GetTokens()[:limit], true
					break
				}
			}
			if more {
				fmt.Fprintf(c.Stderr, "patd: there are more than %d; --limit 0 lists all of them\n", limit)
			}
			if asJSON {
				return c.Message(all)
			}
			return printTokens(c, all.GetTokens(), f.q.GetUser() == "")
		},
	)
}

// pages returns how to read one page.
func (f *tokenFilter) pages(
	conn grpc.ClientConnInterface,
) func(context.Context, string) ([]*patdv1.Token, string, error) {
	if f.ofUser() {
		return func(ctx context.Context, token string) ([]*patdv1.Token, string, error) {
			page, err := patdv1.NewTokenServiceClient(conn).ListTokens(ctx, &patdv1.ListTokensRequest{
				User: f.q.GetUser(), State: f.q.GetState(), Q: f.q.GetQ(), Audience: f.q.GetAudience(),
				PageSize: tokens.MaxPageSize, PageToken: token,
			})
			return page.GetTokens(), page.GetNextPageToken(), err
		}
	}
	return func(ctx context.Context, token string) ([]*patdv1.Token, string, error) {
		f.q.PageSize, f.q.PageToken = tokens.MaxPageSize, token
		page, err := patdv1.NewInventoryServiceClient(conn).SearchTokens(ctx, &f.q)
		return page.GetTokens(), page.GetNextPageToken(), err
	}
}

func printTokens(c *cli.Command, list []*patdv1.Token, withUser bool) error {
	head := []string{"TOKEN ID", "NAME", "STATE", "SCOPES", "ISSUED", "EXPIRES", "LAST USED"}
	if withUser {
		head = append(head, "USER")
	}
	var rows [][]string
	for _, t := range list {
		row := []string{
			t.GetTokenId(),
			t.GetName(),
			t.GetState().String(),
			strings.Join(t.GetScopes(), " "),
			cli.Moment(
				t.GetIssueTime(),
				"-",
			),
			cli.Moment(t.GetExpireTime(), "never"),
			cli.Moment(t.GetLastUsedTime(), "never"),
		}
		if withUser {
			row = append(row, t.GetUser())
		}
		rows = append(rows, row)
	}
	return cli.Table(c.Stdout, head, rows)
}

// filter is the selection in the form of a revocation.
func (f *tokenFilter) filter() *patdv1.TokenFilter {
	return &patdv1.TokenFilter{
		User:          f.q.GetUser(),
		State:         f.q.GetState(),
		Scope:         f.q.GetScope(),
		Audience:      f.q.GetAudience(),
		Label:         f.q.GetLabel(),
		ExpiresBefore: f.q.GetExpiresBefore(),
		UnusedSince:   f.q.GetUnusedSince(),
		CreatedBefore: f.q.GetCreatedBefore(),
		Q:             f.q.GetQ(),
	}
}

func tokenRevokeMatching(c *cli.Command) *cobra.Command {
	var (
		f tokenFilter
		r patdv1.BulkRevokeTokensRequest
		b bulk
	)
	cmd := &cobra.Command{
		Use:   "revoke-matching",
		Short: "End all tokens that a filter selects, for good, once their number is confirmed",
		Long: `End all tokens that a filter selects, for good. Without --confirm it says how many these are, and changes nothing.
With --confirm N it ends them if they are N.`,
		Args: cli.Takes(),
	}
	f.addTo(cmd.Flags())
	cmd.Flags().StringVar(&r.Reason, "reason", "", "why, for the record")
	b.addTo(cmd.Flags(), "end them: `N` tokens, as this command said without it")
	cmd.PreRunE = func(*cobra.Command, []string) error { return f.read(c.Now()) }
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, _ []string) error {
			inventory := patdv1.NewInventoryServiceClient(conn)
			r.Filter = f.filter()
			return runBulk(ctx, c, b, bulkChange[*patdv1.BulkRevokeTokensResponse]{
				dryRun: func(ctx context.Context) (*patdv1.BulkRevokeTokensResponse, error) {
					r.DryRun = true
					return inventory.BulkRevokeTokens(ctx, &r)
				},
				step: func(ctx context.Context, plan string) (*patdv1.BulkRevokeTokensResponse, error) {
					r.DryRun, r.Plan = false, plan
					return inventory.BulkRevokeTokens(ctx, &r)
				},
				would: func(a *patdv1.BulkRevokeTokensResponse) error {
					_, err := fmt.Fprintf(
						c.Stdout,
						"%d tokens would be revoked; nothing was changed. To revoke them: --confirm %[1]d\n",
						a.GetCount(),
					)
					return err
				},
				changed: "the filter selects %d tokens now, not %d",
				did: func(a *patdv1.BulkRevokeTokensResponse) string {
					return fmt.Sprintf("%d of %d revoked", a.GetRevokedCount(), b.confirm)
				},
				done: func(a *patdv1.BulkRevokeTokensResponse) string {
					return fmt.Sprintf("%d tokens revoked", a.GetRevokedCount())
				},
			})
		},
	)
}
