package storeadmin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/config"
	"patd/store"
)

// Migrate is the command that brings a store's schema up to date.
func Migrate(c *cli.Command) *cobra.Command {
	var seal bool
	s := config.Settings{DatabaseTimeout: config.Patient}
	cmd := &cobra.Command{
		Use:   "migrate --database-url postgres://…",
		Short: "Bring a store's schema up to date, or make a new store with its key",
		Long: `Bring the schema of a store in PostgreSQL up to date while servers use it, or make a new store there together with its
digest key, which every server needs a copy of. Servers never do it by themselves; a store in a file is brought up to
date by whatever opens it.

To upgrade: run the new version's migrate, then exchange one server after the other. The version before goes on working on the new
schema.

Each row that a decision rests on has a keyed checksum, so that one which was edited in the database is refused. A store from before
checksums accepts rows without one, until --seal-rows gives every row the checksum of what it holds then, and writes the line
"# rows sealed 23" into the key file. Run it when every server is of this version, since earlier ones are kept out from then on. It may be
interrupted and run again, and servers go on meanwhile. A new store is sealed from the start.`,
		Args: cli.Takes(),
	}
	cli.Grouped(cmd.Flags(), "Store", s.StoreFlags)
	cli.Grouped(cmd.Flags(), "Log", func(f *pflag.FlagSet) { s.LogFlags(f, "warn", "text") })
	cmd.Flags().
		BoolVar(&seal, "seal-rows", false, "give every row a checksum, and keep servers from before checksums out")
	var log *slog.Logger
	cmd.PreRunE = func(*cobra.Command, []string) (err error) {
		if log, err = config.NewLogger(c, &s); err == nil {
			_, err = config.KeylessPlace(c, &s)
		}
		return err
	}
	cmd.RunE = c.Run(func(ctx context.Context, _ []string) error { return migrateStore(ctx, c, &s, seal, log) })
	return cmd
}

func migrateStore(ctx context.Context, c *cli.Command, s *config.Settings, seal bool, log *slog.Logger) (err error) {
	p, err := config.KeylessPlace(c, s)
	if err != nil {
		return err
	}
	if !p.Remote() {
		o, err := Open(ctx, c, s, log)
		if err != nil {
			return err
		}
		text := fmt.Sprintf("ok: %s is up to date", p)
		if seal {
			var sealed string
			if sealed, err = o.seal(ctx, c, log); err != nil {
				return errors.Join(err, o.Close())
			}
			text += "; " + sealed
		}
		_, err = fmt.Fprintln(c.Stdout, text)
		return errors.Join(err, o.Close())
	}
	before, after, err := store.Migrate(ctx, p.URL(), storeOptions(c, p, s, log))
	if err != nil {
		return err
	}
	st, err := store.Open(ctx, p.URL(), storeOptions(c, p, s, log))
	if err != nil {
		return err
	}
	o := &Opened{Store: st, Place: p}
	defer func() { err = errors.Join(err, Closed("the store", o)) }()
	known, err := o.knownKeys(ctx)
	if err == nil && len(known) == 0 {
		err = firstKey(ctx, c, s, o, log)
	}
	if err != nil {
		return err
	}
	sealed := ""
	if seal {
		if sealed, err = sealPostgres(ctx, c, o, log); err != nil {
			return err
		}
	}
	text := fmt.Sprintf("ok: %s, schema version %d", p, after)
	if before != after && before != 0 {
		text = fmt.Sprintf("%s, was %d", text, before)
	}
	_, err = fmt.Fprintln(c.Stdout, text+sealed)
	return err
}

// sealPostgres is seal with the keys of a store in PostgreSQL, which migrate itself does not need.
func sealPostgres(ctx context.Context, c *cli.Command, o *Opened, log *slog.Logger) (text string, err error) {
	if o.Place.Keys == "" && o.Place.Given == "" {
		return "", errors.New(
			"checksums are made with the store's key: say where it is, by --hash-key-file FILE or --data-dir DIR",
		)
	}
	if o.Keys, err = presentKeys(o.Place); err != nil {
		return "", err
	}
	if err := o.bind(ctx, "", c.Now()); err != nil {
		return "", err
	}
	text, err = o.seal(ctx, c, log)
	return "; " + text, err
}

// firstKey makes the key of a new store, unless it was given, and binds the two together.
func firstKey(ctx context.Context, c *cli.Command, s *config.Settings, o *Opened, log *slog.Logger) error {
	if o.Place.Keys == "" && o.Place.Given == "" {
		return errors.New(
			"the store is new and has no key yet: say where to make it, by --hash-key-file FILE or --data-dir DIR",
		)
	}
	if err := config.MakeDir(s.DataDir); err != nil {
		return err
	}
	keys, err := o.Place.ReadKeys()
	if errors.Is(err, fs.ErrNotExist) {
		if err = o.Place.Keys.Create(); err == nil {
			keys, err = o.Place.ReadKeys()
			fmt.Fprintf(
				c.Stderr,
				"patd: made %s; every server on this store needs a copy, and you a backup\n",
				o.Place.Keys,
			)
		}
	}
	if err != nil {
		return err
	}
	o.Keys = keys
	if err := o.bind(ctx, "", c.Now()); err != nil {
		return err
	}
	o.recordSeal(ctx, log)
	return nil
}
