package remote

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"patd/cmd/patd/internal/cli"
	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// Feature is the command that manages the catalogue of features.
func Feature(c *cli.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "feature",
		Short: "Describe features in the catalogue, over gRPC; one that has no entry works too",
	}
	return c.Group(
		cmd,
		featureWrite(
			c,
			"create",
			"Add an entry",
			func(ctx context.Context, catalog patdv1.CatalogServiceClient, e *patdv1.Feature) (*patdv1.Feature, error) {
				answer, err := catalog.CreateFeature(ctx, &patdv1.CreateFeatureRequest{Feature: e})
				return answer.GetFeature(), err
			},
		),
		featureGet(c),
		featureList(c),
		featureWrite(
			c,
			"replace",
			"Write an entry anew; what is not given is as in a new one",
			func(ctx context.Context, catalog patdv1.CatalogServiceClient, e *patdv1.Feature) (*patdv1.Feature, error) {
				answer, err := catalog.ReplaceFeature(ctx, &patdv1.ReplaceFeatureRequest{Name: e.GetName(), Feature: e})
				return answer.GetFeature(), err
			},
		),
		featureDelete(c),
		featureImpact(c),
	)
}

// writeFeature writes an entry and returns it as it is now.
type writeFeature func(ctx context.Context, catalog patdv1.CatalogServiceClient, e *patdv1.Feature) (*patdv1.Feature, error)

func featureWrite(c *cli.Command, name, short string, write writeFeature) *cobra.Command {
	var (
		e               patdv1.Feature
		consent         string
		publish, asJSON bool
	)
	cmd := &cobra.Command{Use: name + " NAME", Short: short, Args: cli.Takes("NAME")}
	f := cmd.Flags()
	f.StringVar(&e.DisplayName, "display-name", "", "name for people")
	f.StringVar(&e.Description, "description", "", "what it lets one do")
	f.StringVar(
		&consent,
		"consent",
		"implicit",
		"how it gets into a token: implicit, required (only when asked for by name) or flexible",
	)
	f.BoolVar(&e.Default, "default", false, "taken when a request names no scopes")
	f.BoolVar(&e.Optional, "optional", false, "for a page with checkboxes: the user may leave it out")
	f.BoolVar(&publish, "publish", false, "stands in the public metadata document")
	f.BoolVar(&e.System, "system", false, "can from then on neither be changed nor deleted")
	if name == "replace" {
		f.StringVar(&e.Etag, "etag", "", "replace it only while this is its `tag`, as get prints it")
	}
	f.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		v, ok := patdv1.Feature_Consent_value[strings.ToUpper(consent)]
		if !ok || v == 0 {
			return fmt.Errorf("--consent must be implicit, required or flexible")
		}
		e.Consent, e.MetadataPublish = patdv1.Feature_Consent(v), patdv1.Feature_NO_CLIENTS
		if publish {
			e.MetadataPublish = patdv1.Feature_ALL_CLIENTS
		}
		return nil
	}
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			e.Name = args[0]
			written, err := write(ctx, patdv1.NewCatalogServiceClient(conn), &e)
			if err != nil {
				return err
			}
			return printFeature(c, written, asJSON)
		},
	)
}

func featureGet(c *cli.Command) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "get NAME", Short: "Show an entry", Args: cli.Takes("NAME")}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			answer, err := patdv1.NewCatalogServiceClient(conn).
				GetFeature(ctx, &patdv1.GetFeatureRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return printFeature(c, answer.GetFeature(), asJSON)
		},
	)
}

func featureList(c *cli.Command) *cobra.Command {
	var (
		r      patdv1.ListFeaturesRequest
		asJSON bool
	)
	cmd := &cobra.Command{Use: "list", Short: "List entries by name", Args: cli.Takes()}
	cmd.Flags().StringVar(&r.Q, "q", "", "only those in whose name, display name or description this `text` is")
	cmd.Flags().
		StringVar(&r.Filter, "filter", "", "only those that fulfil `conditions` such as 'consent eq \"REQUIRED\" and system eq false'")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, _ []string) error {
			all := &patdv1.ListFeaturesResponse{}
			r.Limit = tokens.MaxPageSize
			for {
				page, err := patdv1.NewCatalogServiceClient(conn).ListFeatures(ctx, &r)
				if err != nil {
					return err
				}
				all.Features = append(all.Features, page.GetFeatures()...)
				if r.After = page.GetAfter(); r.After == "" {
					break
				}
			}
			if asJSON {
				return c.Message(all)
			}
			var rows [][]string
			for _, e := range all.GetFeatures() {
				rows = append(rows, []string{
					e.GetName(),
					cli.OrDash(e.GetDisplayName()),
					e.GetConsent().String(),
					cli.Yes(e.GetDefault()),
					cli.Yes(e.GetOptional()),
					cli.Yes(published(e)),
					cli.Yes(e.GetSystem()),
				})
			}
			return cli.Table(
				c.Stdout,
				[]string{"NAME", "DISPLAY NAME", "CONSENT", "DEFAULT", "OPTIONAL", "PUBLISHED", "SYSTEM"},
				rows,
			)
		},
	)
}

func featureDelete(c *cli.Command) *cobra.Command {
	var r patdv1.DeleteFeatureRequest
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Remove an entry; the feature, who holds it and tokens that carry it stay as they are",
		Args:  cli.Takes("NAME"),
	}
	cmd.Flags().StringVar(&r.Etag, "etag", "", "delete it only while this is its `tag`, as get prints it")
	return remoteCommand(
		c,
		cmd,
		cli.ExitFault,
		func(ctx context.Context, conn grpc.ClientConnInterface, args []string) error {
			r.Name = args[0]
			_, err := patdv1.NewCatalogServiceClient(conn).DeleteFeature(ctx, &r)
			return err
		},
	)
}

// printFeature prints one entry.
func printFeature(c *cli.Command, e *patdv1.Feature, asJSON bool) error {
	if asJSON {
		return c.Message(e)
	}
	return cli.Record(c.Stdout, []cli.Field{
		{"name", e.GetName()},
		{"display name", e.GetDisplayName()},
		{"description", e.GetDescription()},
		{"consent", e.GetConsent().String()},
		{"default", cli.Yes(e.GetDefault())},
		{"optional", cli.Yes(e.GetOptional())},
		{"published", cli.Yes(published(e))},
		{"system", cli.Yes(e.GetSystem())},
		{"etag", e.GetEtag()},
	})
}

func published(e *patdv1.Feature) bool {
	return e.GetMetadataPublish() == patdv1.Feature_ALL_CLIENTS
}
