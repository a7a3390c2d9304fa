package storeadmin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/config"
	"patd/store"
	"patd/tokens"
)

// copySettings are the source and the destination of a copy.
type copySettings struct {
	config.Settings // where the keys are, and the log
	from, to        config.Settings
	asJSON          bool
}

// Copy is the command that copies a store to another place.
func Copy(c *cli.Command) *cobra.Command {
	s := copySettings{
		from: config.Settings{DatabaseTimeout: config.Patient},
		to:   config.Settings{DatabaseTimeout: config.Patient},
	}
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
		Args: cli.Takes(),
	}
	f := cmd.Flags()
	f.Var(&s.from.DatabaseURL, "from", "`URL` of the store: sqlite:PATH or postgres://USER@HOST/DATABASE")
	f.Var(&s.to.DatabaseURL, "to", "`URL` of the new one, the same way")
	f.StringVar(&s.from.DatabasePasswordFile, "from-password-file", "", "`file` with the password of --from")
	f.StringVar(&s.to.DatabasePasswordFile, "to-password-file", "", "`file` with the password of --to")
	f.StringVar(
		&s.HashKeyFile,
		"hash-key-file",
		"",
		"make sure that the digest keys in this `file` are the store's; or those in PATD_HASH_KEY",
	)
	f.BoolVar(&s.asJSON, "json", false, "print JSON")
	s.LogFlags(f, "warn", "text")
	var (
		log      *slog.Logger
		from, to config.Place
	)
	cmd.PreRunE = func(*cobra.Command, []string) (err error) {
		if log, err = config.NewLogger(c, &s.Settings); err != nil {
			return err
		}
		if from, err = copyPlace(c, "from", &s.from); err != nil {
			return err
		}
		if to, err = copyPlace(c, "to", &s.to); err != nil {
			return err
		}
		return config.KeyPlace(c, &from, &s.Settings)
	}
	cmd.RunE = c.Run(func(ctx context.Context, _ []string) error { return copyStore(ctx, c, &s, from, to, log) })
	return cmd
}

// copyPlace reads the flags of one end.
func copyPlace(c *cli.Command, flag string, s *config.Settings) (config.Place, error) {
	text := s.DatabaseURL.Reveal()
	if text == "" {
		return config.Place{}, errors.New(
			"say which store: --from URL and --to URL, each sqlite:PATH or postgres://USER@HOST/DATABASE",
		)
	}
	p, err := config.DatabasePlace(text, flag, flag+"-password-file", c.Arguments[flag])
	if err == nil && s.DatabasePasswordFile != "" && !p.Remote() {
		err = fmt.Errorf("--%s-password-file is a setting of --%s postgres://…", flag, flag)
	}
	return p, err
}

func copyStore(
	ctx context.Context,
	c *cli.Command,
	s *copySettings,
	from, to config.Place,
	log *slog.Logger,
) (err error) {
	if !from.Remote() {
		if err := from.Kept(&s.from); err != nil {
			return err
		}
	}
	var keys *tokens.Keys
	if from.Keys != "" || from.Given != "" {
		if keys, err = presentKeys(from); err != nil {
			return err
		}
	}
	options := storeOptions(c, from, &s.from, log)
	options.FlushInterval = time.Hour // nothing will be written
	st, err := store.Open(ctx, from.URL(), options)
	if err != nil {
		return err
	}
	o := &Opened{Store: st, Place: from}
	defer func() { err = errors.Join(err, Closed("the store", o)) }()
	if err := o.copiable(ctx, keys); err != nil {
		return err
	}
	list, err := st.Copy(ctx, to.URL(), storeOptions(c, to, &s.to, log))
	if err != nil {
		if !to.Remote() {
			err = fileFault("copy to "+to.Database, "a copy", err)
		}
		return err
	}
	if keys == nil {
		fmt.Fprintln(c.Stderr, "patd: the digest keys were not looked at; --hash-key-file FILE makes sure of them")
	}
	fmt.Fprintln(
		c.Stderr,
		"patd: start the servers on the new store, with the key file of the old one; what is changed in the old one from now on is not in the new one",
	)
	return reportCopy(c, list, from, to, s.asJSON)
}

// copiable refuses an empty store, and keys of another store, if any keys are given.
func (o *Opened) copiable(ctx context.Context, keys *tokens.Keys) error {
	known, err := o.knownKeys(ctx)
	switch {
	case err != nil:
		return err
	case len(known) == 0:
		return fmt.Errorf("there is no store in %s: it is empty", o.Place)
	case keys != nil:
		return keys.Verify(known)
	}
	return nil
}

// reportCopy prints what was copied.
func reportCopy(c *cli.Command, list []store.Copied, from, to config.Place, asJSON bool) error {
	if asJSON {
		return c.JSON(struct {
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
	if err := cli.Table(c.Stdout, []string{"TABLE", "ROWS"}, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.Stdout, "ok: %s copied to %s, read back and verified\n", cli.Counted(all, "row"), to)
	return err
}
