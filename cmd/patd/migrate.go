package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/spf13/cobra"

	"patd/store"
)

func (c *command) migrateCommand() *cobra.Command {
	s := settings{databaseTimeout: patient}
	cmd := &cobra.Command{
		Use:   "migrate --database-url postgres://…",
		Short: "Bring a store's schema up to date, or make a new store with its key",
		Long: `Bring the schema of a store in PostgreSQL up to date while servers use it, or make a new store there together with its
digest key, which every server needs a copy of. Servers never do it by themselves; a store in a file is brought up to
date by whatever opens it.

To upgrade: run the new version's migrate, then exchange one server after the other. The version before goes on working on the new
schema.`,
		Args: takes(),
	}
	s.storeFlags(cmd.Flags())
	s.logFlags(cmd.Flags(), "warn", "text")
	var log *slog.Logger
	cmd.PreRunE = func(*cobra.Command, []string) (err error) {
		if log, err = c.logger(&s); err == nil {
			_, err = c.keylessPlace(&s)
		}
		return err
	}
	cmd.RunE = c.run(func(ctx context.Context, _ []string) error { return c.migrate(ctx, &s, log) })
	return cmd
}

func (c *command) migrate(ctx context.Context, s *settings, log *slog.Logger) (err error) {
	p, err := c.keylessPlace(s)
	if err != nil {
		return err
	}
	if !p.remote() {
		o, err := c.open(ctx, s, log)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.Stdout, "ok: %s is up to date\n", p)
		return errors.Join(err, o.Close())
	}
	before, after, err := store.Migrate(ctx, p.url(), c.storeOptions(p, s, log))
	if err != nil {
		return err
	}
	st, err := store.Open(ctx, p.url(), c.storeOptions(p, s, log))
	if err != nil {
		return err
	}
	o := &opened{Store: st, place: p}
	defer func() { err = errors.Join(err, closed("the store", o)) }()
	known, err := o.knownKeys(ctx)
	if err == nil && len(known) == 0 {
		err = c.firstKey(ctx, s, o)
	}
	if err != nil {
		return err
	}
	text := fmt.Sprintf("ok: %s, schema version %d", p, after)
	if before != after && before != 0 {
		text = fmt.Sprintf("%s, was %d", text, before)
	}
	_, err = fmt.Fprintln(c.Stdout, text)
	return err
}

// firstKey makes the key of a new store, unless it was given, and binds the two together.
func (c *command) firstKey(ctx context.Context, s *settings, o *opened) error {
	if o.place.keys == "" && o.place.given == "" {
		return errors.New("the store is new and has no key yet: say where to make it, by --hash-key-file FILE or --data-dir DIR")
	}
	if err := makeDir(s.dataDir); err != nil {
		return err
	}
	keys, err := o.place.readKeys()
	if errors.Is(err, fs.ErrNotExist) {
		if err = o.place.keys.create(); err == nil {
			keys, err = o.place.readKeys()
			fmt.Fprintf(c.Stderr, "patd: made %s; every server on this store needs a copy, and you a backup\n", o.place.keys)
		}
	}
	if err != nil {
		return err
	}
	o.keys = keys
	return o.bind(ctx, "", c.now())
}
