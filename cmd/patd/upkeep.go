package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"patd/store"
	"patd/tokens"
)

func (c *command) backupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup FILE --data-dir DIR",
		Short: "Copy the store, consistent, the server running or not",
		Long: `Copy the store into a new file, as it is at one moment, the server running or not. The digest key is not in it: keep a
copy of the key file in another place.

To restore: stop the server and run ` + "`patd restore FILE --data-dir DIR`" + `. By hand: stop the server, remove patd.db,
patd.db-wal and patd.db-shm (a log left beside another file would spoil it), put the copy in the place of patd.db
beside its hash.key, and run ` + "`patd check`" + `.`,
		Args: takes("FILE"),
	}
	return c.keptStoreCommand(cmd, func(ctx context.Context, o *opened, args []string) error {
		if err := o.Backup(ctx, args[0]); err != nil {
			return backupFault(args[0], err)
		}
		fmt.Fprintf(c.Stderr, "patd: wrote %s; it is of use only with the hash key, which is not in it\n", args[0])
		return nil
	})
}

// backupFault is why a backup failed, without the name under which it was written first.
func backupFault(file string, err error) error {
	var (
		path *fs.PathError
		link *os.LinkError
	)
	switch {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("back up to %s: there is such a file already, and a backup replaces none", file)
	case errors.As(err, &path):
		return fmt.Errorf("back up to %s: %w", file, path.Err)
	case errors.As(err, &link):
		return fmt.Errorf("back up to %s: %w", file, link.Err)
	}
	return err
}

// keptStoreCommand makes a command that works on a store that is there, and makes none.
func (c *command) keptStoreCommand(cmd *cobra.Command, do onStore) *cobra.Command {
	cmd = c.commandOn(cmd, c.openKept, do)
	cmd.Flags().Lookup("data-dir").Usage = "`directory` of the store and its key"
	return cmd
}

// openKept opens a store that is there.
func (c *command) openKept(ctx context.Context, s *settings, log *slog.Logger) (*opened, error) {
	p, err := c.place(s)
	if err != nil {
		return nil, err
	}
	if p.remote() {
		return c.open(ctx, s, log)
	}
	switch info, err := os.Stat(p.database); {
	case errors.Is(err, fs.ErrNotExist) && s.databaseURL.IsEmpty():
		return nil, fmt.Errorf("there is no store in %s (no %s); patd serve or patd service create makes one", s.dataDir, filepath.Base(p.database))
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no store %s; patd serve or patd service create makes one", p.database)
	case err != nil:
		return nil, fmt.Errorf("look for the store: %w", err)
	case info.Size() == 0:
		return nil, fmt.Errorf("there is no store in %s: the file is empty", p.database)
	}
	return c.open(ctx, s, log)
}

// summary is what a store holds.
type summary struct {
	Database string   `json:"database"`
	Tokens   int64    `json:"tokens"`
	Services int64    `json:"services"`
	Keys     []string `json:"keys"` // not retired, oldest first
}

// String is the line that says that a store is sound.
func (s summary) String() string {
	return fmt.Sprintf("ok: %s, %s, %s, keys %s", s.Database, counted(s.Tokens, "token"), counted(s.Services, "service"), strings.Join(s.Keys, " "))
}

func counted(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// summarize counts what an open store holds.
func summarize(ctx context.Context, st *store.Store, p place) (summary, error) {
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

func (c *command) checkCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check --data-dir DIR",
		Short: "Look whether the store is sound and the key file belongs to it",
		Args:  takes(),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c.keptStoreCommand(cmd, func(ctx context.Context, o *opened, _ []string) error {
		found, err := o.Check(ctx)
		if err != nil {
			return err
		}
		var holds summary
		if len(found) == 0 || asJSON {
			if holds, err = summarize(ctx, o.Store, o.place); err != nil && len(found) == 0 {
				return err // in a store with problems, what cannot be counted is no news
			}
		}
		if asJSON {
			err = c.json(struct {
				OK       bool     `json:"ok"`
				Problems []string `json:"problems"`
				summary
			}{len(found) == 0, append([]string{}, found...), holds})
		} else if len(found) == 0 {
			_, err = fmt.Fprintln(c.Stdout, holds)
		} else {
			for _, problem := range found {
				fmt.Fprintln(c.Stdout, cell(redact(problem)))
			}
			err = nil
		}
		if err == nil && len(found) > 0 {
			err = fmt.Errorf("%s: %s; stop the server and restore a backup", o.place, counted(int64(len(found)), "problem"))
		}
		return err
	})
}
