package storeadmin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/config"
	"patd/store"
	"patd/tokens"
)

// Backup is the command that makes backups.
func Backup(c *cli.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup FILE --data-dir DIR",
		Short: "Copy the store, consistent, the server running or not",
		Long: `Copy the store into a new file, as it is at one moment, the server running or not. The digest key is not in it: keep a
copy of the key file in another place. Of a store in PostgreSQL the file is one of SQLite's with the same rows, which
` + "`patd check --database-url sqlite:FILE --hash-key-file KEY`" + ` can look into; no change waits for it.

To restore into PostgreSQL: stop the servers, and copy the backup into a database without a store in it,
` + "`patd copy --from sqlite:FILE --to postgres://…`" + `.

To restore a store in a file: stop the server and run ` + "`patd restore FILE --data-dir DIR`" + `. By hand: stop the server, remove patd.db,
patd.db-wal and patd.db-shm (a log left beside another file would spoil it), put the copy in the place of patd.db
beside its hash.key, and run ` + "`patd check`" + `.`,
		Args: cli.Takes("FILE"),
	}
	return keptStoreCommand(c, cmd, func(ctx context.Context, o *Opened, args []string) error {
		if err := o.Backup(ctx, args[0]); err != nil {
			return fileFault("back up to "+args[0], "a backup", err)
		}
		fmt.Fprintf(c.Stderr, "patd: wrote %s; it is of use only with the hash key, which is not in it\n", args[0])
		return nil
	})
}

// fileFault returns why a new file could not be made, without its temporary name.
func fileFault(op, what string, err error) error {
	var (
		path *fs.PathError
		link *os.LinkError
	)
	switch {
	case errors.As(err, &path) && errors.Is(err, fs.ErrExist) && strings.HasSuffix(path.Path, "-wal"),
		errors.As(err, &path) && strings.HasSuffix(path.Path, "-journal"):
		return fmt.Errorf(
			"%s: there is a log of another database beside it, %s, which would spoil it",
			op,
			filepath.Base(path.Path),
		)
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%s: there is such a file already, and %s replaces none", op, what)
	case errors.As(err, &path):
		return fmt.Errorf("%s: %w", op, path.Err)
	case errors.As(err, &link):
		return fmt.Errorf("%s: %w", op, link.Err)
	}
	return err
}

// keptStoreCommand makes a command that works on an existing store, and creates none.
func keptStoreCommand(c *cli.Command, cmd *cobra.Command, do onStore) *cobra.Command {
	cmd = commandOn(c, cmd, openKept, do)
	cmd.Flags().Lookup("data-dir").Usage = "`directory` of the store and its key"
	return cmd
}

// openKept opens an existing store.
func openKept(ctx context.Context, c *cli.Command, s *config.Settings, log *slog.Logger) (*Opened, error) {
	p, err := config.PlaceOf(c, s)
	if err != nil {
		return nil, err
	}
	if p.Remote() {
		return Open(ctx, c, s, log)
	}
	if err := p.Kept(s); err != nil {
		return nil, err
	}
	return Open(ctx, c, s, log)
}

// summary is the contents of a store in numbers.
type summary struct {
	Database string   `json:"database"`
	Tokens   int64    `json:"tokens"`
	Services int64    `json:"services"`
	Keys     []string `json:"keys"` // not retired, oldest first
}

// String returns the line that reports a sound store.
func (s summary) String() string {
	return fmt.Sprintf(
		"ok: %s, %s, %s, keys %s",
		s.Database,
		cli.Counted(s.Tokens, "token"),
		cli.Counted(s.Services, "service"),
		strings.Join(s.Keys, " "),
	)
}

// summarize counts the contents of an open store.
func summarize(ctx context.Context, st *store.Store, p config.Place) (summary, error) {
	s := summary{Database: p.String(), Keys: []string{}}
	err := st.View(ctx, func(tx tokens.ReadTx) error {
		known, err := tx.Keys()
		for _, k := range known {
			if k.RetireTime.IsZero() {
				s.Keys = append(s.Keys, k.Name)
			}
		}
		return err
	})
	if err == nil {
		s.Tokens, s.Services, err = st.Count(ctx)
	}
	return s, err
}

// Check is the command that checks a store.
func Check(c *cli.Command) *cobra.Command {
	var asJSON, repair bool
	cmd := &cobra.Command{
		Use:   "check --data-dir DIR",
		Short: "Look whether the store is sound and the key file belongs to it",
		Long: `Look whether the store is sound and the key file belongs to it.

After a database was moved or repaired, positions in the audit log and the change feed, and the numbers of users and keys, may be
behind the rows that are there. --repair-positions mends that, and has every server drop what it remembers of the store; it may
be run while servers use it.

A backup is checked with the key file of its store: --database-url sqlite:FILE --hash-key-file KEY.

Rows that were edited in the database, by other means than patd, are problems too: what they are of must be revoked.

Service tokens that expire within 14 days, or have expired within the last 14, are warnings on standard error; so are rows that are
not sealed (see patd migrate).`,
		Args: cli.Takes(),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&repair, "repair-positions", false, "first mend positions that would be given twice")
	return keptStoreCommand(c, cmd, func(ctx context.Context, o *Opened, _ []string) error {
		if repair {
			mended, err := o.RepairPositions(ctx)
			if err != nil {
				return err
			}
			for _, one := range mended {
				fmt.Fprintf(c.Stderr, "patd: %s\n", one)
			}
		}
		found, err := o.Check(ctx)
		if err != nil {
			return err
		}
		now := c.Now()
		ends, err := ReadEndings(ctx, o.Store, now)
		if err != nil && len(found) == 0 {
			return err
		}
		var holds summary
		if len(found) == 0 || asJSON {
			if holds, err = summarize(ctx, o.Store, o.Place); err != nil && len(found) == 0 {
				return err // in a store with problems, a failed count is expected
			}
		}
		if !asJSON {
			for _, warning := range o.warnings(ends, now) {
				fmt.Fprintf(c.Stderr, "patd: warning: %s\n", warning)
			}
		}
		if asJSON {
			err = c.JSON(struct {
				OK       bool     `json:"ok"`
				Problems []string `json:"problems"`
				Warnings []string `json:"warnings"`
				summary
			}{len(found) == 0, append([]string{}, found...), o.warnings(ends, now), holds})
		} else if len(found) == 0 {
			_, err = fmt.Fprintln(c.Stdout, holds)
		} else {
			for _, problem := range found {
				fmt.Fprintln(c.Stdout, cli.Cell(cli.Redact(problem)))
			}
			err = nil
		}
		if err == nil && len(found) > 0 {
			err = fmt.Errorf("%s: %s; %s", o.Place, cli.Counted(int64(len(found)), "problem"), remedy(found))
		}
		return err
	})
}

// remedy returns the advice for the problems found.
func remedy(found []string) string {
	all := func(with string) bool {
		return !slices.ContainsFunc(found, func(problem string) bool { return !strings.Contains(problem, with) })
	}
	switch {
	case all(store.RepairPositions):
		return "run `" + store.RepairPositions + "`"
	case all(store.RefusedRemedy):
		return "they are refused wherever they are used; " + "revoke what they are of, or stop the server and restore a backup"
	case all(store.SealRows):
		return "run `" + store.SealRows + "`"
	}
	return "stop the server and restore a backup"
}

// warnings returns what an operator should look to, in a store without problems too.
func (o *Opened) warnings(ends Endings, now time.Time) []string {
	list := ends.Warnings(now)
	if !o.RowsSealed() {
		list = append(
			list,
			"rows that are edited in the database are believed, since they are not sealed; when every server is of "+
				"this version, run `"+store.SealRows+"`",
		)
	}
	return list
}
