package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/gateway"
	"patd/cmd/patd/internal/cli/openapi"
	patdv1 "patd/gen/patd/v1"
)

// Scopes is the command that takes scopes from a description of an API.
func Scopes(c *cli.Command) *cobra.Command {
	cmd := &cobra.Command{Use: "scopes", Short: "Take scopes and routes from the description of your API"}
	return c.Group(cmd, scopesImport(c))
}

// scopesImportFlags are those of one run.
type scopesImportFlags struct {
	gateway, base                  string
	routes, apply, offline, asJSON bool
}

func scopesImport(c *cli.Command) *cobra.Command {
	var (
		r Connection
		f scopesImportFlags
	)
	cmd := &cobra.Command{
		Use:   "import FILE [--apply | --routes | --gateway NAME]",
		Short: "Read which scope each route needs from an OpenAPI document",
		Long: `Read an OpenAPI document, 3.0 or 3.1, in YAML or JSON (-: from standard input), and which scopes each operation needs:
those of its security, or else of the document's, by OAuth 2.0, OpenID Connect or HTTP bearer; or what x-patd-scope says,
a text or a list, at the operation or at its path.

Without a flag it prints the scopes, and which of them the server's catalogue has; --apply adds the missing ones, and
changes no entry that is there. A scope that the server refuses is named, the others are added, and the exit code is 1.
--gateway prints the configuration of a gateway, and --routes a table for the libraries,
which need no server. Routes without a scope are closed, and named on standard error.`,
		Args: cli.Takes("FILE"),
	}
	set := cmd.Flags()
	set.BoolVar(&f.apply, "apply", false, "add what is missing to the server's catalogue")
	set.BoolVar(&f.routes, "routes", false, "print the table of routes, as JSON")
	set.StringVar(
		&f.gateway,
		"gateway",
		"",
		"print the configuration of the gateway `NAME`: "+strings.Join(gateway.Names(), ", "),
	)
	set.StringVar(
		&f.base,
		"base-path",
		"",
		"what stands before each `path` (default that of the servers in the document)",
	)
	set.BoolVar(&f.offline, "offline", false, "do not ask the server what its catalogue has")
	set.BoolVar(&f.asJSON, "json", false, "print JSON")
	cli.Grouped(set, "Connection", r.flags)
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if set.Changed("gateway") && f.routes || f.apply && (f.routes || set.Changed("gateway") || f.offline) {
			return errors.New("give one of --apply, --routes, --gateway and --offline")
		}
		if f.asJSON && set.Changed("gateway") {
			return errors.New("the configuration of a gateway is not JSON")
		}
		return nil
	}
	cmd.RunE = c.Run(func(ctx context.Context, args []string) error {
		var base *string
		if set.Changed("base-path") {
			path := strings.TrimSuffix(f.base, "/")
			base = &path
		}
		d, err := readDocument(c, args[0], base)
		if err != nil {
			return err
		}
		var out []byte
		switch {
		case f.routes:
			out, err = d.Table.MarshalJSON()
		case set.Changed("gateway"):
			out, err = gateway.Configuration(f.gateway, d.Table)
		default:
			return proposed(ctx, c, &r, d, f)
		}
		if err == nil {
			printClosed(c, d)
			_, err = c.Stdout.Write(out)
		}
		return err
	})
	return cmd
}

// readDocument reads a document from a file, or from standard input.
func readDocument(c *cli.Command, name string, base *string) (*openapi.Document, error) {
	from := c.Stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		from = file
	}
	text, err := io.ReadAll(io.LimitReader(from, openapi.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	d, err := openapi.Read(text, base)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return d, nil
}

// printClosed says on standard error which routes are closed, and what else to know.
func printClosed(c *cli.Command, d *openapi.Document) {
	for _, r := range d.Closed {
		fmt.Fprintf(c.Stderr, "patd: closed: %s %s: %s\n", r.Method, r.Path, cli.Cell(r.Why))
	}
	for _, note := range d.Notes {
		fmt.Fprintf(c.Stderr, "patd: %s\n", cli.Cell(note))
	}
}

// proposal is what the catalogue should have.
type proposal struct {
	Scopes []proposedScope `json:"scopes"`
	Closed []closedRoute   `json:"closed"`
}

type proposedScope struct {
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Catalogue   string   `json:"catalogue"` // one of the words below
	Routes      []string `json:"routes"`
}

type closedRoute struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	Why    string `json:"why"`
}

// What the catalogue has of a scope.
const (
	scopeUnknown = "unknown" // the server was not asked
	scopeMissing = "missing"
	scopeListed  = "listed"
	scopeAdded   = "added"
	scopeRefused = "refused" // the server does not take such an entry
)

// proposed prints the scopes of a document, compared with the catalogue if there is a credential.
func proposed(ctx context.Context, c *cli.Command, r *Connection, d *openapi.Document, f scopesImportFlags) error {
	p := proposal{Scopes: []proposedScope{}, Closed: []closedRoute{}}
	for _, s := range d.Scopes {
		p.Scopes = append(
			p.Scopes,
			proposedScope{Name: s.Name, Description: s.Description, Catalogue: scopeUnknown, Routes: s.Routes},
		)
	}
	for _, route := range d.Closed {
		p.Closed = append(p.Closed, closedRoute(route))
	}
	var failed error
	if !f.offline {
		failed = connected(
			ctx,
			c,
			r,
			cli.ExitFault,
			nil,
			func(ctx context.Context, conn grpc.ClientConnInterface, _ []string) error {
				return p.compare(ctx, c, r, patdv1.NewCatalogServiceClient(conn), f.apply)
			},
		)
		switch {
		case failed == nil, p.changed(): // what was done is printed in any case
		case errors.Is(failed, errNoCredential) && !f.apply:
			fmt.Fprintln(
				c.Stderr,
				"patd: no catalogue was compared: without --token-file, PATD_TOKEN and `patd login` no server is asked",
			)
			failed = nil
		default:
			return failed
		}
	}
	printClosed(c, d)
	if f.asJSON {
		return errors.Join(c.JSON(p), failed)
	}
	var rows [][]string
	for _, s := range p.Scopes {
		rows = append(rows, []string{s.Name, s.Catalogue, fmt.Sprint(len(s.Routes)), cli.OrDash(s.Description)})
	}
	err := cli.Table(c.Stdout, []string{"SCOPE", "CATALOGUE", "ROUTES", "DESCRIPTION"}, rows)
	return errors.Join(err, failed)
}

// changed reports whether a scope was added or refused.
func (p *proposal) changed() bool {
	return slices.ContainsFunc(p.Scopes, func(s proposedScope) bool {
		return s.Catalogue == scopeAdded || s.Catalogue == scopeRefused
	})
}

// compare looks the scopes up in the catalogue, and adds those that are missing if that is wanted. An entry that is
// there stays as it is. The scopes that the server refuses do not keep the others from being added.
func (p *proposal) compare(
	ctx context.Context, c *cli.Command, r *Connection, catalog patdv1.CatalogServiceClient, apply bool,
) error {
	refused := 0
	for i := range p.Scopes {
		s := &p.Scopes[i]
		err := s.compare(ctx, c, catalog, apply)
		if status.Code(err) == codes.InvalidArgument {
			refused++
			s.Catalogue = scopeRefused
			fmt.Fprintf(c.Stderr, "patd: the server refuses %s: %v\n", s.Name, r.explain(err))
		} else if err != nil {
			return err
		}
	}
	if refused > 0 {
		return fmt.Errorf("the server refuses %s", cli.Counted(int64(refused), "scope"))
	}
	return nil
}

func (s *proposedScope) compare(
	ctx context.Context, c *cli.Command, catalog patdv1.CatalogServiceClient, apply bool,
) error {
	got, err := catalog.GetFeature(ctx, &patdv1.GetFeatureRequest{Name: s.Name})
	if status.Code(err) == codes.NotFound {
		s.Catalogue = scopeMissing
		if !apply {
			return nil
		}
		_, err = catalog.CreateFeature(ctx, &patdv1.CreateFeatureRequest{Feature: &patdv1.Feature{
			Name: s.Name, Description: s.Description,
			Consent: patdv1.Feature_IMPLICIT, MetadataPublish: patdv1.Feature_NO_CLIENTS,
		}})
		switch status.Code(err) {
		case codes.OK:
			s.Catalogue = scopeAdded
			return nil
		case codes.AlreadyExists: // added by another run in the meantime
			got, err = catalog.GetFeature(ctx, &patdv1.GetFeatureRequest{Name: s.Name})
		}
	}
	if err != nil {
		return err
	}
	s.Catalogue = scopeListed
	if words := got.GetFeature().GetDescription(); s.Description != "" && s.Description != words {
		fmt.Fprintf(
			c.Stderr,
			"patd: the catalogue describes %s in other words, and stays as it is: %s\n",
			s.Name,
			cli.OrDash(cli.Cell(words)),
		)
	}
	return nil
}
