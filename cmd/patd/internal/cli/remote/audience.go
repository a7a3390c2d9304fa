package remote

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"patd/cmd/patd/internal/cli"
	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// Audience is the command that manages audiences.
func Audience(c *cli.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audience",
		Short: "Describe the APIs that accept tokens, and the lifetimes that they allow, over gRPC",
	}
	return c.Group(
		cmd,
		audienceWrite(
			c,
			"create",
			"Add an audience",
			func(ctx context.Context, catalog patdv1.CatalogServiceClient, e *patdv1.Audience) (*patdv1.Audience, error) {
				answer, err := catalog.CreateAudience(ctx, &patdv1.CreateAudienceRequest{Audience: e})
				return answer.GetAudience(), err
			},
		),
		audienceList(c),
		audienceShow(c),
		audienceWrite(
			c,
			"replace",
			"Write an audience anew; what is not given is as in a new one, except --require-named, which stays",
			func(ctx context.Context, catalog patdv1.CatalogServiceClient, e *patdv1.Audience) (*patdv1.Audience, error) {
				answer, err := catalog.ReplaceAudience(ctx, &patdv1.ReplaceAudienceRequest{Id: e.GetId(), Audience: e})
				return answer.GetAudience(), err
			},
		),
		audienceDelete(c),
		audienceCheck(c),
		audienceBlocks(
			c,
			"block",
			"Make the tokens inactive that live longer than the audience's policy allows now; reversible",
			blockTokens,
		),
		audienceBlocks(c, "unblock", "End the blocks that were made for an audience", unblockTokens),
	)
}

// writeAudience writes an audience and returns it as it is now.
type writeAudience func(ctx context.Context, catalog patdv1.CatalogServiceClient, e *patdv1.Audience) (*patdv1.Audience, error)

func audienceWrite(c *cli.Command, name, short string, write writeAudience) *cobra.Command {
	var (
		e                             patdv1.Audience
		defaultTTL, maxTTL, accessTTL cli.Duration
		format                        string
		asJSON                        bool
	)
	cmd := &cobra.Command{Use: name + " ID", Short: short, Args: cli.Takes("ID")}
	f := cmd.Flags()
	f.StringVar(&e.DisplayName, "display-name", "", "name for people")
	f.StringVar(&e.Resource, "resource", "", "resource `URI` (RFC 8707)")
	f.Var(&defaultTTL, "default-ttl", "lifetime of a token whose request names none (default the server's)")
	f.Var(&maxTTL, "max-ttl", "longest lifetime of a token (default the server's)")
	f.BoolVar(&e.AllowNever, "allow-never", false, "allow tokens that never expire")
	f.BoolVar(&e.AllowOfflineAccess, "allow-offline-access", false, "give out refresh tokens for it")
	f.Var(&accessTTL, "access-token-ttl", "lifetime of short-lived access tokens, up to 30d (default 24h)")
	f.StringVar(&format, "access-token-format", "opaque", "form of short-lived access tokens: opaque or jwt")
	f.BoolVar(&e.RequireNamed, "require-named", false, "refuse tokens that name no audience")
	if name == "replace" {
		f.StringVar(&e.Etag, "etag", "", "replace it only while this is its `tag`, as show prints it")
	}
	f.BoolVar(&asJSON, "json", false, "print JSON")
	annotated := cli.ArgumentsOnly(f, "default-ttl", "max-ttl", "allow-never")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		v, ok := patdv1.Audience_AccessTokenFormat_value[strings.ToUpper(format)]
		if !ok || v == 0 {
			return fmt.Errorf("--access-token-format must be opaque or jwt")
		}
		e.AccessTokenFormat = patdv1.Audience_AccessTokenFormat(v)
		for name, to := range map[string]**durationpb.Duration{"default-ttl": &e.DefaultTtl, "max-ttl": &e.MaxTtl, "access-token-ttl": &e.AccessTokenTtl} {
			if d, ok := f.Lookup(name).Value.(*cli.Duration); ok && f.Changed(name) {
				*to = durationpb.New(time.Duration(*d))
			}
		}
		return annotated
	}
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			e.Id = args[0]
			catalog := patdv1.NewCatalogServiceClient(conn)
			if name == "replace" && !f.Changed("require-named") {
				if err := keepRequireNamed(ctx, catalog, &e); err != nil {
					return err
				}
			}
			written, err := write(ctx, catalog, &e)
			if err != nil {
				return err
			}
			return printAudience(c, written, asJSON)
		},
	)
}

// keepRequireNamed keeps the present setting of whether tokens must name the audience: only its own flag lifts that
// requirement. The entity tag makes sure that the setting does not change between the two calls.
func keepRequireNamed(ctx context.Context, catalog patdv1.CatalogServiceClient, e *patdv1.Audience) error {
	now, err := catalog.GetAudience(ctx, &patdv1.GetAudienceRequest{Id: e.GetId()})
	if err != nil {
		return err
	}
	e.RequireNamed = now.GetAudience().GetRequireNamed()
	if e.GetEtag() == "" {
		e.Etag = now.GetAudience().GetEtag()
	}
	return nil
}

func audienceList(c *cli.Command) *cobra.Command {
	var (
		r      patdv1.ListAudiencesRequest
		asJSON bool
	)
	cmd := &cobra.Command{Use: "list", Short: "List audiences by id", Args: cli.Takes()}
	cmd.Flags().StringVar(&r.Q, "q", "", "only those in whose id or display name this `text` is")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, _ []string) error {
			all := &patdv1.ListAudiencesResponse{}
			r.Limit = tokens.MaxPageSize
			for {
				page, err := patdv1.NewCatalogServiceClient(conn).ListAudiences(ctx, &r)
				if err != nil {
					return err
				}
				all.Audiences = append(all.Audiences, page.GetAudiences()...)
				if r.After = page.GetAfter(); r.After == "" {
					break
				}
			}
			if asJSON {
				return c.Message(all)
			}
			var rows [][]string
			for _, e := range all.GetAudiences() {
				rows = append(rows, []string{
					e.GetId(),
					cli.OrDash(e.GetDisplayName()),
					span(e.GetDefaultTtl(), "server's"),
					span(e.GetMaxTtl(), "server's"),
					cli.Yes(e.GetAllowNever()),
				})
			}
			return cli.Table(c.Stdout, []string{"ID", "DISPLAY NAME", "DEFAULT TTL", "MAX TTL", "NEVER"}, rows)
		},
	)
}

func audienceShow(c *cli.Command) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "show ID", Short: "Show an audience", Args: cli.Takes("ID")}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			answer, err := patdv1.NewCatalogServiceClient(conn).
				GetAudience(ctx, &patdv1.GetAudienceRequest{Id: args[0]})
			if err != nil {
				return err
			}
			return printAudience(c, answer.GetAudience(), asJSON)
		},
	)
}

func audienceDelete(c *cli.Command) *cobra.Command {
	var r patdv1.DeleteAudienceRequest
	cmd := &cobra.Command{
		Use:   "delete ID",
		Short: "Remove an audience; tokens that name it go on",
		Args:  cli.Takes("ID"),
	}
	cmd.Flags().StringVar(&r.Etag, "etag", "", "delete it only while this is its `tag`, as show prints it")
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			r.Id = args[0]
			_, err := patdv1.NewCatalogServiceClient(conn).DeleteAudience(ctx, &r)
			return err
		},
	)
}

// printAudience prints one audience.
func printAudience(c *cli.Command, e *patdv1.Audience, asJSON bool) error {
	if asJSON {
		return c.Message(e)
	}
	return cli.Record(c.Stdout, []cli.Field{
		{"id", e.GetId()},
		{"display name", e.GetDisplayName()},
		{"resource", e.GetResource()},
		{"default ttl", span(e.GetDefaultTtl(), "the server's")},
		{"max ttl", span(e.GetMaxTtl(), "the server's")},
		{"tokens without end", cli.Yes(e.GetAllowNever())},
		{"tokens must name it", cli.Yes(e.GetRequireNamed())},
		{"refresh tokens", cli.Yes(e.GetAllowOfflineAccess())},
		{"access tokens", e.GetAccessTokenFormat().String() + ", " + span(e.GetAccessTokenTtl(), "24h")},
		{"etag", e.GetEtag()},
	})
}

// span formats a duration; absent: as the given word.
func span(d *durationpb.Duration, absent string) string {
	if d == nil {
		return absent
	}
	return tokens.FormatDuration(d.AsDuration())
}
