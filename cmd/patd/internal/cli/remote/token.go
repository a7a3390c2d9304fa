package remote

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"patd/cmd/patd/internal/cli"
	patdv1 "patd/gen/patd/v1"
	"patd/tokens/secret"
)

// Token is the command that manages users' tokens.
func Token(c *cli.Command) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Make, list, show, change, rotate and revoke users' tokens, over gRPC"}
	return c.Group(
		cmd,
		tokenCreate(c),
		tokenList(c),
		tokenShow(c),
		tokenUpdate(c),
		tokenRotate(c),
		tokenCancelRotation(c),
		tokenResume(c),
		tokenNarrow(c),
		tokenResumeScopes(c),
		tokenRevoke(c),
		tokenRevokeMatching(c),
		tokenNarrowMatching(c),
		tokenPreviewIdle(c),
	)
}

// ownerFlags adds the flags of commands about one user's tokens, which refuse to run without a user. check, which may
// be nil, makes further checks before they run.
func ownerFlags(cmd *cobra.Command, user *string, asJSON *bool, check func() error) {
	cmd.Flags().StringVar(user, "user", "", "`id` of the user who owns the token")
	cmd.Flags().BoolVar(asJSON, "json", false, "print JSON")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if *user == "" {
			return errors.New("say whose token: --user USER")
		}
		if check == nil {
			return nil
		}
		return check()
	}
}

// takesToken requires the id of a token, and otherwise explains where to find it: the server receives an id, and never
// a secret.
func takesToken(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return errors.New("takes one argument: TOKEN-ID, as in `patd token list`")
	}
	return tokenID(args[0])
}

func tokenID(arg string) error {
	if _, err := secret.ParseID(arg); err == nil {
		return nil
	}
	if parts := strings.Split(arg, "_"); secret.ContainsSecret(arg) && len(parts) == 3 {
		if id, err := secret.ParseID(parts[1]); err == nil {
			return fmt.Errorf("that is a whole secret; give its id, which is %s, and if it was exposed revoke it", id)
		}
	}
	return errors.New("that is no token id; give the id, as in `patd token list`: 11 letters and digits")
}

// lifetime is the token lifetime given on a command line: at most one of three.
type lifetime struct {
	ttl   cli.Duration
	at    string
	never bool
	flags *pflag.FlagSet
}

func (l *lifetime) addTo(cmd *cobra.Command, otherwise string) {
	l.flags = cmd.Flags()
	l.flags.Var(&l.ttl, "ttl", "how long the token lives, e.g. 180d; "+otherwise)
	l.flags.Lookup("ttl").DefValue = ""
	l.flags.StringVar(&l.at, "expire-time", "", "when the token ends, e.g. 2030-01-31T12:00:00Z")
	l.flags.BoolVar(&l.never, "never-expires", false, "the token never ends, where the policy allows it")
}

// read returns the lifetime in the form of a request.
func (l *lifetime) read() (ttl *durationpb.Duration, at *timestamppb.Timestamp, err error) {
	if l.flags.Changed("ttl") {
		ttl = durationpb.New(time.Duration(l.ttl))
	}
	if l.at != "" {
		if at, err = instant(l.at); err != nil {
			return nil, nil, err
		}
	}
	if ttl != nil && at != nil || l.never && (ttl != nil || at != nil) {
		return nil, nil, errors.New("give one of --ttl, --expire-time and --never-expires")
	}
	return ttl, at, nil
}

// instant reads the value of --expire-time.
func instant(text string) (*timestamppb.Timestamp, error) {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return nil, errors.New("--expire-time must be a time such as 2030-01-31T12:00:00Z")
	}
	return timestamppb.New(t), nil
}

// renewableFlag adds the flag with the end of a token's own renewals.
func renewableFlag(cmd *cobra.Command, until *string, more string) {
	cmd.Flags().
		StringVar(until, "renewable-until", "", "until when the token may renew itself, a `TIME` such as 2030-01-31T12:00:00Z"+more)
}

// renewable reads the value of --renewable-until; empty: the token does not renew itself.
func renewable(text string) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return nil, errors.New("--renewable-until must be a time such as 2030-01-31T12:00:00Z")
	}
	return timestamppb.New(t), nil
}

// labelled reads the values of --label.
func labelled(given []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, l := range given {
		k, v, ok := strings.Cut(l, "=")
		if !ok {
			return nil, errors.New("--label must be KEY=VALUE")
		}
		labels[k] = v
	}
	return labels, nil
}

func tokenCreate(c *cli.Command) *cobra.Command {
	var (
		r      patdv1.CreateTokenRequest
		life   lifetime
		labels []string
		until  string
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "create --user USER --name NAME --scope SCOPE",
		Short: "Make a token and print its secret, this once",
		Long: `Make a token and print its secret, this once: alone on standard output, all else on standard error. The user must
hold each scope as a feature at this moment.`,
		Args: cli.Takes(),
	}
	f := cmd.Flags()
	ownerFlags(cmd, &r.User, &asJSON, func() (err error) {
		if r.Labels, err = labelled(labels); err != nil {
			return err
		}
		if r.RenewableUntil, err = renewable(until); err != nil {
			return err
		}
		r.NeverExpires = life.never
		r.Ttl, r.ExpireTime, err = life.read()
		return err
	})
	f.StringVar(&r.Name, "name", "", "what to call it, unique among the user's live tokens")
	f.Var((*cli.Names)(&r.Scopes), "scope", "what it may do, a `LIST` such as a,b; or repeat")
	f.StringVar(&r.Description, "description", "", "what it is for")
	f.StringArrayVar(&labels, "label", nil, "a label, `KEY=VALUE`; repeat for more")
	f.Var((*cli.Names)(&r.Audiences), "audience", "audiences that it is for, a `LIST`; or repeat")
	f.Var((*cli.Names)(&r.AllowedCidrs), "cidr", "networks that it may be used from, a `LIST`; or repeat")
	life.addTo(cmd, "the server's default when left out")
	f.BoolVar(
		&r.SelfRotate,
		"self-rotate",
		false,
		"let the token give itself a new secret, for programs that rotate on their own",
	)
	renewableFlag(cmd, &until, "; with --self-rotate")
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, _ []string) error {
			answer, err := patdv1.NewTokenServiceClient(conn).CreateToken(ctx, &r)
			if err != nil {
				return err
			}
			if asJSON {
				return c.Message(answer)
			}
			return printSecret(c, answer.GetToken(), answer.GetSecret())
		},
	)
}

// printSecret prints a token on standard error and its secret, alone, on standard output.
func printSecret(c *cli.Command, t *patdv1.Token, secret string, more ...cli.Field) error {
	if err := cli.Record(c.Stderr, append(tokenFields(t), more...)); err != nil {
		return err
	}
	_, err := fmt.Fprintln(c.Stdout, secret)
	return err
}

func tokenShow(c *cli.Command) *cobra.Command {
	var (
		user   string
		asJSON bool
	)
	cmd := &cobra.Command{Use: "show --user USER TOKEN-ID", Short: "Show one token", Args: takesToken}
	ownerFlags(cmd, &user, &asJSON, nil)
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			answer, err := patdv1.NewTokenServiceClient(conn).
				GetToken(ctx, &patdv1.GetTokenRequest{User: user, TokenId: args[0]})
			if err != nil {
				return err
			}
			return printToken(c, answer.GetToken(), asJSON)
		},
	)
}

func tokenRevoke(c *cli.Command) *cobra.Command {
	var (
		r      patdv1.RevokeTokenRequest
		asJSON bool
	)
	cmd := &cobra.Command{Use: "revoke --user USER TOKEN-ID", Short: "End a token for good", Args: takesToken}
	ownerFlags(cmd, &r.User, &asJSON, nil)
	cmd.Flags().StringVar(&r.Reason, "reason", "", "why, for the record")
	wait := waitFlag(cmd)
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			r.TokenId, r.Wait = args[0], wait()
			answer, err := patdv1.NewTokenServiceClient(conn).RevokeToken(ctx, &r)
			switch {
			case err != nil:
				return err
			case asJSON && r.Wait != nil:
				return c.Message(answer)
			case asJSON:
				return c.Message(answer.GetToken())
			}
			return cli.Record(c.Stdout, append(tokenFields(answer.GetToken()), receiptFields(answer.GetReceipt())...))
		},
	)
}

// printToken prints one token.
func printToken(c *cli.Command, t *patdv1.Token, asJSON bool) error {
	if asJSON {
		return c.Message(t)
	}
	return cli.Record(c.Stdout, tokenFields(t))
}

func tokenFields(t *patdv1.Token) []cli.Field {
	var labels []string
	for _, k := range slices.Sorted(maps.Keys(t.GetLabels())) {
		labels = append(labels, k+"="+t.GetLabels()[k])
	}
	blocked := ""
	if t.GetPolicyBlocked() {
		blocked = "yes, it exceeds the policy of an audience"
	}
	used := cli.Moment(t.GetLastUsedTime(), "never")
	if ip := t.GetLastUsedIp(); ip != "" {
		used += " from " + ip
	}
	rotation := ""
	if r := t.GetRotation(); r != nil {
		rotation = "previous secret works until " + cli.Moment(r.GetPreviousSecretExpireTime(), "")
		if r.GetRetirePrevious() == patdv1.Rotation_ON_FIRST_USE {
			rotation += " or the first use of the new one"
		}
	}
	self := ""
	if t.GetSelfRotate() {
		self = "yes"
		if until := t.GetRenewableUntil(); until != nil {
			self += ", and renews itself until " + cli.Moment(until, "")
		}
	}
	return []cli.Field{
		{"token id", t.GetTokenId()},
		{"user", t.GetUser()},
		{"name", t.GetName()},
		{"description", t.GetDescription()},
		{"state", t.GetState().String()},
		{"blocked", blocked},
		{"scopes", strings.Join(t.GetScopes(), " ")},
		{"paused scopes", pausedText(t)},
		{"unused scopes", unusedText(t)},
		{"audiences", strings.Join(t.GetAudiences(), " ")},
		{"networks", strings.Join(t.GetAllowedCidrs(), " ")},
		{"labels", strings.Join(labels, " ")},
		{"issued", cli.Moment(t.GetIssueTime(), "")},
		{"expires", cli.Moment(t.GetExpireTime(), "never")},
		{"rotation", rotation},
		{"rotates itself", self},
		{"last used", used},
		{"revoked", cli.Moment(t.GetRevokeTime(), "")},
		{"revoked by", t.GetRevokedBy()},
		{"reason", t.GetRevokeReason()},
	}
}

func pausedText(t *patdv1.Token) string {
	if len(t.GetPausedScopes()) == 0 {
		return ""
	}
	return strings.Join(
		t.GetPausedScopes(),
		" ",
	) + ", removed from " + cli.Moment(
		t.GetPausedScopesRemoveTime(),
		"",
	) + " on"
}

// unusedText names the scopes that were never used, where that is known.
func unusedText(t *patdv1.Token) string {
	var list []string
	for _, u := range t.GetScopeUses() {
		if u.GetLastUsedDay() == "" && !slices.Contains(t.GetPausedScopes(), u.GetScope()) {
			list = append(list, u.GetScope())
		}
	}
	if since := t.GetScopeUsesSince(); since != nil && len(list) > 0 {
		list = append(list, "(since "+cli.Moment(since, "")+")")
	}
	return strings.Join(list, " ")
}
