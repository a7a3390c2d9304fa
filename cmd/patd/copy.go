package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"patd/store"
	"patd/tokens"
)

// copySettings say what to copy, and where to.
type copySettings struct {
	settings // where the keys are, and the log
	from, to settings
	asJSON   bool
}

func (c *command) copyCommand() *cobra.Command {
	s := copySettings{from: settings{databaseTimeout: patient}, to: settings{databaseTimeout: patient}}
	cmd := &cobra.Command{
		Use:   "copy --from URL --to URL",
		Short: "Move a store from SQLite to PostgreSQL, or back, the servers being stopped",
		Long: `Copy a whole store into another, from SQLite to PostgreSQL or back or within either: every row, with ids, digests, positions
of the audit log and of the change feed, and the names of the keys, so that every token goes on working. Each table is read back and
compared before it counts. The destination is a file that does not exist yet, or a database without a store in it, whose
schema is made; whatever happens in between, it has all rows afterwards or none. (A copy into FILE that is killed leaves a FILE.….part to remove.)

To move: stop the servers, copy, and start them on the new store with the same key file. While the copy runs the old store takes no
changes; what a server changes in it afterwards is not in the new one.

The digest keys are not copied, for they are not in the store. With --hash-key-file or PATD_HASH_KEY they are checked
first. A URL with a password in it is given by PATD_FROM or PATD_TO, or the password by a file.`,
		Args: takes(),
	}
	f := cmd.Flags()
	f.Var(&s.from.databaseURL, "from", "`URL` of the store: sqlite:PATH or postgres://USER@HOST/DATABASE")
	f.Var(&s.to.databaseURL, "to", "`URL` of the new one, the same way")
	f.StringVar(&s.from.databasePasswordFile, "from-password-file", "", "`file` with the password of --from")
	f.StringVar(&s.to.databasePasswordFile, "to-password-file", "", "`file` with the password of --to")
	f.StringVar(&s.hashKeyFile, "hash-key-file", "", "make sure that the digest keys in this `file` are the store's; or those in PATD_HASH_KEY")
	f.BoolVar(&s.asJSON, "json", false, "print JSON")
	s.logFlags(f, "warn", "text")
	var (
		log      *slog.Logger
		from, to place
	)
	cmd.PreRunE = func(*cobra.Command, []string) (err error) {
		if log, err = c.logger(&s.settings); err != nil {
			return err
		}
		if from, err = c.copyPlace("from", &s.from); err != nil {
			return err
		}
		if to, err = c.copyPlace("to", &s.to); err != nil {
			return err
		}
		return c.keyPlace(&from, &s.settings)
	}
	cmd.RunE = c.run(func(ctx context.Context, _ []string) error { return c.copy(ctx, &s, from, to, log) })
	return cmd
}

// copyPlace reads the flags of one end.
func (c *command) copyPlace(flag string, s *settings) (place, error) {
	text := s.databaseURL.Reveal()
	if text == "" {
		return place{}, errors.New("say which store: --from URL and --to URL, each sqlite:PATH or postgres://USER@HOST/DATABASE")
	}
	p, err := databasePlace(text, flag, flag+"-password-file", c.arguments[flag])
	if err == nil && s.databasePasswordFile != "" && !p.remote() {
		err = fmt.Errorf("--%s-password-file is a setting of --%s postgres://…", flag, flag)
	}
	return p, err
}

func (c *command) copy(ctx context.Context, s *copySettings, from, to place, log *slog.Logger) (err error) {
	if !from.remote() {
		if err := from.kept(&s.from); err != nil {
			return err
		}
	}
	var keys *tokens.Keys
	if from.keys != "" || from.given != "" {
		if keys, err = from.presentKeys(); err != nil {
			return err
		}
	}
	options := c.storeOptions(from, &s.from, log)
	options.FlushInterval = time.Hour // nothing is to be written
	st, err := store.Open(ctx, from.url(), options)
	if err != nil {
		return err
	}
	o := &opened{Store: st, place: from}
	defer func() { err = errors.Join(err, closed("the store", o)) }()
	if err := o.copiable(ctx, keys); err != nil {
		return err
	}
	list, err := st.Copy(ctx, to.url(), c.storeOptions(to, &s.to, log))
	if err != nil {
		if !to.remote() {
			err = fileFault("copy to "+to.database, "a copy", err)
		}
		return err
	}
	if keys == nil {
		fmt.Fprintln(c.Stderr, "patd: the digest keys were not looked at; --hash-key-file FILE makes sure of them")
	}
	fmt.Fprintln(c.Stderr, "patd: start the servers on the new store, with the key file of the old one; what is changed in the old one from now on is not in the new one")
	return c.report(list, from, to, s.asJSON)
}

// copiable refuses a store with nothing in it, and keys that are not its own, where there are any to look at.
func (o *opened) copiable(ctx context.Context, keys *tokens.Keys) error {
	known, err := o.knownKeys(ctx)
	switch {
	case err != nil:
		return err
	case len(known) == 0:
		return fmt.Errorf("there is no store in %s: it is empty", o.place)
	case keys != nil:
		return keys.Verify(known)
	}
	return nil
}

// report says what was copied.
func (c *command) report(list []store.Copied, from, to place, asJSON bool) error {
	if asJSON {
		return c.json(struct {
			From     string         `json:"from"`
			To       string         `json:"to"`
			Verified bool           `json:"verified"`
			Tables   []store.Copied `json:"tables"`
		}{from.String(), to.String(), true, list})
	}
	var (
		rows [][]string
		all  int64
	)
	for _, t := range list {
		rows = append(rows, []string{t.Table, strconv.FormatInt(t.Rows, 10)})
		all += t.Rows
	}
	if err := table(c.Stdout, []string{"TABLE", "ROWS"}, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.Stdout, "ok: %s copied to %s, read back and verified\n", counted(all, "row"), to)
	return err
}
